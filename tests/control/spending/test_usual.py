"""What is usual: medians of the past in which anything was used, by hour or day and by its place in the week."""

from datetime import datetime, timedelta

import pytest

from control.spending.usual import usual_of

NOW = datetime(2026, 11, 20, 14)  # noqa: DTZ001 - a wall clock's; a Friday


def hours(amounts: dict[int, int]) -> dict[str, int]:
    """By how many hours ago."""
    return {(NOW - timedelta(hours=ago)).strftime("%Y-%m-%dT%H"): used for ago, used in amounts.items()}


def days(amounts: dict[int, int]) -> dict[str, int]:
    return {(NOW - timedelta(days=ago)).strftime("%Y-%m-%d"): used for ago, used in amounts.items()}


HOUR, DAY = "2026-11-20T14", "2026-11-20"


@pytest.mark.parametrize(("per", "window", "past", "least"), [("hour", HOUR, hours, 24), ("day", DAY, days, 7)])
def test_nothing_is_known_before_there_is_enough_of_a_past(per, window, past, least):
    assert usual_of(per, window, past(dict.fromkeys(range(1, least), 10))) is None
    assert usual_of(per, window, past(dict.fromkeys(range(1, least + 1), 10))) == 10


def test_what_was_unusual_before_moves_nothing():
    """Half of them but one may be spikes."""
    assert usual_of("hour", HOUR, hours({ago: 10 if ago <= 25 else 10_000 for ago in range(1, 49)})) == 10


def test_a_batch_of_every_day_is_usual_at_its_hour_and_nowhere_else():
    past = hours({ago: 1000 if ago % 24 == 0 else 10 for ago in range(1, 24 * 10)})
    assert usual_of("hour", HOUR, past) == 1000
    assert usual_of("hour", "2026-11-20T15", past) == 10


def test_two_hours_alike_say_nothing_yet_and_a_quiet_hour_does_not_lower_it():
    assert usual_of("hour", HOUR, hours({**dict.fromkeys(range(1, 24), 10), 24: 900, 48: 900})) == 10
    past = hours({ago: 1 if ago % 24 == 0 else 10 for ago in range(1, 24 * 10)})
    assert usual_of("hour", HOUR, past) == 10


def test_of_days_it_is_the_weekday():
    fridays = {ago: 500 if ago % 7 == 0 else 10 for ago in range(1, 29)}
    assert usual_of("day", DAY, days(fridays)) == 500
    assert usual_of("day", "2026-11-21", days(fridays)) == 10
