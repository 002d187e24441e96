"""What calls used before: for what a request does not say itself. A maximum that fades, so that one long answer does
not count for ever, and is never forgotten in one step.

Pure: who keeps the numbers is `proxy.usage.memory`, each process for itself, from its start.
"""

from dataclasses import dataclass
from typing import Final

FADE: Final = 16
"""Each call that used less takes off one part in so many of what is above it: after 11 calls, half of it is gone."""
MARGIN: Final = 4
"""What is set aside is the maximum, and one part in so many more."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which numbers something is guessed."""

    start: int
    """Before anything is known."""
    floor: int
    ceiling: int


WRITTEN: Final = Bounds(start=8_192, floor=1_024, ceiling=128_000)
"""Tokens of one answer. Most vendors' own defaults for it lie between."""
READ: Final = Bounds(start=32_768, floor=2_048, ceiling=1_048_576)
"""Tokens that a model reads beside what is in its request: a conversation that the vendor keeps, pictures, searches."""


def seen(before: int | None, count: int) -> int:
    """The maximum, after another call that used so many."""
    if before is None or count >= before:
        return count
    return before - max(1, (before - count) // FADE)


def guess(maximum: int | None, bounds: Bounds) -> int:
    """How many the next call may use."""
    if maximum is None:
        return min(bounds.start, bounds.ceiling)
    return max(bounds.floor, min(maximum + maximum // MARGIN, bounds.ceiling))
