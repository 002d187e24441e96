"""Calendar windows in a policy's time zone.

A day window `D` begins at the first instant whose local date is `D` or later and ends where the window `D + 1` begins.
Said so, windows never overlap, never leave a gap and never come back, whatever the zone does: 23 and 25 hour days,
zones whose clocks change at midnight (00:00 does not exist that day), clocks set back across midnight (the last hour of
a date happens twice, the second time it belongs to the next window), and dates that a zone skipped altogether.
"""

from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a period."""

    id: str
    """The local date, `2026-03-29`; orders as text the way time does."""
    resets_at: int
    """Unix seconds at which the next window begins."""


def day_window(now: datetime, zone: ZoneInfo) -> Window:
    """The day window that `now` lies in.

    Raises ValueError for a `now` without a time zone: guessing one would move the budget's edge.
    """
    if now.tzinfo is None:
        raise ValueError("now must be aware")
    today = now.astimezone(zone).date()
    following = _begins_at(today + _ONE_DAY, zone)
    if now.timestamp() < following:
        return Window(today.isoformat(), following)
    # Clocks were set back across midnight: tomorrow's window has begun already and does not end again.
    tomorrow = today + _ONE_DAY
    return Window(tomorrow.isoformat(), _begins_at(tomorrow + _ONE_DAY, zone))


@lru_cache(maxsize=64)
def longest_day_seconds(zone: ZoneInfo) -> int:
    """The longest day window of a zone, by what is known of the years 2020 to 2039."""
    longest, begins, end = 0, _begins_at(date(2020, 1, 1), zone), datetime(2040, 1, 1, tzinfo=UTC).timestamp()
    while begins < end:
        resets_at = day_window(datetime.fromtimestamp(begins, UTC), zone).resets_at
        longest, begins = max(longest, resets_at - begins), resets_at
    return longest


@lru_cache(maxsize=1024)
def _begins_at(day: date, zone: ZoneInfo) -> int:
    """The first Unix second whose local date is `day` or later."""
    # PEP 495: where midnight does not exist, fold=0 reads it with the offset from before the change, which is at or
    # after the change, and fold=1 with the offset from behind it, which is before the change. Elsewhere fold=0 is the
    # first midnight of the day.
    midnight = datetime.combine(day, time(), tzinfo=zone)
    first = int(midnight.timestamp())
    if datetime.fromtimestamp(first, UTC).astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first
    before = int(midnight.replace(fold=1).timestamp())
    seconds = range(before, first + 1)
    reached = bisect_left(seconds, True, key=lambda s: datetime.fromtimestamp(s, UTC).astimezone(zone).date() >= day)
    return seconds[min(reached, len(seconds) - 1)]
