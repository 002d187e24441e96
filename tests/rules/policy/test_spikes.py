"""What a policy says of spikes: for one account, for each of a tenant, for all of them together."""

import pytest

from rules.limits.limit import Spike
from rules.policy.access import access_of
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.policy.source import PolicyInvalid

POLICY = """\
exeat: 1
tenant: acme
connections: {{lab: {{host: saas.test, price: 1 USD}}}}
limits: {whole}
accounts:
  one:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {one}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
  two:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {two}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
"""
SPEND = "spend: [{meter: price, max: 10 USD, per: day}]"
SPIKE = "spikes: [{meter: price, per: hour, over: 2.5x, least: 1.5 USD, then: stop}]"


def policy(whole: str = "{}", one: str = "{}", two: str = "{}") -> PolicySet:
    return compile_policy(parse_policy({"acme.yaml": POLICY.format(whole=whole, one=one, two=two).encode()}))


def test_it_compiles_to_what_it_says_and_is_in_the_bundle() -> None:
    made = policy(one=f"{{{SPEND}, {SPIKE}}}")
    (spike,) = made.tenants["acme"].accounts["one"].limits.spikes
    assert spike == Spike("price", "USD", "hour", 250, 1_500_000, by_account=False, stop=True)
    assert PolicySet.from_bundle(made.bundle) == made
    assert b"spikes" not in policy(one=f"{{{SPEND}}}").bundle  # the digest of a policy without is what it was


def test_a_tenants_spike_is_about_all_together_or_about_each() -> None:
    calls = "meter: calls, per: day, over: 3x"
    spikes = f"{{spikes: [{{{calls}, least: 100, by: [account]}}, {{{calls}, least: 1000}}]}}"
    each, together = policy(whole=spikes).tenants["acme"].limits.spikes
    assert (each.by_account, together.by_account) == (True, False)
    assert (each.least_micros, each.currency, each.unit) == (100_000_000, None, "calls")


def test_what_it_counts_is_counted_by_a_spend_limit_of_the_account_or_its_tenant() -> None:
    assert policy(whole=f"{{{SPEND}}}", one=f"{{{SPIKE}}}")
    assert policy(whole=f"{{{SPIKE}}}", one=f"{{{SPEND}}}", two=f"{{{SPEND}}}")
    with pytest.raises(PolicyInvalid, match="no spend limit of one counts price"):
        policy(one=f"{{{SPIKE}}}", two=f"{{{SPEND}}}")
    with pytest.raises(PolicyInvalid, match="no spend limit of every account counts price"):
        policy(whole=f"{{{SPIKE}}}", one=f"{{{SPEND}}}")


def test_the_access_review_has_them() -> None:
    whole = "{spikes: [{meter: calls, per: day, over: 3x, least: 100, by: [account]}]}"
    tenant = policy(whole=whole, one=f"{{{SPEND}, {SPIKE}}}").tenants["acme"]
    found = access_of(tenant, tenant.accounts["one"])
    assert found.spikes == ("stop at a spike of price in USD per hour: over 2.5x, at least 1.5 USD",)
    assert found.tenant_limits == ("alert at a spike of calls per day, by account: over 3x, at least 100 calls",)
