"""When a denied call would be allowed: what is named is true, nothing earlier is, and what is not known is not said."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.decide import decide
from rules.decision import Allowed, Denied
from rules.openings import HORIZON, MAX_DECISIONS, Searched, may_open, search
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from rules.trial import understood

HEAD = """\
exeat: 1
tenant: acme
timezone: {zone}
connections:
  x: {{host: x.example}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}}
    rules:
"""
ALLOW = "allow: {connection: x, path: /**}"
WEEKENDS = "deny: '*', when: \"now.weekday in ['sat', 'sun']\""
CALL = Call("c_1", Principal("acme", "agent", "w", "r", "j", 0, 0, 0), "https", "x.example", 443, "GET", "/a", "")
MINUTE = timedelta(minutes=1)


def facts_of(zone: str, rules: tuple[str, ...], now: datetime) -> Facts:
    text = HEAD.format(zone=zone) + "".join(f"      - {{id: r{at}, {rule}}}\n" for at, rule in enumerate(rules))
    policy = compile_policy(parse_policy({"acme.yaml": text.encode()})).tenants["acme"]
    return understood(CALL, Facts(policy, policy.connections["x"], now))


def looked_for(facts: Facts, at_most: int = MAX_DECISIONS) -> Searched:
    denied = decide(CALL, facts)
    assert isinstance(denied, Denied)
    return search(CALL, facts, denied, at_most)


def local(zone: str, text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


BERLIN, YORK, HAVANA, BEIRUT, HOWE = (
    "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Beirut", "Australia/Lord_Howe",
)  # fmt: skip


def only(condition: str) -> tuple[str, ...]:
    return (f'{ALLOW}, when: "{condition}"',)


@pytest.mark.parametrize(
    ("zone", "rules", "now", "opens"),
    [
        # A weekend, from its middle and from its first moment.
        (YORK, (ALLOW, WEEKENDS), "2026-11-28T12:00", "2026-11-30T00:00-05:00"),
        (YORK, (ALLOW, WEEKENDS), "2026-11-28T00:00", "2026-11-30T00:00-05:00"),
        # A weekend in which the clocks go back has an hour more, one in which they go forward an hour less.
        (YORK, (ALLOW, WEEKENDS), "2026-10-31T00:00", "2026-11-02T00:00-05:00"),
        (YORK, (ALLOW, WEEKENDS), "2026-03-07T00:00", "2026-03-09T00:00-04:00"),
        # Office hours, and a window over midnight.
        (BERLIN, only("now.time >= '08:30' && now.time < '17:15'"), "2026-11-25T17:15", "2026-11-26T08:30+01:00"),
        (BERLIN, only("now.time >= '22:30' || now.time < '05:45'"), "2026-11-25T05:45", "2026-11-25T22:30+01:00"),
        (BERLIN, only("now.hour >= 22 || now.hour < 6"), "2026-11-25T06:00", "2026-11-25T22:00+01:00"),
        # One minute a week.
        (BERLIN, only("now.weekday == 'tue' && now.time == '12:34'"), "2026-11-24T12:35", "2026-12-01T12:34+01:00"),
        # An hour that is left out opens when its end is there, and one that comes twice opens the first time...
        (YORK, only("now.time >= '02:30' && now.time < '05:00'"), "2026-03-07T12:00", "2026-03-08T03:00-04:00"),
        (YORK, only("now.time >= '01:30' && now.hour < 5"), "2026-10-31T12:00", "2026-11-01T01:30-04:00"),
        # ... and the second time again.
        (YORK, only("now.hour == 1"), "2026-11-01T00:30", "2026-11-01T01:00-04:00"),
        (YORK, only("now.time >= '01:10' && now.time < '01:20'"), "2026-11-01T01:40", "2026-11-01T01:10-05:00"),
        # What would be in the hour that is left out is not there at all this week.
        (YORK, only("now.time == '02:10' && now.weekday == 'sun'"), "2026-03-07T12:00", "2026-03-15T02:10-04:00"),
        # A day that begins at one o'clock, one whose midnight comes twice, and clocks that jump by half an hour.
        (BEIRUT, only("now.weekday == 'sun'"), "2026-03-28T12:00", "2026-03-29T01:00+03:00"),
        (HAVANA, only("now.time >= '00:15' && now.time < '00:20'"), "2026-11-01T00:30", "2026-11-01T00:15-05:00"),
        (HOWE, only("now.time >= '02:10' && now.time < '03:00'"), "2026-10-03T12:00", "2026-10-04T02:30+11:00"),
        # Two rules, of which each closes at other times.
        (BERLIN, (*only("now.hour >= 8 && now.hour < 18"), WEEKENDS), "2026-11-27T18:00", "2026-11-30T08:00+01:00"),
        # A moment, at which nothing is open yet where it has to have passed.
        (BERLIN, only("now >= timestamp('2026-11-26T00:00:00Z')"), "2026-11-25T12:00", "2026-11-26T01:00+01:00"),
        (BERLIN, only("now > timestamp('2026-11-26T00:00:00Z')"), "2026-11-25T12:00", "2026-11-26T01:01+01:00"),
        (BERLIN, only("now > timestamp('2026-11-26T00:00:30Z')"), "2026-11-25T12:00", "2026-11-26T01:01+01:00"),
    ],
)  # fmt: skip
def test_the_first_minute_that_is_open(zone: str, rules: tuple[str, ...], now: str, opens: str) -> None:
    found = looked_for(facts_of(zone, rules, local(zone, now)))
    assert found.opening is not None
    assert found.opening.at.isoformat(timespec="minutes") == opens
    assert found.opening.seconds == (datetime.fromisoformat(opens) - local(zone, now)).total_seconds()


def test_it_is_said_in_the_policys_zone() -> None:
    found = looked_for(facts_of(YORK, (ALLOW, WEEKENDS), local(YORK, "2026-11-28T12:00")))
    assert found.opening is not None
    assert found.opening.sentence == "Open again from Mon 2026-11-30 00:00 America/New_York."
    later = found.opening.seen_from(found.opening.at - timedelta(seconds=1.5))
    assert (later.at, later.seconds) == (found.opening.at, 2)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param((WEEKENDS,), id="no rule allows it"),
        pytest.param((ALLOW, WEEKENDS, "deny: {connection: x, path: /a}"), id="another rule denies it at all times"),
        pytest.param((ALLOW, "deny: '*', when: \"now.date != '2026-12-24'\""), id="too far away"),
        pytest.param((ALLOW, "deny: '*', when: \"now.date >= '2026-01-01'\""), id="never"),
        pytest.param((ALLOW, "deny: '*', when: \"now.time.matches('.*')\""), id="edges that nobody knows"),
        pytest.param((ALLOW, WEEKENDS, "deny: '*', when: \"now.getSeconds() >= 0\""), id="within minutes"),
    ],
)
def test_nothing_is_said_where_nothing_is_known(rules: tuple[str, ...]) -> None:
    found = looked_for(facts_of(BERLIN, rules, local(BERLIN, "2026-11-28T12:00")))
    assert found.opening is None
    assert found.whole


@pytest.mark.parametrize(
    ("call", "day", "others"),
    [
        (replace(CALL, path="/b"), "wed", ()),
        (replace(CALL, host="y.example"), "wed", ()),
        (CALL, "wed", ("deny: {connection: x, path: /a}",)),
        (CALL, "sat", ("deny: {connection: x, path: /a}",)),
    ],
)
def test_what_time_does_not_change_is_not_looked_into(call: Call, day: str, others: tuple[str, ...]) -> None:
    """Calls that no rule allows are most of what is denied: they cost no decision more."""
    rules = ("allow: {connection: x, path: /a}", WEEKENDS, *others)
    facts = facts_of(BERLIN, rules, local(BERLIN, {"wed": "2026-11-25T12:00", "sat": "2026-11-28T12:00"}[day]))
    facts = replace(facts, connection=facts.policy and facts.policy.connection_for(call.scheme, call.host, call.port))
    denied = decide(call, facts)
    assert isinstance(denied, Denied)
    assert not may_open(call, facts, denied)


def test_it_costs_a_bounded_number_of_decisions() -> None:
    now = local(BERLIN, "2026-11-25T12:00")
    assert looked_for(facts_of(BERLIN, only("now.time == '11:59'"), now)).decisions <= 5
    hours = looked_for(facts_of(BERLIN, only("now.hour == 25 && now.weekday != ''"), now))
    assert (hours.opening, hours.decisions, hours.whole) == (None, 7 * 24, True)
    one = looked_for(facts_of(BERLIN, (ALLOW, "deny: '*', when: \"now.weekday != 'tue'\""), now), at_most=3)
    assert (one.opening, one.decisions, one.whole) == (None, 3, False)
    many = " || ".join(f"now.time == '{hour:02}:{minute:02}'" for hour in range(12) for minute in (7, 21, 42, 53))
    found = looked_for(facts_of(BERLIN, only(f"({many}) && now.date > '2026-12-01'"), now))
    assert (found.opening, found.decisions) == (None, MAX_DECISIONS)


TIMES = ("00:00", "00:30", "01:15", "02:00", "02:45", "03:00", "08:30", "12:34", "17:00", "23:59")
atoms = st.one_of(
    st.builds("now.weekday {} '{}'".format, st.sampled_from(["==", "!="]), st.sampled_from(["sat", "sun", "mon"])),
    st.builds("now.hour {} {}".format, st.sampled_from(["<", ">=", "=="]), st.sampled_from([0, 1, 2, 3, 9, 18])),
    st.builds("now.time {} '{}'".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.sampled_from(TIMES)),
    st.builds("'{}' {} now.time".format, st.sampled_from(TIMES), st.sampled_from(["<", ">="])),
    st.builds("now.date {} '2026-{}'".format, st.sampled_from(["<", ">="]), st.sampled_from(["03-08", "11-01"])),
)  # fmt: skip
conditions = st.recursive(
    atoms, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["&&", "||"]), inner), max_leaves=4
)
# Around the changes of the clocks, and in a plain week.
STARTS = {
    YORK: ("2026-03-07T05:00", "2026-10-31T05:00", "2026-06-03T05:00"),
    BERLIN: ("2026-03-28T05:00", "2026-10-24T05:00", "2026-06-03T05:00"),
    HAVANA: ("2026-03-07T05:00", "2026-10-31T05:00"),
    BEIRUT: ("2026-03-28T05:00", "2026-10-24T05:00"),
    HOWE: ("2026-04-04T05:00", "2026-10-03T05:00"),
}
starts = st.sampled_from([(zone, start) for zone, of_zone in STARTS.items() for start in of_zone])


@settings(max_examples=40)
@given(
    starts,
    st.integers(0, 48 * 60 - 1),
    st.lists(st.tuples(st.booleans(), conditions), min_size=1, max_size=3),
    st.lists(st.integers(0, 8 * 24 * 60), max_size=150),
)
def test_whatever_is_named_is_open_and_no_earlier_minute_is(
    start: tuple[str, str], later: int, written: list[tuple[bool, str]], tried: list[int]
) -> None:
    zone, text = start
    rules = tuple(f'{ALLOW if allows else "deny: {connection: x}"}, when: "{when}"' for allows, when in written)
    now = local(zone, text) + later * MINUTE + timedelta(seconds=17)
    facts = facts_of(zone, rules, now)
    denied = decide(CALL, facts)
    if not isinstance(denied, Denied):
        return
    found = search(CALL, facts, denied)
    first = now.replace(second=0) + MINUTE
    end = now + HORIZON if found.opening is None else found.opening.at
    if found.opening is not None:
        at = found.opening.at
        assert (at.second, at.microsecond) == (0, 0)
        assert isinstance(decide(CALL, replace(facts, now=at.astimezone(UTC))), Allowed)
        tried = [*tried, *(int((end - first) / MINUTE) - before for before in (1, 2, 30, 59, 60, 61, 1440))]
    elif not found.whole:
        return
    for minutes in tried:
        moment = first + minutes * MINUTE
        if first <= moment < end:
            assert isinstance(decide(CALL, replace(facts, now=moment)), Denied), moment
