"""Windows at the edges that zones really have."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.limits.windows import Window, day_window, window_of


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def at(text: str) -> int:
    return int(utc(text).timestamp())


@pytest.mark.parametrize(
    ("zone", "now", "day", "resets_at"),
    [
        ("UTC", "2026-11-20T23:59:59.999999", "2026-11-20", "2026-11-21T00:00:00"),
        ("UTC", "2026-11-21T00:00:00", "2026-11-21", "2026-11-22T00:00:00"),
        # 23 and 25 hours
        ("Europe/Berlin", "2026-03-29T00:30:00", "2026-03-29", "2026-03-29T22:00:00"),
        ("Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25", "2026-10-25T23:00:00"),
        ("America/New_York", "2026-11-20T04:59:59", "2026-11-19", "2026-11-20T05:00:00"),
        # midnight does not exist: 00:00 becomes 01:00
        ("America/Sao_Paulo", "2018-11-04T02:59:59", "2018-11-03", "2018-11-04T03:00:00"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00", "2018-11-04", "2018-11-05T02:00:00"),
        # midnight comes twice: 01:00 becomes 00:00; the first one begins the day
        ("America/Havana", "2026-11-01T04:30:00", "2026-11-01", "2026-11-02T05:00:00"),
        ("America/Havana", "2026-11-01T03:59:59", "2026-10-31", "2026-11-01T04:00:00"),
        # set back across midnight: 00:01 on the 7th becomes 23:01 on the 6th; the window of the 7th does not end
        ("America/St_Johns", "2010-11-07T02:30:30", "2010-11-07", "2010-11-08T03:30:00"),
        ("America/St_Johns", "2010-11-07T02:45:00", "2010-11-07", "2010-11-08T03:30:00"),
        ("America/St_Johns", "2010-11-07T02:29:59", "2010-11-06", "2010-11-07T02:30:00"),
        # a date that a zone skipped
        ("Pacific/Apia", "2011-12-30T09:59:59", "2011-12-29", "2011-12-30T10:00:00"),
        ("Pacific/Apia", "2011-12-30T10:00:00", "2011-12-31", "2011-12-31T10:00:00"),
        ("Asia/Kathmandu", "2026-01-01T18:15:00", "2026-01-02", "2026-01-02T18:15:00"),
    ],
)
def test_the_window_of_an_instant(zone: str, now: str, day: str, resets_at: str) -> None:
    assert day_window(utc(now), ZoneInfo(zone)) == Window(day, at(resets_at))


@pytest.mark.parametrize(
    ("zone", "now", "hour", "resets_at"),
    [
        ("UTC", "2026-11-20T23:59:59.999999", "2026-11-20T23", "2026-11-21T00:00:00"),
        ("Asia/Kathmandu", "2026-01-01T18:14:59", "2026-01-01T23", "2026-01-01T18:15:00"),
        # 02 does not exist: 01 is followed by 03
        ("Europe/Berlin", "2026-03-29T00:59:59", "2026-03-29T01", "2026-03-29T01:00:00"),
        ("Europe/Berlin", "2026-03-29T01:00:00", "2026-03-29T03", "2026-03-29T02:00:00"),
        # 02 comes twice, and is one window of two hours
        ("Europe/Berlin", "2026-10-25T00:00:00", "2026-10-25T02", "2026-10-25T02:00:00"),
        ("Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25T02", "2026-10-25T02:00:00"),
        # half an hour back: 02:00 becomes 01:30; half an hour on: 02:00 becomes 02:30
        ("Australia/Lord_Howe", "2026-04-04T15:15:00", "2026-04-05T01", "2026-04-04T15:30:00"),
        ("Australia/Lord_Howe", "2026-10-03T15:29:59", "2026-10-04T01", "2026-10-03T15:30:00"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00", "2026-10-04T02", "2026-10-03T16:00:00"),
        # 00:01 on the 7th becomes 23:01 on the 6th: the first hour of the 7th goes on, for an hour and 59 minutes more
        ("America/St_Johns", "2010-11-07T02:30:30", "2010-11-07T00", "2010-11-07T04:30:00"),
        ("America/St_Johns", "2010-11-07T03:00:00", "2010-11-07T00", "2010-11-07T04:30:00"),
    ],
)
def test_the_hour_of_an_instant(zone: str, now: str, hour: str, resets_at: str) -> None:
    assert window_of("hour", utc(now), ZoneInfo(zone)) == Window(hour, at(resets_at))


@pytest.mark.parametrize(
    ("zone", "now", "month", "resets_at"),
    [
        ("UTC", "2026-12-31T23:59:59", "2026-12", "2027-01-01T00:00:00"),
        ("America/New_York", "2026-11-01T03:59:59", "2026-10", "2026-11-01T04:00:00"),
        ("America/New_York", "2026-11-01T04:00:00", "2026-11", "2026-12-01T05:00:00"),
        ("Europe/Berlin", "2028-02-29T12:00:00", "2028-02", "2028-02-29T23:00:00"),
        # midnight of the first comes twice in Havana, and the first one begins the month
        ("America/Havana", "2026-11-01T04:30:00", "2026-11", "2026-12-01T05:00:00"),
    ],
)
def test_the_month_of_an_instant(zone: str, now: str, month: str, resets_at: str) -> None:
    assert window_of("month", utc(now), ZoneInfo(zone)) == Window(month, at(resets_at))


def test_a_run_does_not_end_by_the_clock() -> None:
    assert window_of("run", utc("2026-11-20"), ZoneInfo("UTC")) == Window("run", 0)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        day_window(datetime(2026, 1, 1), ZoneInfo("UTC"))  # noqa: DTZ001 - the point of the test


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
]
LONGEST = {"hour": 2 * 3600, "day": 26 * 3600, "month": 31 * 86400 + 2 * 3600}


@given(st.sampled_from(sorted(LONGEST)), st.sampled_from(ZONES), st.integers(at("1990-01-01"), at("2037-01-01")))
def test_windows_follow_each_other_without_gap_or_return(per: str, zone: str, second: int) -> None:
    now = datetime.fromtimestamp(second, UTC)
    window = window_of(per, now, ZoneInfo(zone))
    assert now.timestamp() < window.resets_at <= now.timestamp() + LONGEST[per]
    last = datetime.fromtimestamp(window.resets_at, UTC) - timedelta(seconds=1)
    if last >= now:
        assert window_of(per, last, ZoneInfo(zone)) == window
    following = window_of(per, datetime.fromtimestamp(window.resets_at, UTC), ZoneInfo(zone))
    assert following.id > window.id


@given(
    st.sampled_from(ZONES),
    st.integers(at("1990-01-01"), at("2037-01-01")),
    st.integers(0, 3 * 86400),
    st.sampled_from(sorted(LONGEST)),
)
def test_a_later_instant_never_lies_in_an_earlier_window(zone: str, second: int, later: int, per: str) -> None:
    first, then = (datetime.fromtimestamp(moment, UTC) for moment in (second, second + later))
    was, is_ = window_of(per, first, ZoneInfo(zone)), window_of(per, then, ZoneInfo(zone))
    assert was.id <= is_.id
    assert (was.id == is_.id) == (then.timestamp() < was.resets_at)


@pytest.mark.parametrize("change", ["2026-03-29T01:00:00", "2026-10-25T01:00:00"])
@pytest.mark.parametrize("per", ["hour", "day", "month"])
def test_every_second_around_a_change_lies_in_one_window(per: str, change: str) -> None:
    ids = [window_of(per, datetime.fromtimestamp(at(change) + n, UTC), ZoneInfo("Europe/Berlin")).id
           for n in range(-7200, 7200, 60)]  # fmt: skip
    assert ids == sorted(ids)
