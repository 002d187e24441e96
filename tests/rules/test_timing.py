"""For how long a decision is known to hold."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rules.call import Facts
from rules.decide import decide
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy
from rules.timing import Timing, holds_still, timing_of
from tests.rules.test_openings import ALLOW, CALL, WEEKENDS, facts_of

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
