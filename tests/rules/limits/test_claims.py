"""What a call asks of its account's limits."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.claims import LeaseClaim, RateClaim, SpendClaim
from rules.codes import Code
from rules.decide import decide
from rules.decision import Allowed, Denied
from rules.guards.allow_rules import GUARD
from rules.limits.claims import bucket_claims, claims_of
from rules.limits.demand import Demand
from rules.limits.limit import Plan
from rules.meters.meter import Untold
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy

TEXT = b"""\
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  dollars: {host: d.example, price: 0.25 USD}
  euros: {host: e.example, price: 0.000001 EUR}
  free: {host: f.example}
accounts:
  capped:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    limits:
      concurrency: 2
      rate:
        - {connection: euros, max: 7, per: minute}
        - {connection: "*", max: 9, per: hour, burst: 1}
        - {connection: euros, max: 100, per: day}
      spend: [{meter: price, max: 5 USD, per: day}, {meter: price, max: 3 EUR, per: day}]
    rules: [{id: all, allow: {connection: "*", path: /**}}]
  free:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    rules: [{id: all, allow: {connection: "*", path: /**}}]
"""
NOW = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)  # 00:30 on the 29th in Berlin, a day of 23 hours


def demand(policy: TenantPolicy, account: str, connection: str) -> tuple[Plan, Demand]:
    found = policy.accounts[account]
    return found.plan, Demand(account, "w", "r_1", policy.connections[connection], NOW, policy.timezone, ())


@pytest.fixture
def policy() -> TenantPolicy:
    return compile_policy(parse_policy({"acme.yaml": TEXT})).tenants["acme"]


def test_rates_come_first_then_the_lease_then_the_amount_in_the_connections_currency(policy: TenantPolicy) -> None:
    claims = claims_of(*demand(policy, "capped", "euros"))
    assert claims == (
        RateClaim(("acme", "capped", "rate", "euros", "minute"), 8_571_429, 7, "7 per minute"),
        RateClaim(("acme", "capped", "rate", "*", "hour"), 400_000_000, 1, "9 per hour"),
        RateClaim(("acme", "capped", "rate", "euros", "day"), 864_000_000, 100, "100 per day"),
        LeaseClaim(("acme", "capped", "concurrency"), 2),
        SpendClaim(
            key=("acme", "capped", "EUR", "day"),
            window="2026-03-29",
            max_micros=3_000_000,
            amount_micros=1,
            unit="EUR",
            resets_at=int(datetime(2026, 3, 29, 22, tzinfo=UTC).timestamp()),
        ),
    )


def test_each_currency_has_its_own_budget(policy: TenantPolicy) -> None:
    *_, claim = claims_of(*demand(policy, "capped", "dollars"))
    assert isinstance(claim, SpendClaim)
    assert (claim.unit, claim.max_micros, claim.amount_micros) == ("USD", 5_000_000, 250_000)


def test_a_call_without_a_price_asks_for_no_money(policy: TenantPolicy) -> None:
    claims = claims_of(*demand(policy, "capped", "free"))
    assert [type(claim) for claim in claims] == [RateClaim, LeaseClaim]


def test_an_account_without_limits_claims_nothing(policy: TenantPolicy) -> None:
    assert claims_of(*demand(policy, "free", "euros")) == ()


def test_no_two_claims_share_a_key(policy: TenantPolicy) -> None:
    claims = {claim for name in policy.connections for claim in claims_of(*demand(policy, "capped", name))}
    assert len({claim.key for claim in claims}) == len(claims)


def test_a_price_that_no_limit_counts_is_not_taken_for_none(policy: TenantPolicy) -> None:
    """Loading refuses such a policy. Were one to get here, a cap that counts nothing must not be taken for none."""
    connection = replace(policy.connections["euros"], currency="JPY")
    plan, demand_ = demand(policy, "capped", "euros")
    with pytest.raises(Untold) as caught:
        claims_of(plan, replace(demand_, connection=connection))
    assert caught.value.code is Code.CONDITION_FAILED
    principal = Principal("acme", "capped", "w", "r", "j", 0, 0, 0)
    call = Call("c_1", principal, "https", "e.example", 443, "GET", "/", "")
    assert isinstance(decide(call, Facts(policy, policy.connections["euros"], NOW), (GUARD,)), Allowed)
    denied = decide(call, Facts(policy, connection, NOW), (GUARD,))
    assert isinstance(denied, Denied)
    assert denied.reasons[0].code is Code.GUARD_FAILED


def test_an_old_record_of_a_call_that_no_limit_counts_any_more_has_its_rates_still(policy: TenantPolicy) -> None:
    plan, demand_ = demand(policy, "capped", "euros")
    claims = bucket_claims(plan, replace(demand_, connection=replace(policy.connections["euros"], currency="JPY")))
    assert [type(claim) for claim in claims] == [RateClaim, RateClaim, RateClaim, LeaseClaim]
