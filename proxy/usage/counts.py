"""An object with counts becomes tokens. What is negative, no whole number, or more than there could be is impossible:
then nothing of it counts."""

from collections.abc import Mapping
from typing import Final

from rules.catalogue.usage import Path, Usage
from rules.content.refused import ContentRefused
from rules.content.strict_json import Json, read_json
from rules.prices.tokens import KINDS, MAX_COUNT, Tokens

type Counts = dict[str, int]

_NEEDED: Final = ("input", "output")
"""Kinds that have to be told, where the catalogue says that they are counted."""


class Impossible(Exception):
    """What is said to have been used cannot have been."""


def read_counts(data: bytes, counts: Mapping[str, Path]) -> Counts:
    """The counts in the JSON of an object; empty for null. Raises `Impossible`."""
    try:
        value = read_json(data)
    except ContentRefused as error:
        raise Impossible from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Impossible
    found = {}
    for kind, path in counts.items():
        count = _at(value, path)
        if count is not None:
            found[kind] = _possible(count)
    return found


def read_count(data: bytes) -> int:
    """The one count that the JSON is. Raises `Impossible`."""
    try:
        return _possible(read_json(data))
    except ContentRefused as error:
        raise Impossible from error


def read_header(value: bytes | None) -> int:
    """The count in a header. Raises `Impossible`."""
    if value is None or not value.isdigit() or len(value) > 15:
        raise Impossible
    return _possible(int(value))


def tokens_of(counts: Counts, usage: Usage) -> Tokens | None:
    """The tokens, each counted once; None where a count is missing or they contradict each other."""
    said = usage.counts if usage.counts is not None else usage.headers or {}
    if any(kind in said and kind not in counts for kind in _NEEDED):
        return None
    left = {kind: counts.get(kind, 0) for kind in KINDS}
    for part, of in (usage.inside or {}).items():
        left[of] -= counts.get(part, 0)
    return None if min(left.values()) < 0 else Tokens(**left)


def _possible(count: Json) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
        raise Impossible
    return count


def _at(value: Json, path: Path) -> Json:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
