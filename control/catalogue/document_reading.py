"""The part of an OpenAPI document that a catalogue is made of, read from JSON or YAML and nothing else of it kept.

Documents come from strangers and are large. What is not needed is never built, so neither its size nor its depth nor
what its anchors multiply to costs memory; references are never followed, so no other file and no host is asked.
"""

import json
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from control.operations import Refused

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
"""The largest published ones (GitHub, Microsoft Graph) have 10 to 40 MB."""
MAX_YAML_BYTES: Final = 24 * 1024 * 1024
"""A megabyte of YAML takes seconds to read, a megabyte of JSON some milliseconds."""
MAX_EVENTS: Final = 6_000_000
MAX_DEPTH: Final = 200
"""Published schemas have some 40 levels; the parser's time grows with the square of the depth."""
MAX_KEPT_DEPTH: Final = 12
"""Values of a server's variables stand deepest: paths, path, method, servers, one, variables, one, enum, value."""


class Elsewhere:
    """In place of a value that stands somewhere else (an alias), or in two places (a key given twice)."""

    def __repr__(self) -> str:
        return "ELSEWHERE"


ELSEWHERE: Final = Elsewhere()

type Value = str | int | float | bool | list["Value"] | dict[str, "Value"] | Elsewhere | None
type Location = tuple[str | int, ...]

_TOP: Final = frozenset({"openapi", "swagger", "servers", "paths"})


def wanted(location: Location) -> bool:
    """Whether the value there is kept, and what is below it asked again."""
    if len(location) > MAX_KEPT_DEPTH:
        return False
    match location:
        case () | ("paths", _) | ("paths", _, _):
            return True
        case (str(key),):
            return key in _TOP
        case ("paths", _, "servers", *_) | ("servers", *_):
            return True
        case ("paths", _, _, key, *_):
            return key in ("operationId", "servers")
        case _:
            return False


def read_document(raw: bytes) -> dict[str, Value]:
    """What is wanted of the document. Raises `Refused` with what is wrong."""
    if len(raw) > MAX_JSON_BYTES:
        raise Refused(f"the document is larger than {MAX_JSON_BYTES >> 20} MiB", "Cut out the paths that you need.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused("the document is not UTF-8", "Save it as UTF-8.") from None
    data = _from_json(text) if text.lstrip()[:1] == "{" else _from_yaml(text, len(raw))
    if not isinstance(data, dict):
        raise Refused("not an OpenAPI document", "Give the file that starts with openapi: 3.0.x or 3.1.x.")
    return data


def _from_json(text: str) -> Value:
    try:
        return _pruned(json.loads(text, object_pairs_hook=_members), ())
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Refused(f"not JSON: {error}", "Download the file again.") from None


def _too_deep() -> Refused:
    return Refused("the document is nested too deep", "No API needs that; look at the file.")


def _members(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                members[name] = ELSEWHERE
            seen.add(name)
    return members


def _pruned(value: Value, location: Location) -> Value:
    match value:
        case dict():
            return {
                name: _pruned(member, (*location, name)) for name, member in value.items() if wanted((*location, name))
            }
        case list():
            return [_pruned(item, (*location, index)) for index, item in enumerate(value)]
        case _:
            return value


def _from_yaml(text: str, size: int) -> Value:
    if size > MAX_YAML_BYTES:
        raise Refused(
            f"the document is larger than {MAX_YAML_BYTES >> 20} MiB of YAML",
            "Give it as JSON, which most services publish too.",
        )
    building = _Building()
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            building.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f" at line {mark.line + 1}"
        raise Refused(f"not YAML{line}", "Give an OpenAPI document, as JSON or YAML.") from None
    except (YAMLError, ValueError, OverflowError, RecursionError):
        raise Refused("not YAML", "Give an OpenAPI document, as JSON or YAML.") from None
    return building.root


class _Building:
    """The wanted values of a stream of events; what is not wanted is skipped, counted and forgotten."""

    def __init__(self) -> None:
        self.root: Value = None
        self._open: list[tuple[Location, dict[str, Value] | list[Value]]] = []
        self._key: str | None = None
        self._skipping = 0
        """How many mappings and sequences that are not wanted are open."""
        self._events = 0
        self._documents = 0

    def take(self, event: Event) -> None:
        """The next event of the parser. Raises `Refused`."""
        self._events += 1
        if self._events > MAX_EVENTS:
            raise Refused(f"the document has more than {MAX_EVENTS} values", "Give it as JSON.")
        match event:
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise Refused("the file has several documents", "Give one document a file, without ---.")
            case MappingStartEvent() | SequenceStartEvent() if self._skipping:
                self._skipping += 1
                self._check_depth()
            case MappingEndEvent() | SequenceEndEvent() if self._skipping:
                self._skipping -= 1
            case MappingEndEvent() | SequenceEndEvent():
                self._open.pop()
            case NodeEvent() if not self._skipping:
                self._node(event)
            case _:
                pass

    def _node(self, event: NodeEvent) -> None:
        where, parent = self._open[-1] if self._open else ((), None)
        if isinstance(parent, dict) and self._key is None:
            if not isinstance(event, ScalarEvent):
                raise Refused("a key that is not text", "Give an OpenAPI document; its keys are words.")
            self._key = str(event.value)
            return
        location: Location = where
        if isinstance(parent, dict):
            location = (*where, self._key or "")
        elif isinstance(parent, list):
            location = (*where, len(parent))
        new: dict[str, Value] | list[Value] | None = None
        if isinstance(event, MappingStartEvent):
            new = {}
        elif isinstance(event, SequenceStartEvent):
            new = []
        kept = wanted(location) or (isinstance(parent, dict) and self._key == "<<")
        if kept:
            self._keep(parent, _scalar(event) if new is None else new)
        self._key = None
        if new is not None and kept:
            self._open.append((location, new))
            self._check_depth()
        elif new is not None:
            self._skipping = 1

    def _check_depth(self) -> None:
        if len(self._open) + self._skipping > MAX_DEPTH:
            raise _too_deep()

    def _keep(self, parent: dict[str, Value] | list[Value] | None, value: Value) -> None:
        if isinstance(parent, dict) and self._key is not None:
            parent[self._key] = ELSEWHERE if self._key in parent else value
        elif isinstance(parent, list):
            parent.append(value)
        else:
            self.root = value


def _scalar(event: NodeEvent) -> Value:
    if isinstance(event, AliasEvent):
        return ELSEWHERE
    return str(event.value) if isinstance(event, ScalarEvent) else None
