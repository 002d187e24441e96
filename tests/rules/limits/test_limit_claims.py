"""Limits by run, tool and the like, of accounts and of tenants: what each call asks of which counter."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.action import Action
from rules.call import Call, Facts
from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim
from rules.codes import Code
from rules.decision import Allowed
from rules.limits.claims import MAX_SPENDS, bucket_claims, claims_of
from rules.limits.demand import Demand
from rules.limits.keys import by_part, charged, meter_part
from rules.meters import METERS, meter_named
from rules.meters.meter import LATER, MOST, Untold
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.trial import judge

OWNERS = "owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}"
TEXT = f"""\
exeat: 1
tenant: acme
timezone: Europe/Berlin
limits:
  concurrency: [{{max: 9, by: [account]}}, {{max: 50}}]
  rate: [{{connection: "*", max: 100, per: second}}]
  spend:
    - {{meter: price, max: 100 USD, per: month}}
    - {{meter: calls, max: 1000, per: hour, by: [account, connection]}}
connections:
  stripe: {{host: api.stripe.com, price: 0.10 USD}}
  github: {{host: api.github.com}}
  files: {{host: files.example}}
  helper: {{host: mcp.example, service: mcp}}
accounts:
  agent:
    {OWNERS}
    limits:
      concurrency: [{{max: 2, connection: stripe, by: [run]}}]
      rate:
        - {{connection: stripe, max: 10, per: second, by: [connection]}}
        - {{tools: [stripe.refund.*], max: 5, per: minute, by: [workflow, object]}}
        - {{connection: "*", tools: [mcp.helper.send], max: 3, per: minute}}
      spend:
        - {{meter: price, max: 5 USD, per: day}}
        - {{meter: calls, max: 20, per: run, by: [tool]}}
        - {{meter: bytes_out, max: 10 MB, per: run}}
    rules: [{{id: all, allow: {{connection: "*", path: /**}}}}]
  other:
    {OWNERS}
    rules: [{{id: all, allow: {{connection: "*", path: /**}}}}]
"""
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def policy() -> TenantPolicy:
    return compile_policy(parse_policy({"acme.yaml": TEXT.encode()})).tenants["acme"]


def demand(policy: TenantPolicy, connection: str, *tools: str, run: str = "r_1", workflow: str = "w") -> Demand:
    known = policy.connections[connection].known
    actions = tuple(
        Action(tool, "write", {}, None, known, {"id": tool} if known is not None and known.protocol == "rest" else {})
        for tool in tools
    )
    return Demand("agent", workflow, run, policy.connections[connection], NOW, policy.timezone, actions)


def asked(policy: TenantPolicy, of: Demand, account: str = "agent") -> tuple[Claim, ...]:
    return claims_of(policy.accounts[account].plan, replace(of, account=account))


def keys(claims: tuple[Claim, ...], kind: type) -> list[str]:
    return ["/".join(claim.key) for claim in claims if isinstance(claim, kind)]


def test_both_levels_ask_the_accounts_first(policy: TenantPolicy) -> None:
    claims = asked(policy, demand(policy, "stripe", "stripe.charge.create"))
    assert keys(claims, RateClaim) == ["acme/agent/rate/stripe/second/connection=stripe", "acme/*/rate/*/second"]
    assert keys(claims, LeaseClaim) == [
        "acme/*/concurrency/*/account=agent",
        "acme/*/concurrency",
        "acme/agent/concurrency/stripe/run=r_1",
    ]
    assert [f"{'/'.join(c.key)}/{c.window}" for c in claims if isinstance(c, SpendClaim)] == [
        "acme/agent/USD/day/2026-11-20",
        "acme/*/USD/month/2026-11",
        "acme/agent/calls/run/run=r_1&tool=stripe.charge.create/run",
        "acme/*/calls/hour/account=agent&connection=stripe/2026-11-20T13",
        "acme/agent/bytes_out/run/run=r_1/run",
    ]


def test_a_tenants_limits_are_asked_of_an_account_without_any(policy: TenantPolicy) -> None:
    claims = asked(policy, demand(policy, "files", "unknown"), "other")
    assert keys(claims, RateClaim) == ["acme/*/rate/*/second"]
    assert keys(claims, LeaseClaim) == ["acme/*/concurrency/*/account=other", "acme/*/concurrency"]
    assert keys(claims, SpendClaim) == ["acme/*/calls/hour/account=other&connection=files"]


def test_a_rate_of_tools_is_asked_by_those_alone_and_by_what_they_are_about(policy: TenantPolicy) -> None:
    def bucket(*tools: str, workflow: str = "w") -> list[str]:
        claims = asked(policy, demand(policy, "stripe", *tools, workflow=workflow))
        return [key for key in keys(claims, RateClaim) if "stripe.refund" in key]

    (one,), (other,) = bucket("stripe.refund.create"), bucket("stripe.refund.update")
    assert one.startswith("acme/agent/rate/*:stripe.refund.*/minute/workflow=w&object=")
    assert one != other, "the path says another object"
    assert bucket("stripe.refund.create", workflow="v") != [one]
    assert bucket("stripe.charge.create") == []


def test_what_is_not_known_is_counted_by_every_limit_on_tools(policy: TenantPolicy) -> None:
    of = replace(demand(policy, "stripe"), actions=(Action(None, None, None),))
    plan = policy.accounts["agent"].plan
    assert any("stripe.refund" in key for key in keys(bucket_claims(plan, of), RateClaim))
    assert any("stripe.refund" in key for key in keys(bucket_claims(plan, replace(of, actions=())), RateClaim))


def test_a_batch_takes_one_token_for_each_of_its_messages(policy: TenantPolicy) -> None:
    send = "mcp.helper.send"
    claims = asked(policy, demand(policy, "helper", send, send, "mcp.helper.read", send))
    assert keys(claims, RateClaim).count(f"acme/agent/rate/*:{send}/minute") == 3
    assert len(keys(claims, LeaseClaim)) == 2, "one request has one slot"
    counted = {"/".join(c.key): c.amount_micros for c in claims if isinstance(c, SpendClaim) and c.meter == "calls"}
    assert set(counted.values()) == {4_000_000}, "and counts whole with each of its tools"
    assert len(counted) == 3


def test_a_handshake_is_no_call_of_a_tool(policy: TenantPolicy) -> None:
    of = replace(demand(policy, "helper"), actions=(Action("mcp.helper/stream", "read", {}, handshake=True),))
    assert not any("mcp.helper.send" in key for key in keys(asked(policy, of), RateClaim))


def test_an_agent_gets_no_bucket_for_each_argument_it_makes_up(policy: TenantPolicy) -> None:
    """What an MCP server's tool is called with an agent varies as it likes."""
    places = ({"x": "1"}, {"x": "2"}, {})
    of = [
        replace(demand(policy, "helper"), actions=(Action("mcp.helper.send", "write", {}, None, None, place),))
        for place in places
    ]
    assert len({one.values(("object",), one.actions[0])["object"] for one in of}) == 1


def test_more_tools_at_once_than_a_record_has_room_for_are_denied(policy: TenantPolicy) -> None:
    many = [f"mcp.helper.t{n}" for n in range(MAX_SPENDS)]
    with pytest.raises(Untold) as caught:
        asked(policy, demand(policy, "helper", *many))
    assert caught.value.code is Code.CONDITION_FAILED


def test_calls_of_a_batch_that_was_not_read_are_not_taken_for_one(policy: TenantPolicy) -> None:
    of = demand(policy, "helper")
    for actions in ((), (Action(None, None, None),)):
        with pytest.raises(Untold):
            asked(policy, replace(of, actions=actions))


def test_bytes_are_told_later_and_no_store_takes_them_before(policy: TenantPolicy) -> None:
    claims = asked(policy, demand(policy, "files", "unknown"))
    (claim,) = (claim for claim in claims if isinstance(claim, SpendClaim) and claim.meter == "bytes_out")
    assert claim.amount_micros == LATER < 0


@given(
    st.sampled_from(["stripe", "github", "files", "helper"]),
    st.lists(st.sampled_from(["stripe.refund.create", "mcp.helper.send", "x.unknown"]), min_size=1, max_size=3),
    st.text(max_size=300),
    st.text(min_size=1, max_size=256),
    st.integers(0, 366 * 24 * 60),
)
@settings(max_examples=200)
def test_keys_are_unique_and_names_of_budgets_fit_into_a_record(
    policy: TenantPolicy, connection: str, tools: list[str], workflow: str, run: str, minutes: int
) -> None:
    of = replace(demand(policy, connection, *tools, run=run, workflow=workflow), now=NOW + timedelta(minutes=minutes))
    for account in ("agent", "other"):
        claims = asked(policy, of, account)
        others = [claim.key for claim in claims if not isinstance(claim, RateClaim)]
        assert len(set(others)) == len(others)
        assert {claim.key for claim in claims if isinstance(claim, RateClaim)}.isdisjoint(others)
        for claim in claims:
            assert claim.key[0] == "acme"
            assert claim.key[1] in (account, "*")
            assert not any("/" in part for part in claim.key)
            if isinstance(claim, SpendClaim):
                assert 0 < len("/".join((*claim.key, claim.window))) <= 256


@given(st.dictionaries(st.sampled_from(["workflow", "run"]), st.text(max_size=400)), st.text(max_size=400))
def test_what_a_budget_is_counted_by_is_told_apart(by: dict[str, str], value: str) -> None:
    for name in by:
        changed = {**by, name: value}
        assert (by_part(by) == by_part(changed)) == (by == changed)


@given(st.from_regex(r"[a-z][a-z0-9_/.-]{0,135}", fullmatch=True), st.none() | st.just("USD"), st.integers(0, MOST))
def test_a_record_says_how_much_each_budget_was_charged(meter: str, currency: str | None, amount: int) -> None:
    name = f"acme/agent/{meter_part(meter, currency)}/day/2026-11-20"
    cost = {"micro": 7, "cur": "USD", "budget": [name], "units": {"another": 1, meter: amount}}
    assert charged(name, cost) == amount
    assert charged("acme/agent/USD/day/2026-11-20", cost) == 7
    with pytest.raises(ValueError, match="does not say"):
        charged(name, {**cost, "units": {}})


def test_every_name_means_one_meter_and_the_last_takes_the_rest() -> None:
    named = ("price", "calls", "bytes_out", "tokens", "a.b.amount", "rows")
    assert {meter_named(name).name for name in named} == {meter.name for meter in METERS}
    assert [meter_named(name).name for name in named[-2:]] == ["TOOL.amount", "UNIT"]


def test_windows_are_those_of_the_policys_zone(policy: TenantPolicy) -> None:
    of = replace(demand(policy, "stripe", "stripe.charge.create"), now=datetime(2026, 10, 31, 23, 30, tzinfo=UTC))
    assert of.zone == ZoneInfo("Europe/Berlin")
    windows = {c.key[3]: c.window for c in asked(policy, of) if isinstance(c, SpendClaim)}
    assert windows == {"day": "2026-11-01", "month": "2026-11", "hour": "2026-11-01T00", "run": "run"}


SEVERAL = f"""\
exeat: 1
tenant: acme
connections:
  github: {{host: api.github.com}}
  helper: {{host: mcp.example, service: mcp}}
accounts:
  agent:
    {OWNERS}
    limits: {{spend: [{{meter: calls, max: 10, per: run}}]}}
    rules: [{{id: all, allow: {{connection: "*", path: /**}}}}]
"""


TWO_FIELDS = "mutation { a: addStar(input: {}) { x } b: addStar(input: {}) { x } }"


def message(number: int) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "t"}}


@pytest.mark.parametrize(
    ("host", "path", "body", "calls"),
    [
        ("api.github.com", "/user", {}, 1),
        ("api.github.com", "/graphql", {"query": TWO_FIELDS}, 2),
        ("mcp.example", "/mcp", message(1), 1),
        ("mcp.example", "/mcp", [message(1), message(2), message(3)], 3),
        ("mcp.example", "/else", {"anything": 1}, 1),
    ],
)
def test_what_is_asked_for_side_by_side_is_counted_each(host: str, path: str, body: object, calls: int) -> None:
    policy = compile_policy(parse_policy({"acme.yaml": SEVERAL.encode()})).tenants["acme"]
    connection = policy.connection_for("https", host, 443)
    call = Call("c", Principal("acme", "agent", "w", "r", "j", 0, 0, 2**40), "https", host, 443, "POST", path, "")
    trial = judge(call, Facts(policy, connection, NOW), (b"application/json",), json.dumps(body).encode())
    assert isinstance(trial.decision, Allowed), trial.decision
    (claim,) = (claim for claim in trial.decision.claims if isinstance(claim, SpendClaim))
    assert claim.amount_micros == calls * 1_000_000
