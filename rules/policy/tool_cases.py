"""Cases that name a tool and its arguments in place of a request: the request that an agent would send for it."""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from rules.catalogue.known import KnownService
from rules.catalogue.tool import Field, HttpCall, Tool
from rules.policy.cases import JSON, parse_form_body
from rules.policy.invalid import ValueInvalid
from rules.policy.templates import Template

type Args = Mapping[str, object]

_IN_QUERY: Final = frozenset({"GET", "HEAD", "DELETE"})
_ABSENT: Final = "x"
"""Stands in the path for an argument that the case leaves out."""


def request_of(known: KnownService, name: str, args: Args) -> tuple[str, str, str | None, bytes]:
    """Method, target, content type and body of a request for the tool. Raises `ValueInvalid` for a tool without one."""
    if known.protocol == "mcp":
        params = {"name": name.removeprefix(f"{known.name}."), "arguments": dict(args)}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return "POST", known.endpoint, JSON, _json(message)
    tool = known.tools.get(name)
    if tool is None:
        raise ValueInvalid(f"{name}: there is no such tool", f"see exeat catalogue show {known.name}")
    call = tool.calls[0]
    if isinstance(call, Field):
        given = ", ".join(f"{key}: {_literal(value)}" for key, value in args.items())
        field = f"{call.name}({given})" if given else call.name
        return "POST", known.graphql[0], JSON, _json({"query": f"{call.operation} {{ {field} }}"})
    return _http(tool, call, args)


def _http(tool: Tool, call: HttpCall, args: Args) -> tuple[str, str, str | None, bytes]:
    left = dict(args)
    path = _path(call.template, left)
    if call.method in _IN_QUERY:
        query = parse_form_body(left)
        return call.method, f"{path}?{query}" if query else path, None, b""
    return call.method, path, JSON, _json(left)


def _path(template: Template, left: dict[str, object]) -> str:
    names = {at: name for name, at in template.parameters}
    parts = [
        quote(str(left.pop(names[at], _ABSENT)), safe="") if at in names else quote(str(segment), safe="")
        for at, segment in enumerate(template.segments)
    ]
    return "/" + "/".join([*parts, *([_ABSENT] if template.rest else [])])


def _literal(value: object) -> str:
    """As GraphQL writes it: JSON but for the names in objects."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_literal(member)}" for key, member in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case _:
            return json.dumps(value)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")
