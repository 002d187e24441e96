"""Rules with conditions: what is allowed, what is denied, and what cannot be told."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.bodies import HELD, INSPECTED
from rules.call import Call, Facts
from rules.content.content import Content
from rules.decide import decide
from rules.decision import Allowed, Denied
from rules.guards import GUARDS
from rules.guards.verdict import Guard
from rules.matching import judged_by_body
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy

HEAD = """\
exeat: 1
tenant: acme
timezone: America/New_York
connections:
  stripe: {host: api.stripe.com}
  github: {host: api.github.com}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    rules:
"""
TUESDAY = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
SUNDAY = datetime(2026, 11, 22, 15, 0, tzinfo=UTC)
PRINCIPAL = Principal("acme", "agent", "w", "r", "j", 0, 0, 0)
REFUND = Call("c_1", PRINCIPAL, "https", "api.stripe.com", 443, "POST", "/v1/refunds", "")
ALLOW = "allow: {connection: stripe, methods: [POST], path: /v1/refunds}"


def policy_of(*rules: str) -> PolicySet:
    lines = [f"      - {{id: r{number}, {rule}}}\n" for number, rule in enumerate(rules)]
    return compile_policy(parse_policy({"acme.yaml": (HEAD + ("".join(lines) or "      []\n")).encode()}))


def judge(policy: PolicySet, call: Call = REFUND, body: object = None, now: datetime = TUESDAY):
    tenant = policy.tenants["acme"]
    connection = tenant.connection_for(call.scheme, call.host, call.port)
    content = None if body is None else Content(body)
    return decide(call, Facts(tenant, connection, now, content))


def codes(decision) -> list[str]:
    return ["allowed"] if isinstance(decision, Allowed) else [reason.code.value for reason in decision.reasons]


def test_a_small_refund_is_allowed_and_a_big_one_is_not() -> None:
    policy = policy_of(f'{ALLOW}, when: "int(body.amount) <= 10000"')
    assert codes(judge(policy, body={"amount": "10000"})) == ["allowed"]
    assert codes(judge(policy, body={"amount": "10001"})) == ["not_allowed"]
    for body in ({}, {"amount": "many"}, {"Amount": "1"}, None):
        decision = judge(policy, body=body)
        assert codes(decision) == ["condition_failed"]
        assert isinstance(decision, Denied)
        assert decision.reasons[0].rule == "r0"


def test_a_deny_rule_that_cannot_be_told_denies() -> None:
    policy = policy_of(ALLOW, "deny: {connection: stripe}, when: \"body.reason == 'fraudulent'\"")
    assert codes(judge(policy, body={"reason": "duplicate"})) == ["allowed"]
    assert codes(judge(policy, body={"reason": "fraudulent"})) == ["rule_denied"]
    assert codes(judge(policy, body={})) == ["condition_failed"]
    assert codes(judge(policy)) == ["condition_failed"]
    # What no rule allows is said so, whatever a body would have said.
    assert codes(judge(policy, replace(REFUND, path="/v1/payouts"))) == ["not_allowed"]


def test_nothing_at_weekends_in_the_policys_zone() -> None:
    policy = policy_of(ALLOW, "deny: \"*\", when: \"now.weekday in ['sat', 'sun']\"")
    assert codes(judge(policy)) == ["allowed"]
    assert codes(judge(policy, now=SUNDAY)) == ["rule_denied"]
    # Monday three o'clock UTC is Sunday evening in New York.
    assert codes(judge(policy, now=datetime(2026, 11, 23, 3, 0, tzinfo=UTC))) == ["rule_denied"]
    assert codes(judge(policy, now=datetime(2026, 11, 23, 6, 0, tzinfo=UTC))) == ["allowed"]


def test_named_segments_and_the_query() -> None:
    rule = 'allow: {connection: github, path: "/repos/{owner}/{repo}/issues"}'
    policy = policy_of(
        f"{rule}, when: \"path.owner == 'acme' && path.repo in ['tools', 'caf\u00e9'] && query.state == 'open'\""
    )
    call = replace(REFUND, host="api.github.com", method="GET", path="/repos/acme/tools/issues", query="state=open")
    assert codes(judge(policy, call)) == ["allowed"]
    assert codes(judge(policy, replace(call, path="/repos/acme/caf%C3%A9/issues"))) == ["allowed"]
    assert codes(judge(policy, replace(call, path="/repos/evil/tools/issues"))) == ["not_allowed"]
    assert codes(judge(policy, replace(call, query="state=open&state=all"))) == ["condition_failed"]
    assert codes(judge(policy, replace(call, query=""))) == ["condition_failed"]


def test_one_of_many_conditions_on_one_path_is_enough() -> None:
    """However many rules match the path, each is asked."""
    policy = policy_of(*(f'{ALLOW}, when: "body.customer == {number}"' for number in range(40)))
    for number in (0, 7, 8, 39):
        decision = judge(policy, body={"customer": number})
        assert isinstance(decision, Allowed)
        assert decision.rules == (f"r{number}",)
    assert codes(judge(policy, body={"customer": 40})) == ["not_allowed"]
    denied = policy_of(ALLOW, *(f'deny: {{connection: stripe}}, when: "body.customer == {n}"' for n in range(40)))
    assert codes(judge(denied, body={"customer": 39})) == ["rule_denied"]
    assert codes(judge(denied, body={"customer": 40})) == ["allowed"]


def test_a_body_that_a_condition_reads_is_read_whichever_rule_decides() -> None:
    policy = policy_of(ALLOW, 'deny: {connection: stripe}, when: "body.a == 1"')
    decision = judge(policy, body={"a": 2})
    assert isinstance(decision, Allowed)
    assert decision.body == INSPECTED
    plain = judge(policy_of(f'{ALLOW}, when: "now.hour >= 0"'))
    assert isinstance(plain, Allowed)
    assert plain.body == HELD


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ((ALLOW,), False),
        ((f'{ALLOW}, when: "now.hour > 3"',), False),
        ((f'{ALLOW}, when: "body.a == 1"',), True),
        ((ALLOW, 'deny: "*", when: "body.a == 1"'), True),
        # Nobody is asked for a body that changes nothing.
        (('deny: "*", when: "body.a == 1"',), False),
        ((f'{ALLOW}, when: "body.a == 1"', 'deny: "*"'), False),
        (('allow: {connection: stripe, path: /v1/other}, when: "body.a == 1"',), False),
        # A rule for everything does not hide one that reads.
        (("allow: {connection: stripe, path: /**}", f'{ALLOW}, when: "body.a == 1"'), True),
    ],
)
def test_a_body_is_wanted_only_where_it_decides(rules: tuple[str, ...], wanted: bool) -> None:
    tenant = policy_of(*rules).tenants["acme"]
    facts = Facts(tenant, tenant.connection_for("https", "api.stripe.com", 443), TUESDAY)
    assert judged_by_body(REFUND, facts) is wanted


targets = st.sampled_from(
    [ALLOW, "allow: {connection: stripe, path: /**}", "deny: {connection: stripe, path: /v1/refunds}", 'deny: "*"']
)
conditions = st.sampled_from(
    [
        "",
        "body.a == 1",
        "body.a > 1",
        "body.b == 'x' || body.a == 1",
        "now.weekday == 'tue'",
        "has(body.a)",
        "body.a.b < 3",
    ]
)
written = st.lists(
    st.builds(lambda target, when: target + (f', when: "{when}"' if when else ""), targets, conditions), max_size=5
)
bodies = st.sampled_from([None, {}, {"a": 1}, {"a": 2, "b": "x"}, {"a": "1"}, [], "a", {"a": {"b": 1}}])


@given(written, bodies, st.permutations(GUARDS))
def test_no_order_of_guards_or_rules_changes_whether_it_is_allowed(
    rules: list[str], body: object, order: list[Guard]
) -> None:
    policy = policy_of(*rules)
    tenant = policy.tenants["acme"]
    facts = Facts(
        tenant, tenant.connection_for("https", "api.stripe.com", 443), TUESDAY, None if body is None else Content(body)
    )
    kind = type(decide(REFUND, facts))
    assert type(decide(REFUND, facts, tuple(order))) is kind
    assert type(judge(policy_of(*reversed(rules)), body=body)) is kind


@given(written, targets.filter(lambda target: target.startswith("deny")), conditions, bodies)
def test_adding_a_deny_never_allows(rules: list[str], target: str, when: str, body: object) -> None:
    if isinstance(judge(policy_of(*rules), body=body), Denied):
        more = target + (f', when: "{when}"' if when else "")
        assert isinstance(judge(policy_of(*rules, more), body=body), Denied)


@given(written, bodies)
def test_a_condition_never_allows_what_its_rule_would_not(rules: list[str], body: object) -> None:
    """Without conditions an allow rule allows more."""
    bare = [rule.partition(", when:")[0] if rule.startswith("allow") else rule for rule in rules]
    if isinstance(judge(policy_of(*rules), body=body), Allowed):
        assert isinstance(judge(policy_of(*bare), body=body), Allowed)


@given(written)
def test_what_is_allowed_unread_is_denied_by_no_rule_that_reads(rules: list[str]) -> None:
    if isinstance(judge(policy_of(*rules)), Allowed):
        assert not any(rule.startswith("deny") and "body" in rule for rule in rules)


@given(written, bodies)
def test_a_restored_policy_decides_the_same(rules: list[str], body: object) -> None:
    policy = policy_of(*rules)
    restored = PolicySet.from_bundle(policy.bundle)
    assert judge(restored, body=body) == judge(policy, body=body)
