"""Calendar windows in a policy's time zone: hours, days, months; and the run, which does not end by the clock.

A window begins at the first instant whose local time is its beginning or later, and ends where the next one begins.
Said so, windows never overlap, never leave a gap and never come back, whatever the zone does: days of 23 and 25 hours,
hours that are skipped, or happen twice and are one window of two hours, half hours (Lord Howe), zones whose clocks
change at midnight (00:00 does not exist that day), clocks set back across midnight (the last hour of a date happens
twice, the second time it belongs to the next window), and dates that a zone skipped altogether.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

_ONE_DAY: Final = timedelta(days=1)
_ONE_HOUR: Final = timedelta(hours=1)

RUN: Final = "run"


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a period."""

    id: str
    """Its local beginning: `2026-03-29T14`, `2026-03-29`, `2026-03`; orders as text the way time does. `run` for a run,
    whose name is in the budget's key."""
    resets_at: int
    """Unix seconds at which the next window begins; 0 for a run."""


@dataclass(frozen=True, slots=True)
class _Calendar:
    floor: Callable[[datetime], datetime]
    """The local beginning of what a local time lies in."""
    following: Callable[[datetime], datetime]
    written: str
    """As `strftime` writes it; years have four digits here."""


def _next_month(first: datetime) -> datetime:
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


_CALENDARS: Final[Mapping[str, _Calendar]] = MappingProxyType(
    {
        "hour": _Calendar(
            lambda local: local.replace(minute=0, second=0, microsecond=0), lambda at: at + _ONE_HOUR, "%Y-%m-%dT%H"
        ),
        "day": _Calendar(
            lambda local: local.replace(hour=0, minute=0, second=0, microsecond=0), lambda at: at + _ONE_DAY, "%Y-%m-%d"
        ),
        "month": _Calendar(
            lambda local: local.replace(day=1, hour=0, minute=0, second=0, microsecond=0), _next_month, "%Y-%m"
        ),
    }
)
PERIODS: Final = (*_CALENDARS, RUN)
"""What an amount is counted over."""
_OF_A_RUN: Final = Window(RUN, 0)
_LAST: Final[dict[tuple[str, str], tuple[float, Window, ZoneInfo]]] = {}
"""What was found last, by period and zone: most calls ask for the same. As many as there are zones at the most."""


def window_of(per: str, now: datetime, zone: ZoneInfo) -> Window:
    """The window of this period that `now` lies in.

    Raises ValueError for a `now` without a time zone: guessing one would move the budget's edge.
    """
    if now.tzinfo is None:
        raise ValueError("now must be aware")
    if per == RUN:
        return _OF_A_RUN
    second = now.timestamp()
    last = _LAST.get((per, zone.key))
    # Windows follow each other, so whatever lies between an instant of a window and its end lies in it.
    if last is not None and last[0] <= second < last[1].resets_at and last[2] is zone:
        return last[1]
    calendar = _CALENDARS[per]
    begins = calendar.floor(now.astimezone(zone).replace(tzinfo=None, fold=0))
    window = _window(per, begins, zone)
    while window.resets_at <= second:
        # Clocks were set back across its end: the next window has begun already and does not end again.
        begins = calendar.following(begins)
        window = _window(per, begins, zone)
    if zone.key is not None:
        _LAST[per, zone.key] = second, window, zone
    return window


def day_window(now: datetime, zone: ZoneInfo) -> Window:
    """The day window that `now` lies in. Raises as `window_of`."""
    return window_of("day", now, zone)


@lru_cache(maxsize=64)
def longest_day_seconds(zone: ZoneInfo) -> int:
    """The longest day window of a zone, by what is known of the years 2020 to 2039."""
    longest, begins, end = 0, _begins_at(datetime(2020, 1, 1), zone), datetime(2040, 1, 1, tzinfo=UTC).timestamp()  # noqa: DTZ001 - a wall clock's
    while begins < end:
        resets_at = day_window(datetime.fromtimestamp(begins, UTC), zone).resets_at
        longest, begins = max(longest, resets_at - begins), resets_at
    return longest


@lru_cache(maxsize=1024)
def _window(per: str, begins: datetime, zone: ZoneInfo) -> Window:
    calendar = _CALENDARS[per]
    return Window(begins.strftime(calendar.written), _begins_at(calendar.following(begins), zone))


@lru_cache(maxsize=1024)
def _begins_at(wall: datetime, zone: ZoneInfo) -> int:
    """The first Unix second whose local time is `wall` or later."""
    # PEP 495: where a local time does not exist, fold=0 reads it with the offset from before the change, which is at or
    # after the change, and fold=1 with the offset from behind it, which is before the change. Elsewhere fold=0 is the
    # first time that it is so late.
    first = int(wall.replace(tzinfo=zone).timestamp())
    if _local(first, zone) == wall:
        return first
    before = int(wall.replace(tzinfo=zone, fold=1).timestamp())
    seconds = range(before, first + 1)
    reached = bisect_left(seconds, True, key=lambda second: _local(second, zone) >= wall)
    return seconds[min(reached, len(seconds) - 1)]


def _local(second: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(second, UTC).astimezone(zone).replace(tzinfo=None, fold=0)
