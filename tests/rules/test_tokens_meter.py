"""Limits on tokens, and on prices by a book: what is counted, what is denied because nobody can tell, what is read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.claims import SpendClaim
from rules.codes import Code
from rules.decision import Allowed, Decision, Denied
from rules.meters.meter import LATER
from rules.policy.blast_radius import blast_radius
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid
from rules.trial import Trial, judge

PRINCIPAL = Principal("acme", "agent", "w", "r_1", "jti", 0, 0, 2**40)
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
POLICY = """
exeat: 1
tenant: acme
connections:
  models: {{host: api.openai.com{price}}}
  tickets: {{host: acme.zendesk.com}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{spend}]}}
    rules: [{{id: all, allow: {{connection: "*", path: /**}}}}]
"""
TOKENS = "{meter: tokens, max: 2000000, per: hour}"
MONEY = "{meter: price, max: 5 USD, per: day}"
BOOK = ", price: {book: openai}"
CHAT = '{"model":"gpt-4o","messages":[]}'


def policy(spend: str, price: str = "") -> TenantPolicy:
    return compile_policy(parse_policy({"acme.yaml": POLICY.format(spend=spend, price=price).encode()})).tenants["acme"]


def tried(of: TenantPolicy, target: str, body: str = CHAT, media: str = "application/json") -> Trial:
    method, path = target.split(" ")
    connection = of.connections["models"]
    call = Call("c_1", PRINCIPAL, "https", connection.host, 443, method, path, "")
    return judge(call, Facts(of, connection, NOW), (media.encode(),), body.encode())


def spends(decision: Decision) -> list[Any]:
    assert isinstance(decision, Allowed), decision
    return [(c.meter, c.unit, c.amount_micros) for c in decision.claims if isinstance(c, SpendClaim)]


@pytest.mark.parametrize(
    ("spend", "price", "target", "claims"),
    [
        (TOKENS, "", "POST /v1/chat/completions", [("tokens", "tokens", LATER)]),
        (MONEY, BOOK, "POST /v1/chat/completions", [("price", "USD", LATER)]),
        (f"{TOKENS}, {MONEY}", BOOK, "POST /v1/responses", [("tokens", "tokens", LATER), ("price", "USD", LATER)]),
        (TOKENS, BOOK, "GET /v1/models", []),
        (MONEY, BOOK, "GET /v1/models", []),
        (MONEY, BOOK, "POST /v1/moderations", []),
        (MONEY, ", price: 0.01 USD", "POST /v1/chat/completions", [("price", "USD", 10_000)]),
        (MONEY, "", "POST /v1/chat/completions", []),
    ],
)
def test_what_is_set_aside_for_a_call(spend: str, price: str, target: str, claims: list[Any]) -> None:
    assert spends(tried(policy(spend, price), target).decision) == claims


@pytest.mark.parametrize("spend", [TOKENS, MONEY])
@pytest.mark.parametrize(
    "target",
    ["POST /v1/images/generations", "POST /v1/audio/speech", "POST /v1/something/new", "POST /v1/realtime/sessions"],
)
def test_what_nobody_can_tell_the_cost_of_is_denied_where_a_limit_counts_it(spend: str, target: str) -> None:
    decision = tried(policy(spend, BOOK), target).decision
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.CONDITION_FAILED
    assert "cannot be told, and a limit counts it" in decision.reasons[0].detail


@pytest.mark.parametrize("body", ["[1]", '"x"', "7", "null"])
def test_a_request_that_has_no_arguments_to_bound_it_is_denied(body: str) -> None:
    decision = tried(policy(TOKENS), "POST /v1/chat/completions", body).decision
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.CONDITION_FAILED


def test_without_a_limit_that_counts_it_nothing_is_denied() -> None:
    assert isinstance(tried(policy("", BOOK), "POST /v1/images/generations").decision, Allowed)


@pytest.mark.parametrize(
    ("spend", "price", "target", "read"),
    [
        (TOKENS, "", "POST /v1/chat/completions", True),
        (MONEY, BOOK, "POST /v1/chat/completions", True),
        ("", BOOK, "POST /v1/chat/completions", True),
        ("", BOOK, "POST /v1/moderations", False),
        ("", "", "POST /v1/chat/completions", False),
        (MONEY, "", "POST /v1/chat/completions", False),
    ],
)
def test_a_body_is_read_where_it_says_what_a_call_costs(spend: str, price: str, target: str, read: bool) -> None:
    assert tried(policy(spend, price), target).body_read == read


@pytest.mark.parametrize(("spend", "price"), [(TOKENS, ""), (MONEY, BOOK), ("", BOOK)])
@pytest.mark.parametrize("body", ["{", '{"model":"a","model":"b"}', '{"model":"a","MODEL":"b"}'])
def test_a_body_that_cannot_be_read_in_one_way_is_denied(spend: str, price: str, body: str) -> None:
    decision = tried(policy(spend, price), "POST /v1/chat/completions", body).decision
    assert isinstance(decision, Denied)
    assert decision.reasons[0].code is Code.CONTENT_REFUSED


def test_a_limit_on_tokens_that_no_connection_uses_is_refused() -> None:
    text = POLICY.format(spend=TOKENS, price="").replace("api.openai.com", "models.example")
    with pytest.raises(PolicyInvalid, match="no connection's service says which tokens"):
        parse_policy({"acme.yaml": text.encode()})


def test_tokens_are_counted_in_whole_numbers() -> None:
    with pytest.raises(PolicyInvalid, match="tokens counts a number"):
        policy("{meter: tokens, max: 5 USD, per: hour}")


def test_of_calls_by_a_book_only_a_limit_on_prices_bounds_what_they_cost() -> None:
    for spend, cap in ((MONEY, 5_000_000), ("", None)):
        of = policy(spend, BOOK)
        found = blast_radius(of, of.accounts["agent"])
        (money,) = found.money
        assert (money.currency, money.micros) == ("USD", cap)
        assert {reach.connection: reach.currency for reach in found.reaches} == {"models": "USD", "tickets": None}
