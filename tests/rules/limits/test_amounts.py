"""Whatever an agent writes: an amount is counted as the service reads it, or the call is denied."""

import json
from datetime import UTC, datetime
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.claims import SpendClaim
from rules.codes import Code
from rules.decision import Allowed
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.trial import judge

METER = "stripe.refund.create.amount"
TEXT = f"""\
exeat: 1
tenant: acme
limits: {{spend: [{{meter: {METER}, max: 1000000 USD, per: month}}, {{meter: {METER}, max: 9000000 JPY, per: month}}]}}
connections: {{stripe: {{host: api.stripe.com}}, slack: {{host: slack.com}}}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}}
    limits: {{spend: [{{meter: recipients, max: 100, per: day}}, {{meter: messages, max: 5, per: run}}]}}
    rules:
      - {{id: refund, allow: stripe.refund.create}}
      - {{id: say, allow: [slack.chat.postMessage, slack.conversations.open]}}
"""
POLICY: TenantPolicy = compile_policy(parse_policy({"acme.yaml": TEXT.encode()})).tenants["acme"]
WHO = Principal("acme", "agent", "w", "r_1", "jti", 0, 0, 2**40)
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WORDS = st.one_of(
    st.sampled_from(["usd", "USD", "jpy", "eur", "xxx", "", "1", "0", "-1", "+1", "1e3", "1.5", " 1", "9" * 30]),
    st.integers(-10, 10**12).map(str),
    st.text(max_size=8),
)


def spends(host: str, name: str, path: str, kind: bytes, body: bytes) -> dict[str, SpendClaim] | Code:
    call = Call("c_1", WHO, "https", host, 443, "POST", path, "")
    decision = judge(call, Facts(POLICY, POLICY.connections[name], NOW), (kind,), body).decision
    if isinstance(decision, Allowed):
        return {claim.meter: claim for claim in decision.claims if isinstance(claim, SpendClaim)}
    return decision.reasons[0].code


@given(st.dictionaries(st.sampled_from(["amount", "currency", "charge", "payment_intent", "reason"]), WORDS))
@settings(max_examples=150)
def test_an_amount_is_what_the_form_says_or_the_call_is_denied(form: dict[str, str]) -> None:
    kind = b"application/x-www-form-urlencoded"
    found = spends("api.stripe.com", "stripe", "/v1/refunds", kind, urlencode(form).encode())
    if isinstance(found, Code):
        assert found in {Code.AMOUNT_UNKNOWN, Code.CONDITION_FAILED, Code.CONTENT_REFUSED}
        return
    # With a charge the currency is the charge's, which nobody has looked up here.
    assert form.keys() & {"charge", "payment_intent"} == set()
    amount, currency = int(form["amount"]), form["currency"].upper()
    assert amount >= 0
    if amount == 0:
        assert found == {}
        return
    (claim,) = found.values()
    assert claim.unit == currency
    assert claim.amount_micros == min(amount * {"USD": 10_000, "JPY": 1_000_000}[currency], 2**53 - 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["channel", "text", "Channel"]), JSON))
@settings(max_examples=100)
def test_recipients_are_counted_or_the_call_is_denied(message: dict[str, object]) -> None:
    found = spends("slack.com", "slack", "/api/chat.postMessage", b"application/json", json.dumps(message).encode())
    if isinstance(found, Code):
        assert found in {Code.CONDITION_FAILED, Code.CONTENT_REFUSED}
        return
    assert isinstance(message["channel"], str)
    assert found["recipients"].amount_micros == 1_000_000
    assert found["messages"].amount_micros == 1_000_000


@given(st.lists(st.from_regex(r"U[A-Z0-9]{1,6}", fullmatch=True), min_size=1, max_size=8))
def test_as_many_recipients_as_there_are(users: list[str]) -> None:
    found = spends(
        "slack.com", "slack", "/api/conversations.open", b"application/json", json.dumps({"users": users}).encode()
    )
    assert not isinstance(found, Code)
    assert found["recipients"].amount_micros == len(users) * 1_000_000
    assert "messages" not in found, "it sends none"


@given(st.binary(max_size=64), st.sampled_from([b"application/json", b"application/x-www-form-urlencoded", b"text/x"]))
def test_no_bytes_are_counted_as_nothing(body: bytes, kind: bytes) -> None:
    found = spends("slack.com", "slack", "/api/chat.postMessage", kind, body)
    assert isinstance(found, Code) or found["recipients"].amount_micros >= 1_000_000
