"""A policy file's bytes to plain data, with the place of everything in it.

Only the plain part of YAML is read: one document of mappings, sequences and scalars. Anchors, aliases, tags, directives
and further documents are refused, so a file is what it looks like and cannot grow when it is read. A plain scalar is a
whole number, true, false, empty, or text; nothing is ever a float, a date or an octal number.
"""

import re
from dataclasses import dataclass, field
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
)
from ruamel.yaml.reader import ReaderError

from rules.policy.source import PolicyError

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""10,000 rules, one a line, are about 1 MiB."""
MAX_DEPTH: Final = 16
"""The deepest path of the schema has 8 steps."""
MAX_NODES: Final = 500_000

type Location = tuple[str | int, ...]
"""Keys and positions from the document's root."""

_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_WORDS: Final[dict[str, object]] = {"": None, "~": None, "null": None, "true": True, "false": False}
_QUOTE: Final = 'quote the value, as in path: "/tickets/{id}" or connection: "*"'


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One file's data and where each value and each key stands."""

    file: str
    data: dict[str, object]
    values: dict[Location, Place]
    keys: dict[Location, Place]

    def value(self, location: Location) -> Place:
        """Where the value stands; of the nearest one around it when it is missing."""
        return self._nearest(self.values, location)

    def key(self, location: Location) -> Place:
        """Where the key stands; for an element of a sequence, the element."""
        return self.keys.get(location) or self.value(location)

    @staticmethod
    def _nearest(places: dict[Location, Place], location: Location) -> Place:
        while location and location not in places:
            location = location[:-1]
        return places.get(location, Place(1, 1))

    def error(self, place: Place, message: str, fix: str) -> PolicyError:
        """An error in this file."""
        return PolicyError(self.file, place.line, place.column, message, fix)


def read(raw: bytes, file: str) -> tuple[Reading | None, list[PolicyError]]:
    """The file's data and what is wrong with it as YAML. Never raises; None when nothing of it can be used."""
    if len(raw) > MAX_FILE_BYTES:
        return None, [PolicyError(file, 1, 1, f"larger than {MAX_FILE_BYTES} bytes", "split it, one tenant a file")]
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        place = (before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        return None, [PolicyError(file, *place, "not UTF-8", "save the file as UTF-8")]
    builder = _Builder(file)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
            if builder.stopped:
                break
    except MarkedYAMLError as error:
        builder.errors.append(_explain(error, file))
        return None, builder.errors
    except ReaderError as error:
        before_text = text[: error.position] if isinstance(error.position, int) else ""
        line, column = before_text.count("\n") + 1, len(before_text) - before_text.rfind("\n")
        message = "a character that may not stand in YAML"
        return None, [*builder.errors, PolicyError(file, line, column, message, "remove the control character")]
    except (YAMLError, ValueError, OverflowError, RecursionError):
        # The parser lets some of Python's own errors out: `"\UFFFFFFFF"` is an OverflowError of chr().
        place_of_last = builder.place
        return None, [
            *builder.errors,
            PolicyError(file, place_of_last.line, place_of_last.column, "not valid YAML behind here", _QUOTE),
        ]
    return builder.result(), builder.errors


def _explain(error: MarkedYAMLError, file: str) -> PolicyError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problem = " ".join(str(error.problem or error.context or "not valid YAML").split())
    if "\\t" in problem or "'\t'" in problem or "tab" in problem.lower():
        return PolicyError(file, line, column, "a tab", "indent with spaces; YAML forbids tabs there")
    if "alias" in str(error.context) or "anchor" in str(error.context):
        return PolicyError(file, line, column, "* and & start aliases and anchors, which are refused", _QUOTE)
    if "indent" in problem or "block" in problem or "block" in str(error.context):
        return PolicyError(file, line, column, f"not valid YAML: {problem}", "line it up with its neighbours")
    return PolicyError(file, line, column, f"not valid YAML: {problem}", _QUOTE)


@dataclass(slots=True)
class _Mapping:
    """A mapping that has not ended."""

    location: Location
    node: dict[str, object]
    key: str | None = None
    """The key whose value comes next; None when a key does."""
    skip: bool = False
    """The next value belongs to a key that stands twice, and is not used."""


@dataclass(slots=True)
class _Sequence:
    """A sequence that has not ended."""

    location: Location
    node: list[object]


@dataclass(slots=True)
class _Builder:
    file: str
    errors: list[PolicyError] = field(default_factory=list)
    stopped: bool = False
    place: Place = Place(1, 1)
    _stack: list[_Mapping | _Sequence] = field(default_factory=list)
    _root: object = None
    _documents: int = 0
    _nodes: int = 0
    _values: dict[Location, Place] = field(default_factory=dict)
    _keys: dict[Location, Place] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """One event of the parser."""
        if event.start_mark is not None:
            self.place = Place(event.start_mark.line + 1, event.start_mark.column + 1)
        match event:
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop("a second document", "write one tenant a file, without ---")
                elif event.version is not None or event.tags:
                    self._stop("a YAML directive", "remove the line that starts with %")
            case AliasEvent():
                self._stop("an alias", 'write the value out; a * must be quoted: "*"')
            case NodeEvent():
                self._node(event)
            case MappingEndEvent() | SequenceEndEvent():
                self._stack.pop()
            case _:
                pass

    def result(self) -> Reading | None:
        """What was read, once the parser has ended."""
        if self.stopped:
            return None
        if self._root is None:
            self._error(Place(1, 1), "the file is empty", "start it with exeat: 1 and tenant: NAME")
            return None
        if not isinstance(self._root, dict):
            self._error(Place(1, 1), "not a policy", "start it with exeat: 1 and tenant: NAME")
            return None
        return Reading(self.file, self._root, self._values, self._keys)

    def _node(self, event: NodeEvent) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._stop(f"more than {MAX_NODES} values", "split it, one tenant a file")
        if getattr(event, "anchor", None) is not None:
            return self._stop("an anchor", "write the value out each time; an & must be quoted")
        if getattr(event, "ctag", None) is not None:
            return self._stop("a YAML tag", "remove the ! and the word behind it, or quote the value")
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, _Mapping) and parent.key is None and not parent.skip:
            return self._key(event, parent)
        if isinstance(event, ScalarEvent):
            if event.style is None and event.value == "" and isinstance(parent, _Mapping) and parent.key is not None:
                # An empty value begins where the next thing does; it is missing where its key stands.
                self.place = self._keys[(*parent.location, parent.key)]
            self._attach(parent, _scalar(event))
        elif len(self._stack) >= MAX_DEPTH:
            self._stop(f"nested deeper than {MAX_DEPTH}", "no part of a policy is that deep; close a bracket")
        elif isinstance(event, MappingStartEvent):
            mapping: dict[str, object] = {}
            self._stack.append(_Mapping(self._attach(parent, mapping), mapping))
        else:
            sequence: list[object] = []
            self._stack.append(_Sequence(self._attach(parent, sequence), sequence))
        return None

    def _key(self, event: NodeEvent, parent: _Mapping) -> None:
        if not isinstance(event, ScalarEvent):
            self._stop("a key that is not text", "write a plain word before the colon")
            return
        key = str(event.value)
        location = (*parent.location, key)
        if key in parent.node:
            first = self._keys[location]
            self._error(self.place, f"{_show(key)} stands twice", f"remove one; the first is on line {first.line}")
            parent.skip = True
        else:
            self._keys[location] = self.place
            parent.key = key

    def _attach(self, parent: _Mapping | _Sequence | None, value: object) -> Location:
        match parent:
            case None:
                self._root = value
                location: Location = ()
            case _Sequence():
                location = (*parent.location, len(parent.node))
                parent.node.append(value)
            case _Mapping(key=None):  # the key stood twice
                parent.skip = False
                return (*parent.location, "")
            case _Mapping(key=str(key)):
                location = (*parent.location, key)
                parent.node[key] = value
                parent.key = None
        self._values[location] = self.place
        return location

    def _error(self, place: Place, message: str, fix: str) -> None:
        self.errors.append(PolicyError(self.file, place.line, place.column, message, fix))

    def _stop(self, message: str, fix: str) -> None:
        self._error(self.place, message, fix)
        self.stopped = True


def _scalar(event: ScalarEvent) -> object:
    text = str(event.value)
    if event.style is not None:  # quoted, or a block: always text
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _WHOLE.fullmatch(text) else text


def _show(key: str) -> str:
    return f'"{key[:60]}"' if key.isprintable() else "a key"
