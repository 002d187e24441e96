"""Have I seen this before, over any number of records, in eight bytes each.

Keyed 64-bit hashes (Python's own, keyed anew in every process, so nobody can prepare a collision) go into
buckets; a bucket is sorted at the end. A hash that occurs twice is only a suspicion: the caller reads again and
compares the texts, so that a chance collision is never reported.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

_MASK = (1 << 64) - 1


class Seen:
    """Texts by their hashes."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))

    def add(self, text: str) -> None:
        """The text is remembered."""
        value = hash(text) & _MASK
        self._buckets[value & 255].append(value)

    def suspects(self) -> frozenset[int]:
        """Hashes that occur more than once; test a text with `hash(text) & (2**64 - 1)`."""
        found: set[int] = set()
        for bucket in self._buckets.values():
            if len(bucket) > 1:
                previous = -1
                for value in sorted(bucket):
                    if value == previous:
                        found.add(value)
                    previous = value
        return frozenset(found)


def hash_of(text: str) -> int:
    """The hash under which `Seen` remembers a text in this process."""
    return hash(text) & _MASK


def find_duplicates(
    records: Iterable[tuple[int, dict[str, Any]]],
    nonces: frozenset[int],
    calls: frozenset[int],
    find: Callable[[str, str, str], None],
) -> None:
    """Nonces, and identifiers that begin a call, which really occur twice are reported. `records` is the whole log."""
    seen: dict[tuple[str, str], int] = {}

    def once(name: str, text: str, seq: int) -> None:
        first = seen.setdefault((name, text), seq)
        if first != seq:
            find(name, f"record {seq}", f"{text} occurs in record {first} too")

    for seq, record in records:
        if hash_of(record["nonce"]) in nonces:
            once("duplicate_nonce", record["nonce"], seq)
        if begins_call(record) and hash_of(record["call"]) in calls:
            once("duplicate_call", record["call"], seq)


def begins_call(record: dict[str, Any]) -> bool:
    """True for a record that is the first of its call."""
    return record["type"] != "call.outcome" and "call" in record and record.get("attempt", 1) == 1
