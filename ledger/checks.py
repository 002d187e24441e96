"""The checks that schemas are made of: each takes a value and returns something true when it conforms.

This is the hottest code of the package: twice per call, some forty leaves a record. So a check of a string is the bound
`fullmatch` of a compiled pattern, an enumeration is the `__contains__` of a frozenset (without a Python frame), and
nothing raises before something is wrong. A check may raise TypeError on a value of a wrong type; `Object` treats that
as non-conforming.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

from ledger.canonical import MAX_INT, NotCanonical, encode

type Check = Callable[[object], object]

MAX_ITEMS: Final = 1024
"""Of lists and maps. A record has at most 60 KiB in any case; this bounds the work before it is measured."""


class Text:
    """A string of so many characters. Any valid unicode: whoever displays it must neutralise control characters."""

    __slots__ = ("longest", "shortest")

    def __init__(self, longest: int, shortest: int) -> None:
        self.longest = longest
        self.shortest = shortest

    def __call__(self, value: object) -> object:
        """True when the value conforms."""
        return isinstance(value, str) and self.shortest <= len(value) <= self.longest


def text(longest: int, shortest: int = 0) -> Check:
    """A string of so many characters."""
    return Text(longest, shortest)


def pattern(expression: str) -> Check:
    """A string that the expression matches as a whole."""
    return re.compile(expression).fullmatch  # type: ignore[return-value]


def one_of(*values: str) -> Check:
    """One of the strings."""
    return frozenset(values).__contains__


def natural(value: object) -> object:
    """An integer from 0 to 2^53 - 1; never a boolean."""
    return type(value) is int and 0 <= value <= MAX_INT


def positive(value: object) -> object:
    """An integer from 1 to 2^53 - 1."""
    return type(value) is int and 1 <= value <= MAX_INT


def integer(value: object) -> object:
    """An integer within +-(2^53 - 1)."""
    return type(value) is int and -MAX_INT <= value <= MAX_INT


def boolean(value: object) -> object:
    """True or False."""
    return value is True or value is False


def status(value: object) -> object:
    """An HTTP status code."""
    return type(value) is int and 100 <= value <= 599


def none_or(check: Check) -> Check:
    """Null, or what conforms."""

    def conforms(value: object) -> object:
        return value is None or check(value)

    return conforms


def list_of(check: Check, most: int = MAX_ITEMS) -> Check:
    """A list (or tuple, when encoding) whose every item conforms."""

    def conforms(value: object) -> object:
        if type(value) is not list and type(value) is not tuple:
            return False
        if len(value) > most:
            return False
        for item in value:  # noqa: SIM110 - a generator costs more than the checks
            if not check(item):
                return False
        return True

    return conforms


def map_of(key: Check, member: Check, most: int = MAX_ITEMS) -> Check:
    """An object with free keys of one form, whose every member conforms."""

    def conforms(value: object) -> object:
        if type(value) is not dict:
            return False
        return len(value) <= most and all(key(k) and member(v) for k, v in value.items())

    return conforms


MAX_REMEMBERED: Final = 4096
"""Objects a check remembers; some 300 bytes each."""


class Object:
    """An object with exactly these members; those named optional may be absent, none other may be present."""

    __slots__ = ("_conforms", "_required", "members")

    def __init__(self, members: Mapping[str, Check], optional: Iterable[str] = ()) -> None:
        unknown = set(optional) - set(members)
        if unknown:
            raise ValueError(f"optional members without a check: {unknown}")
        self.members = dict(members)
        self._required = frozenset(members) - frozenset(optional)
        self._conforms = _compile(self.members, self._required)

    @property
    def required(self) -> frozenset[str]:
        """Members that must be present."""
        return self._required

    def __call__(self, value: object) -> bool:
        """True when the value conforms."""
        return self._conforms(value)

    def explain(self, value: object, path: str = "") -> str | None:
        """What is wrong, as one line that quotes no value; None when it conforms. For the rare case, so unhurried."""
        if type(value) is not dict:
            return f"{path or 'the record'} is not an object"
        prefix = f"{path}." if path else ""
        for key, member in value.items():
            check = self.members.get(key)
            if check is None:
                return f"unknown member {prefix}{str(key)[:64]!r}"
            inner = _object_in(check)
            if inner is not None and type(member) is dict:
                found = inner.explain(member, f"{prefix}{key}")
                if found is not None:
                    return found
            elif not _conforms(check, member):
                return f"{prefix}{key} does not conform"
        missing = sorted(self._required - value.keys())
        return f"missing member {prefix}{missing[0]}" if missing else None


def _compile(members: Mapping[str, Check], required: frozenset[str]) -> Callable[[object], bool]:
    """One function that checks all members of an object, written out as dataclasses write their `__init__`.

    A loop over a table costs twice as much, and this runs for some forty members a record. The names that enter the
    source are those of this package's own schemas; a name that is no plain identifier is refused.
    """
    scope: dict[str, object] = {
        "isinstance": isinstance,
        "len": len,
        "str": str,
        "dict": dict,
        "int": int,
        "type": type,
    }
    lines = ["def conforms(value):", "    if type(value) is not dict:", "        return False", "    size = len(value)"]
    lines.append("    try:")
    for index, (name, check) in enumerate(members.items()):
        if not name.isidentifier():
            raise ValueError(f"{name!r} cannot be a member's name")
        scope[f"check_{index}"] = check
        indent = "        "
        if name not in required:
            lines.append(f"        if {name!r} in value:")
            indent += "    "
            lines.append(f"{indent}size -= 1")
        lines.append(f"{indent}x = value[{name!r}]")
        lines.append(f"{indent}if not ({_inline(check, f'check_{index}')}):")
        lines.append(f"{indent}    return False")
    lines += ["    except (KeyError, TypeError):", "        return False", f"    return size == {len(required)}"]
    exec("\n".join(lines), scope)  # noqa: S102
    return cast("Callable[[object], bool]", scope["conforms"])


def _inline(check: Check, name: str) -> str:
    """An expression over `x` that does what the check does, without a call where the check is a simple one."""
    if check is natural:
        return f"type(x) is int and 0 <= x <= {MAX_INT}"
    if check is positive:
        return f"type(x) is int and 1 <= x <= {MAX_INT}"
    if isinstance(check, Text):
        return f"isinstance(x, str) and {check.shortest} <= len(x) <= {check.longest}"
    return f"{name}(x)"


def remembered(check: Object) -> Check:
    """As the check, remembering canonical bytes that conformed: for objects that many records share.

    A service account's identity, an operation, an environment recur in thousands of records; encoding one costs a
    tenth of checking it. What is judged is the encoded value, which is what the record will hold: of all values only a
    float NaN differs there (orjson writes null for it).
    """
    seen: set[bytes] = set()

    def conforms(value: object) -> object:
        if type(value) is not dict:
            return False
        try:
            data = encode(value)
        except NotCanonical:
            return False
        if data in seen:
            return True
        if not check(value):
            return False
        if len(seen) >= MAX_REMEMBERED:
            seen.clear()
        seen.add(data)
        return True

    return conforms


def _object_in(check: Check) -> Object | None:
    """The object schema inside a check, if there is one."""
    if isinstance(check, Object):
        return check
    for cell in getattr(check, "__closure__", None) or ():
        inner = cell.cell_contents
        if isinstance(inner, Object):
            return inner
        if getattr(inner, "__closure__", None):
            return _object_in(inner)
    return None


def _conforms(check: Check, value: object) -> bool:
    try:
        return bool(check(value))
    except TypeError:
        return False
