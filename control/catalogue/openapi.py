"""A catalogue file from an OpenAPI document: its operations as tools, with the effect that their methods suggest.

What cannot be written is left out and said, and so is every tool that would then be taken for what was left out: an
unknown request is a write that no rule by a tool's name allows, a request with a wrong name is allowed by mistake.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from control.catalogue.document_reading import Value, read_document
from control.catalogue.openapi_paths import Shape, shape_of, shape_of_written, written
from control.catalogue.openapi_servers import NOWHERE, Servers, servers_of
from control.catalogue.tool_names import tool_name
from control.catalogue.writing import Draft, catalogue_text
from control.operations import Refused
from rules.catalogue.builtin import BUILTIN
from rules.catalogue.document import MAX_TOOLS, SERVICE
from rules.catalogue.effect import Effect
from rules.policy.invalid import ValueInvalid

MAX_OPERATIONS: Final = 10_000
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
"""OpenAPI 3.1 section 4.8.9: the operations of a path."""
_EFFECTS: Final[dict[str, Effect]] = {"GET": "read", "HEAD": "read", "DELETE": "delete"}
SHADOWED: Final = "its path also fits requests of a path that cannot be written"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An operation that is not in the file."""

    operation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A catalogue file, and what it does not have."""

    text: str
    service: str
    hosts: tuple[str, ...]
    tools: tuple[Draft, ...]
    left_out: tuple[LeftOut, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Operation:
    method: str
    """Empty: any, because nothing is said of its path here."""
    path: str
    id: str | None = None
    servers: Value = None
    problem: str | None = None

    @property
    def shown(self) -> str:
        text = f"{self.method or 'any method'} {self.path}"
        return text[:200] if text.isprintable() else "one with characters that cannot be shown"


def import_openapi(raw: bytes, service: str | None, hosts: tuple[str, ...]) -> Imported:
    """The file for the document. Raises `Refused` with what is wrong and how to mend it."""
    document = read_document(raw)
    _check_version(document)
    paths = document.get("paths")
    if not isinstance(paths, dict) or not paths:
        raise Refused("the document has no paths", "Give the document that describes the API's operations.")
    common = servers_of(document.get("servers"))
    tools, left_out, of_operations = _tools(paths, common)
    found = tuple(dict.fromkeys((*common.hosts, *of_operations)))
    named = _host_names(hosts) or found[:64]
    name = _service_name(service, named)
    if not tools:
        raise Refused("none of the document's operations can be written", left_out[0].reason if left_out else "")
    if len(tools) > MAX_TOOLS:
        raise Refused(
            f"the document has {len(tools)} operations; a service has at most {MAX_TOOLS} tools",
            "Cut out the paths that you need.",
        )
    comments = [
        "Made by `exeat catalogue import openapi` from a document whose digest is",
        f"sha256:{hashlib.sha256(raw).hexdigest()}.",
        "Effects are guesses from methods alone: GET and HEAD read, DELETE deletes, all else writes. Review them.",
    ]
    if left_out:
        comments.append(f"Left out: {len(left_out)} of its operations, which are {name}.unknown, a write.")
    try:
        text = catalogue_text(name, named, "rest", tools, comments)
    except ValidationError as error:
        raise Refused(f"the file would not be valid: {error.errors()[0]['msg']}", "Please report it.") from error
    except ValueError as error:
        raise Refused(f"the file would not be valid: {error}", "Cut out the paths that you need.") from error
    return Imported(text, name, named, tools, tuple(left_out))


def _check_version(document: dict[str, Value]) -> None:
    version = document.get("openapi")
    if isinstance(version, str) and re.match(r"3\.[01](?:\.|\Z)", version):
        return
    if "swagger" in document:
        raise Refused("a Swagger 2.0 document", "Convert it to OpenAPI 3 first; many services publish that too.")
    raise Refused("not an OpenAPI 3.0 or 3.1 document", "Give the file that starts with openapi: 3.0.x or 3.1.x.")


def _host_names(hosts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host.lower() for host in hosts))


def _service_name(service: str | None, hosts: tuple[str, ...]) -> str:
    name = service
    if name is None:
        labels = hosts[0].removeprefix("*.").split(".") if hosts else []
        name = labels[-2] if len(labels) >= 2 and not labels[-1].isdigit() else None
    if name is None:
        raise Refused("the document names no host", "Name the service: --service NAME, and its host: --host HOST")
    if not re.fullmatch(SERVICE, name, re.ASCII):
        raise Refused("not the name of a service", "Use lower-case letters, digits and -: --service acme-crm")
    if name in BUILTIN:
        raise Refused(
            f"{name} is built in; a file of the same name adds to it, and these calls are there already",
            f"Name it apart: --service {name}-api. Or write by hand what it lacks.",
        )
    return name


def _operations(paths: dict[str, Value]) -> Iterator[_Operation]:
    for path, item in paths.items():
        if path.startswith("x-"):
            continue
        if not isinstance(item, dict) or "$ref" in item or "<<" in item:
            yield _Operation("", path, problem="its path stands elsewhere: $ref, alias or merge")
            continue
        for method in METHODS:
            operation = item.get(method)
            if operation is None and method not in item:
                continue
            if not isinstance(operation, dict):
                yield _Operation(method.upper(), path, problem="it is not described where it stands")
                continue
            identity = operation.get("operationId")
            yield _Operation(
                method.upper(),
                path,
                identity if isinstance(identity, str) else None,
                operation.get("servers", item.get("servers")),
            )


def _tools(paths: dict[str, Value], common: Servers) -> tuple[tuple[Draft, ...], list[LeftOut], tuple[str, ...]]:
    tools: dict[str, Draft] = {}
    calls: dict[tuple[str, Shape], str] = {}
    left_out: list[LeftOut] = []
    unwritten: list[tuple[str, Shape]] = []
    hosts: dict[str, None] = {}
    shown: dict[str, str] = {}
    for number, operation in enumerate(_operations(paths)):
        if number >= MAX_OPERATIONS:
            raise Refused(f"the document has more than {MAX_OPERATIONS} operations", "Cut out the paths that you need.")
        where = common if operation.servers is None else servers_of(operation.servers)
        where = where if operation.servers is None or where != NOWHERE else common
        hosts.update(dict.fromkeys(where.hosts))
        whole = [f"{base}{operation.path}" for base in where.bases]
        try:
            if operation.problem is not None:
                raise ValueInvalid(operation.problem, "")
            if operation.method == "TRACE":
                left_out.append(LeftOut(operation.shown, "a method that is never forwarded"))
                continue
            texts = [written(path) for path in whole]
        except ValueInvalid as error:
            left_out.append(LeftOut(operation.shown, error.message))
            unwritten += [(operation.method, shape_of(path)) for path in whole]
            continue
        keys = {text: (operation.method, shape_of_written(text)) for text in texts}
        # Two bases may come to one path; two operations with one path are one, because nothing tells them apart.
        fresh = {key: text for text, key in keys.items() if key not in calls}
        if not fresh:
            left_out.append(LeftOut(operation.shown, "another operation has the same method and path"))
            continue
        name = tool_name(operation.id, operation.method, operation.path, tools)
        calls.update(dict.fromkeys(fresh, name))
        effect = _EFFECTS.get(operation.method, "write")
        tools[name] = Draft(name, effect, tuple(f"{operation.method} {text}" for text in fresh.values()))
        shown[name] = operation.shown
    shadowed = set(_shadowed(calls, unwritten))
    left_out += [LeftOut(shown[name], SHADOWED) for name in tools if name in shadowed]
    return tuple(tool for tool in tools.values() if tool.name not in shadowed), left_out, tuple(hosts)


def _shadowed(calls: dict[tuple[str, Shape], str], unwritten: list[tuple[str, Shape]]) -> Iterator[str]:
    by_length: defaultdict[int, list[tuple[str, Shape]]] = defaultdict(list)
    always = []
    for method, shape in dict.fromkeys(unwritten):
        if shape.open:
            always.append((method, shape))
        else:
            by_length[len(shape.pieces)].append((method, shape))
    for (method, own), name in calls.items():
        others = (*by_length[len(own.pieces)], *always)
        if any(of in ("", method) and own.takes(shape) for of, shape in others):
            yield name
