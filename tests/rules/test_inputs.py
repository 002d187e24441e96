"""Decision inputs: what was read back decides as what was decided, and nothing else is taken for inputs."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.codes import Code
from rules.content.content import Content, Value, read_content
from rules.content.refused import ContentRefused
from rules.decide import decide
from rules.decision import Allowed, Denied
from rules.inputs import Body, DecisionInputs, InputsInvalid, decide_again, reads_unread_body
from rules.lookups import answered, wanted
from rules.matching import judged_by_body
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.trial import understood
from tests.rules.test_decide_properties import HEAD, NOW, calls, facts_of

RULES = (
    'allow: {connection: x, path: /a/**}, when: "int(body.amount) <= 100"',
    'allow: {connection: x, path: "/{p}"}, when: "path.p != \'b\'"',
    'allow: {connection: "*", path: /**}, when: "query.limit == \'10\'"',
    'allow: {connection: "*", path: /**, methods: [GET]}, when: "now.hour < 12"',
    "allow: {connection: y, path: /**}, when: \"body.map(k, k).size() > 1 && body.map(k, k)[0] == 'amount'\"",
    "allow: {connection: x, path: /**, body: inspect}",
    "allow: {connection: x, path: /**}, when: workflow == 'w' && account == 'agent'",
    "deny: {connection: x}, when: \"has(body.reason) && body.reason == 'fraud'\"",
    'deny: {connection: x}, when: "body.amount > 0.1"',
    'deny: {connection: "*", methods: [DELETE]}',
    "deny: {connection: y, path: /a/b}, when: run == 'r'",
)
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["fraud", "100", "é€😀", '"\\\x1f\x7f\u2028', ""]),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["amount", "reason", "z", "a", "é"]), inner, max_size=4),
    ),
    max_leaves=12,
)
bodies = st.one_of(
    st.tuples(st.just((b"application/json",)), values.map(lambda value: json.dumps(value).encode())),
    st.just(((b"application/json",), b'{"amount": 0.1, "reason": 1e22, "z": -0.0}')),
    st.just(((b"application/x-www-form-urlencoded",), b"amount=7&a[]=1&a[]=2&reason=fraud")),
    st.just(((b"application/json",), b"{")),
    st.just(((b"text/plain",), b"hello")),
    st.just(((), b"")),
)
asked = st.builds(lambda call, query: replace(call, query=query), calls, st.sampled_from(["", "limit=10", "a=%zz"]))


@cache
def policy(chosen: tuple[int, ...]) -> PolicySet:
    text = HEAD + "".join(f"      - {{id: r{number}, {RULES[number]}}}\n" for number in chosen)
    return compile_policy(parse_policy({"acme.yaml": text.encode()}))


chosen = st.lists(st.sampled_from(range(len(RULES))), min_size=1, max_size=5, unique=True).map(tuple)


def inputs_of(call: Call, policies: PolicySet, types: tuple[bytes, ...], body: bytes) -> DecisionInputs:
    """As the gate makes them."""
    facts = facts_of(policies, call)
    seen = Body.UNREAD if body else Body.ABSENT
    if judged_by_body(call, facts):
        try:
            facts, seen = replace(facts, content=read_content(types, body)), Body.READ
        except ContentRefused:
            seen = Body.REFUSED
    return DecisionInputs.of(call, facts, types, seen)


@given(asked, chosen, bodies)
def test_a_decision_is_the_same_on_what_was_read_back(
    call: Call, rules: tuple[int, ...], sent: tuple[tuple[bytes, ...], bytes]
) -> None:
    policies = policy(rules)
    inputs = inputs_of(call, policies, *sent)
    facts = replace(facts_of(policies, call), content=inputs.content)
    back = DecisionInputs.from_bytes(inputs.to_bytes())
    assert back == inputs
    assert repr(back.content) == repr(inputs.content)  # 1 is not 1.0, and a map's order is its own
    assert decide(*back.call_and_facts(policies.tenants["acme"])) == decide(call, facts)
    assert decide(*back.call_and_facts(None)) == decide(call, replace(facts, policy=None, connection=None))


@given(asked, chosen, chosen, bodies)
@example(  # a candidate that reads what was not read
    Call("c_1", Principal("acme", "agent", "w", "r", "j", 0, 0, 0), "https", "x.example", 443, "POST", "/a/b", ""),
    (6,), (0, 6), ((b"application/json",), b'{"amount": 1}'),
)  # fmt: skip
def test_under_a_candidate_either_nothing_can_be_told_or_what_the_gate_would_decide(
    call: Call, now: tuple[int, ...], then: tuple[int, ...], sent: tuple[tuple[bytes, ...], bytes]
) -> None:
    kept = inputs_of(call, policy(now), *sent)
    candidate = policy(then)
    truly = decide_again(inputs_of(call, candidate, *sent), candidate.tenants["acme"])
    told = decide_again(DecisionInputs.from_bytes(kept.to_bytes()), candidate.tenants["acme"])
    assert truly is not None
    if told is None:
        assert kept.body is Body.UNREAD
    elif isinstance(told, Denied) and isinstance(truly, Denied) and Code.CONTENT_REFUSED in _codes(truly):
        assert _codes(told) & {Code.CONTENT_REFUSED, Code.RULE_DENIED}
    else:
        assert told == truly


def _codes(decision: Denied) -> set[Code]:
    return {reason.code for reason in decision.reasons}


WHO = Principal("acme", "agent", "w", "r", "jti-1", 3, 0, 9)
CALL = Call("c_1", WHO, "https", "x.example", 443, "POST", "/a/b", "")


def test_a_rule_that_reads_a_body_that_was_not_read_cannot_be_told() -> None:
    kept = inputs_of(CALL, policy((6,)), (b"application/json",), b'{"amount": 1}')
    assert kept.body is Body.UNREAD
    assert decide_again(kept, policy((0,)).tenants["acme"]) is None
    assert isinstance(decide_again(kept, policy((6,)).tenants["acme"]), Allowed)


def test_bytes_are_as_documented_and_have_no_credential() -> None:
    facts = replace(facts_of(policy((6,)), CALL), now=datetime(2026, 11, 25, 9, 5, 0, 12, UTC))
    content = Content({"z": 1, "a": 1.0})
    data = DecisionInputs.of(CALL, replace(facts, content=content), (b"application/json",), Body.READ).to_bytes()
    assert data == (
        b'{"inputs":2,"tenant":"acme","account":"agent","workflow":"w","run":"r","scheme":"https","host":"x.example",'
        b'"port":443,"method":"POST","path":"/a/b","query":"","now":"2026-11-25T09:05:00.000012+00:00",'
        b'"content_types":["application/json"],"body":{"state":"read","value":{"z":1,"a":1.0}},"changed":[],'
        b'"lookup":{"asked":false,"found":null}}'
    )
    assert b"jti-1" not in data


GOOD = inputs_of(CALL, policy((0,)), (b"application/json",), b'{"amount": 1}').to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"acme\nagent\nw\nr\nhttps\nx.example\n443\nPOST\n/a/b\n",
        b"[]",
        GOOD.replace(b'"inputs":2', b'"inputs":3'),
        GOOD.replace(b'"inputs":2', b'"inputs":2.0'),
        GOOD.replace(b'"inputs":2,', b""),
        GOOD.replace(b'"port":443', b'"port":true'),
        GOOD.replace(b'"port":443', b'"port":443.0'),
        GOOD.replace(b'"run":"r"', b'"run":null'),
        GOOD.replace(b'"read"', b'"unread"'),
        GOOD.replace(b'"read"', b'"perhaps"'),
        GOOD.replace(b"+00:00", b"+01:00"),
        GOOD.replace(b"+00:00", b""),
        GOOD.replace(b'"run":"r"', b'"run":"r","run":"r"'),
        GOOD.replace(b'"run":"r"', b'"run":"r","more":1'),
        GOOD.replace(b'"amount":1', b'"amount":1e999'),
        GOOD.replace(b'"asked":false', b'"asked":0'),
        GOOD.replace(b',"found":null', b""),
        GOOD.replace(b'"run":"r"', b'"run":"\\u0072"'),
        GOOD + b" ",
        GOOD[:-1],
    ],
)
def test_what_is_not_exactly_inputs_is_refused(data: bytes) -> None:
    assert data != GOOD
    assert DecisionInputs.from_bytes(GOOD).now == NOW
    with pytest.raises(InputsInvalid):
        DecisionInputs.from_bytes(data)


SHOP = """\
exeat: 1
tenant: acme
connections: {stripe: {host: api.stripe.com}}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    rules:
      - {id: small, allow: stripe.refund.create, when: "amount <= usd(100)"}
"""


@pytest.mark.parametrize(("cents", "allowed"), [(10_000, True), (10_001, False), (None, False)])
def test_what_the_service_said_decides_again_and_without_it_nothing_is_told(cents: int | None, allowed: bool) -> None:
    tenant = compile_policy(parse_policy({"acme.yaml": SHOP.encode()})).tenants["acme"]
    call = Call("c_1", WHO, "https", "api.stripe.com", 443, "POST", "/v1/refunds", "")
    types, sent = (b"application/x-www-form-urlencoded",), b"charge=ch_1"
    bare = Facts(tenant, tenant.connections["stripe"], NOW)
    facts = understood(call, replace(bare, content=read_content(types, sent)))
    assert wanted(call, facts) is not None
    found: Value = None if cents is None else {"amount": cents, "amount_refunded": 0, "currency": "usd"}
    asked_for = answered(facts, found)
    kept = DecisionInputs.from_bytes(DecisionInputs.of(call, asked_for, types, Body.READ).to_bytes())
    assert decide_again(kept, tenant) == decide(call, asked_for)
    assert isinstance(decide_again(kept, tenant), Allowed) is allowed
    unasked = DecisionInputs.from_bytes(DecisionInputs.of(call, facts, types, Body.READ).to_bytes())
    assert decide_again(unasked, tenant) is None
    assert not reads_unread_body(unasked, tenant)
    unread = DecisionInputs.of(call, bare, types, Body.UNREAD)
    assert decide_again(unread, tenant) is None
    assert reads_unread_body(unread, tenant)
