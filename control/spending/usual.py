"""What is usual for an account: the median of its own past hours, or days, in which it used anything.

Nights and weekends count for nothing, so an account that is idle most of the time has a usual of its busy hours. What
it does at the same hour of other days (or on the same weekday) is its usual of then, where that is more: a batch every
night is no spike. Both are medians, so single windows, a spike of last week among them, move neither.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

DAYS: Final = 28
"""How far back is looked."""
LEAST_WINDOWS: Final[Mapping[str, int]] = {"hour": 24, "day": 7}
"""Of the past with anything in them; before there are so many nothing is judged."""
LEAST_ALIKE: Final = 3
"""Of the same hour, or weekday, before they say anything."""


def usual_of(per: str, window: str, past: Mapping[str, int]) -> int | None:
    """What is usual in a window, by what was used in past ones, each more than 0; None: not known yet."""
    if len(past) < LEAST_WINDOWS[per]:
        return None
    place = _place(per, window)
    alike = [used for of, used in past.items() if _place(per, of) == place]
    found = _median(tuple(past.values()))
    return max(found, _median(alike)) if len(alike) >= LEAST_ALIKE else found


def _median(values: Sequence[int]) -> int:
    """The upper one of an even number."""
    return sorted(values)[len(values) // 2]


def _place(per: str, window: str) -> object:
    """`2026-11-20T14`: its hour; `2026-11-20`: its weekday."""
    return window[11:] if per == "hour" else date.fromisoformat(window).weekday()
