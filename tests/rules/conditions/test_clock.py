"""When a condition may say something else by the clock alone."""

from datetime import UTC, datetime

import pytest

from rules.conditions.condition import compile_condition
from rules.conditions.variables import VARIABLES

HOURS = frozenset(range(0, 24 * 60, 60))
CHRISTMAS = datetime(2026, 12, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("now.weekday in ['sat', 'sun']", {0}),
        ("now.date.startsWith('2026-12')", {0}),
        ("now.hour < 8 || now.hour >= 18", HOURS),
        ("now.hour == args.hour", HOURS),
        ("now.time < '08:00' || now.time >= '18:30'", {0, 480, 481, 1110, 1111}),
        ("('18:00' <= now.time)", {0, 1080, 1081}),
        ("now.time\n>=\t\"08:15\" && tool == 'x'", {0, 495, 496}),
        ("now.weekday == 'fri' ? now.time < '12:00' : now.time < '18:00'", {0, 720, 721, 1080, 1081}),
        ("[now.time < '07:00', true].all(x, x)", {0, 420, 421}),
        # Texts are compared, not times: every time of day is less than this.
        ("now.time < '8:00'", {0}),
        ("now.time <= '08'", {0, 480, 481}),
        ("now.time > '23:59'", {0, 1439}),
        ("now.time != ''", {0, 1}),
    ],
)
def test_the_edges_of_what_is_understood_are_known(text: str, minutes: set[int]) -> None:
    clock = compile_condition(text).clock
    assert clock is not None
    assert clock.exact
    assert not clock.within_minutes
    assert clock.minutes == minutes


@pytest.mark.parametrize(
    "text",
    [
        "now.time < '08:00' + workflow",
        "workflow + now.time < '08:00'",
        "now.time < '08:00' // )\n + workflow",
        "// (\nnow.time < '08:00'",
        "now.time < workflow",
        "now.time.endsWith('7')",
        "now.time in ['12:34']",
        "now.time < '08:00' || now.time.matches('1.*')",
        "now.time < '08:0\\x30'",
        "(now.time) < '08:00'",
        "now.getHours('Europe/Berlin') < 9",
        "now > timestamp('tomorrow')",
        "now > timestamp('2026-12-24T00:00:00Z') + duration('1h')",
        "now - timestamp('2026-12-24T00:00:00Z') > duration('1h')",
    ],
)
def test_nothing_is_claimed_of_what_is_not_understood(text: str) -> None:
    clock = compile_condition(text).clock
    assert clock is not None
    assert not clock.exact


@pytest.mark.parametrize(
    "text", ["now < timestamp('2026-12-24T00:00:00Z')", "timestamp('2026-12-24T01:00:00+01:00') > now && tool != ''"]
)
def test_a_moment_is_compared_to_the_moment(text: str) -> None:
    clock = compile_condition(text).clock
    assert clock is not None
    assert (clock.moments, clock.exact, clock.within_minutes) == ({CHRISTMAS}, True, True)


@pytest.mark.parametrize("text", ["tool == 'now.time'", "args.now == 'x'", "[1].exists(now, now > 0)"])
def test_what_is_only_called_so_is_not_the_time(text: str) -> None:
    assert compile_condition(text).clock is None


def test_every_word_for_the_time_is_one_whose_edges_are_known() -> None:
    """A new variable of the time belongs into rules/conditions/clock.py: this test asks for it by name."""
    of_time = {variable.name for variable in VARIABLES if variable.name.startswith("now")}
    assert of_time == {"now", "now.weekday", "now.date", "now.time", "now.hour"}
