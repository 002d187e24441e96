"""For how long a decision is known to hold."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rules.call import Facts
from rules.decide import decide
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from rules.timing import Timing, holds_still, timing_of
from rules.trial import read, understood
from tests.rules.test_openings import ALLOW, CALL, WEEKENDS, facts_of
from tests.rules.test_tool_rules import call_to, policy, rpc

NOW = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC)
KATHMANDU = ZoneInfo("Asia/Kathmandu")


@pytest.mark.parametrize(
    ("rules", "timing"),
    [
        ((ALLOW,), Timing.ALWAYS),
        ((ALLOW, WEEKENDS), Timing.MINUTE),
        ((f'{ALLOW}, when: "now.hour < 18"',), Timing.MINUTE),
        ((ALLOW, "deny: '*', when: \"now > timestamp('2027-01-01T00:00:00Z')\""), Timing.MOMENT),
        ((ALLOW, WEEKENDS, "deny: '*', when: \"now.getSeconds() == 7\""), Timing.MOMENT),
        # A rule that says nothing of this call, whatever the time, is none that it waits for.
        ((ALLOW, "deny: {connection: x, path: /b}, when: \"now.hour < 6\""), Timing.ALWAYS),
        ((ALLOW, "deny: {connection: x, methods: [POST]}, when: \"now.hour < 6\""), Timing.ALWAYS),
        ((ALLOW, "deny: {effects: [delete]}, when: \"now.hour < 6\""), Timing.ALWAYS),
        ((ALLOW, "deny: {effects: [read, write]}, when: \"now.hour < 6\""), Timing.MINUTE),
    ],
)  # fmt: skip
def test_only_rules_that_may_match_the_call_and_ask_for_the_time_count(rules: tuple[str, ...], timing: Timing) -> None:
    facts = facts_of("Europe/Berlin", rules, NOW)
    decide(CALL, facts)
    assert timing_of(CALL, facts) is timing


@pytest.mark.parametrize(("until", "timing"), [("2026-11-25", Timing.MINUTE), ("2026-11-24", Timing.ALWAYS)])
def test_a_stage_that_ends_is_a_matter_of_time(until: str, timing: Timing) -> None:
    text = f"""\
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  x: {{host: x.example}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}}
    stage: observe
    until: {until}
"""
    policy = compile_policy(parse_policy({"acme.yaml": text.encode()})).tenants["acme"]
    assert timing_of(CALL, Facts(policy, policy.connections["x"], NOW)) is timing


def test_a_decision_holds_to_the_end_of_its_minute_by_the_policys_clocks() -> None:
    for zone in (UTC, KATHMANDU):
        for later, same in ((0, True), (29.999, True), (-30, True), (30, False), (-30.001, False), (3600, False)):
            then = NOW + timedelta(seconds=later)
            assert holds_still(Timing.MINUTE, NOW, then, zone) is same
            assert holds_still(Timing.ALWAYS, NOW, then, zone)
            assert holds_still(Timing.MOMENT, NOW, then, zone) is (later == 0)


TARGETS = (
    '"*"', "shop.*", "shop.order.create", "shop.order.drop", "mcp.*", "mcp.helper.add", "mcp.helper/initialize",
    "{connection: helper, effects: [read]}", "{effects: [read]}", "{effects: [write, delete]}", "{effects: [delete]}",
    "{connection: shop, path: /orders/**}", '{connection: "*", path: /**}', "{connection: helper, path: /mcp}",
)  # fmt: skip
WHENS = (
    "", "now.hour < 12", "now.weekday == 'wed'", "has(args.a) && now.time < '13:00'",
    "tool != '' || now.date == '2026-11-26'",
)  # fmt: skip
CALLS: tuple[tuple[str, bytes | None], ...] = (
    ("POST helper /mcp", json.dumps(rpc("initialize")).encode()),
    ("POST helper /mcp", json.dumps(rpc("tools/call", name="add", arguments={"a": 1})).encode()),
    ("POST helper /mcp", json.dumps(rpc("tools/list")).encode()),
    ("POST helper /mcp", None),
    ("GET helper /mcp", b""),
    ("POST shop /orders", b'{"total": 1}'),
    ("GET shop /orders/7", b""),
    ("POST shop /graphql", b'{"query": "mutation { dropOrder dropOther }"}'),
    ("DELETE shop /elsewhere", b""),
    ("POST stripe /v1/refunds", b"{"),
)
rules = st.lists(
    st.tuples(st.booleans(), st.sampled_from(TARGETS), st.sampled_from(WHENS)), min_size=1, max_size=5, unique=True
)


@given(rules, st.sampled_from(CALLS), st.integers(0, 7 * 24 * 60))
# A handshake, by a rule about what tools do; and a call of which nobody knows the tool, by one that names tools.
@example([(True, "{connection: helper, effects: [read]}", "now.hour < 12")], CALLS[0], 13 * 60)
@example([(True, "{connection: helper, path: /mcp}", ""), (False, "mcp.helper.add", "now.hour >= 12")], CALLS[3], 720)
def test_a_decision_that_is_said_to_hold_holds(
    written: list[tuple[bool, str, str]], asked: tuple[str, bytes | None], later: int
) -> None:
    """Whatever kind of call and of rules: nobody asks the time of a call of which it is said that nobody does."""
    lines = tuple(
        f"{{id: r{at}, {'allow' if allows else 'deny'}: {target}" + (f', when: "{when}"}}' if when else "}")
        for at, (allows, target, when) in enumerate(written)
        if not (allows and target.startswith(('"*"', "{effects")))
    )
    method, connection, path = asked[0].split(" ")
    active = policy(*lines).tenants["acme"]
    call = call_to(connection, method, path)
    facts = understood(call, Facts(active, active.connections[connection], NOW))
    if asked[1] is not None:
        facts = read(call, facts, (b"application/json",), asked[1])
    then = replace(facts, now=NOW + timedelta(minutes=later))
    if timing_of(call, facts) is Timing.ALWAYS:
        assert decide(call, facts) == decide(call, then)
    else:
        assert any(when for _, _, when in written)
