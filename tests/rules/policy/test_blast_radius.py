"""The blast radius is an upper bound, and the least one: an account that tries all day comes as far and no further."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.stores.limits import EmbeddedReservations
from proxy.trial import try_request
from rules.catalogue.effect import of_method
from rules.catalogue.tool import HttpCall
from rules.claims import Refused
from rules.decision import Allowed
from rules.limits.claims import claims_of
from rules.limits.demand import Demand
from rules.limits.windows import day_window, longest_day_seconds
from rules.policy.blast_radius import BlastRadius, blast_radius
from rules.policy.cases import FORM, Asked
from rules.policy.compile import Account, Connection, TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.policy.values import METHODS

POLICY = """\
exeat: 1
tenant: acme
timezone: {zone}
connections:
  a: {{host: a.example, secret: key/a, price: {price} USD}}
  b: {{host: b.example}}
accounts:
  agent:
    owners: {{accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}}
    limits: {limits}
    rules:
{rules}
"""
OPEN = '{id: all, allow: {connection: "*", path: /**}}'


def policy(
    limits: str = "{}", *rules: str, zone: str = "UTC", price: str = "0.5"
) -> tuple[TenantPolicy, Account, BlastRadius]:
    lines = "\n".join(f"      - {rule}" for rule in rules or (OPEN,))
    text = POLICY.format(zone=zone, price=price, limits=limits, rules=lines)
    tenant = compile_policy(parse_policy({"p.yaml": text.encode()})).tenants["acme"]
    account = tenant.accounts["agent"]
    return tenant, account, blast_radius(tenant, account)


def demand(tenant: TenantPolicy, account: Account, connection: Connection, moment: datetime) -> Demand:
    return Demand(account.name, "w", "r_1", connection, moment, tenant.timezone, ())


def try_all_day(tenant: TenantPolicy, account: Account, begins: datetime, names: tuple[str, ...]) -> dict[str, int]:
    """How many calls the limits' own code lets through on each connection, asked again whenever it says one may."""
    now = begins.timestamp()
    end = day_window(begins, tenant.timezone).resets_at
    store = EmbeddedReservations(monotonic_us=lambda: int(now * 1_000_000), wall_seconds=lambda: now)
    made = dict.fromkeys(names, 0)
    while now < end:
        waits: list[int] = []
        for name in names:
            connection = tenant.connections[name]
            while True:
                moment = datetime.fromtimestamp(now, UTC)
                granted = store.reserve_now("c", claims_of(account.plan, demand(tenant, account, connection, moment)))
                if isinstance(granted, Refused):
                    waits.append(granted.retry_after_seconds or 1)
                    break
                store.settle(granted, {"price": connection.price_micros})
                made[name] += 1
        now += min(waits)
    return made


MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("limits", "names", "calls", "spent"),
    [
        ("{rate: [{connection: b, max: 6, per: hour}]}", "b", 149, 0),
        ("{rate: [{connection: b, max: 6, per: hour, burst: 1}]}", "b", 144, 0),
        ("{rate: [{connection: b, max: 2, per: minute, burst: 9}]}", "b", 2888, 0),
        ("{rate: [{connection: b, max: 6, per: hour}, {connection: b, max: 100, per: day, burst: 1}]}", "b", 100, 0),
        ("{spend: [{meter: price, max: 5.4 USD, per: day}]}", "a", 10, 5_000_000),
        ("{rate: [{connection: '*', max: 6, per: hour}]}", "ab", 149, None),
        ("{spend: [{meter: calls, max: 7, per: day}]}", "ab", 7, None),
        ("{spend: [{meter: calls, max: 3, per: hour}]}", "b", 72, 0),
        ("{spend: [{meter: calls, max: 7, per: day, by: [connection]}]}", "ab", 14, None),
        ("{spend: [{meter: price, max: 2 USD, per: hour}, {meter: price, max: 9 USD, per: day}]}", "a", 18, 9_000_000),
        ("{spend: [{meter: price, max: 9 USD, per: day}, {meter: price, max: 4 USD, per: month}]}", "a", 8, 4_000_000),
        ("{rate: [{connection: b, max: 1, per: hour, by: [connection]}]}", "b", 24, 0),
        ("{rate: [{connection: a, max: 6, per: hour}, {connection: b, max: 1, per: day}]}", "ab", 150, 74_500_000),
    ],
)
def test_an_account_that_tries_all_day_comes_exactly_as_far(
    limits: str, names: str, calls: int, spent: int | None
) -> None:
    rules = [f"{{id: {name}, allow: {{connection: {name}, path: /**}}}}" for name in names]
    tenant, account, radius = policy(limits, *rules)
    made = try_all_day(tenant, account, MIDNIGHT, tuple(names))
    assert radius.calls == radius.writes == radius.deletes == calls == sum(made.values())
    if spent is not None and "a" in made:
        assert [money.micros for money in radius.money] == [spent] == [made["a"] * 500_000]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab*"), st.integers(1, 40), st.integers(1, 60)), max_size=4),
    st.one_of(st.none(), st.integers(1, 40)),
    st.sampled_from([("2026-03-29", "Europe/Berlin"), ("2026-10-25", "Europe/Berlin"), ("2026-11-25", "UTC")]),
)
def test_it_comes_never_further(rates: list[tuple[str, int, int]], cap: int | None, day: tuple[str, str]) -> None:
    unique = {name: (most, burst) for name, most, burst in rates}
    written = [f"{{connection: '{n}', max: {m}, per: hour, burst: {b}}}" for n, (m, b) in unique.items()]
    spend = "" if cap is None else f", spend: [{{meter: price, max: {cap} USD, per: day}}]"
    tenant, account, radius = policy(f"{{rate: [{', '.join(written)}]{spend}}}", zone=day[1])
    reaches = {reach.connection: reach for reach in radius.reaches}
    bounded = tuple(name for name in "ab" if reaches[name].calls is not None)
    begins = datetime.fromisoformat(f"{day[0]}T00:00:00").replace(tzinfo=ZoneInfo(day[1])).astimezone(UTC)
    for names in (bounded, bounded[::-1]):
        if not names:
            continue
        made = try_all_day(tenant, account, begins, names)
        for name, count in made.items():
            assert count <= (reaches[name].calls or 0)
        assert radius.calls is None or sum(made.values()) <= radius.calls
        for money in radius.money:
            assert money.micros is None or made.get("a", 0) * 500_000 <= money.micros


@pytest.mark.parametrize(
    ("limits", "unbounded"),
    [
        ("{}", ("calls", "writes", "deletes", "at once", "USD")),
        ("{concurrency: 2}", ("calls", "writes", "deletes", "USD")),
        ("{rate: [{connection: a, max: 1, per: day}]}", ("calls", "writes", "deletes", "at once")),
        ("{concurrency: 2, rate: [{connection: '*', max: 1, per: day}]}", ()),
        ("{concurrency: 2, spend: [{meter: price, max: 5 USD, per: day}]}", ("calls", "writes", "deletes")),
    ],
)
def test_what_has_no_bound_is_said_to_have_none(limits: str, unbounded: tuple[str, ...]) -> None:
    _, _, radius = policy(limits)
    assert radius.unbounded == (*unbounded, "recipients on a", "recipients on b")


def test_a_price_without_a_cap_is_bounded_by_the_calls_that_can_be_made() -> None:
    _, _, radius = policy("{rate: [{connection: a, max: 10, per: day, burst: 1}]}")
    (money,) = radius.money
    assert (money.cap_micros, money.micros) == (None, 5_000_000)


def test_rates_are_counted_over_the_longest_day_of_the_zone() -> None:
    _, _, radius = policy("{rate: [{connection: '*', max: 1, per: hour}]}", zone="Europe/Berlin")
    assert (radius.day_seconds, radius.calls) == (25 * 3600, 25)
    tenant, account, _ = policy("{rate: [{connection: '*', max: 1, per: hour}]}", zone="Europe/Berlin")
    longest = datetime(2026, 10, 25, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    assert sum(try_all_day(tenant, account, longest, ("b",)).values()) == 25
    assert longest_day_seconds(ZoneInfo("UTC")) == 24 * 3600


RULES = [
    (OPEN,),
    ("{id: r, allow: {connection: a, methods: [GET, POST], path: /x/**}}",),
    (OPEN, '{id: d, deny: {connection: "*", methods: [DELETE]}}'),
    (OPEN, "{id: d, deny: {connection: a}}"),
    (OPEN, '{id: d, deny: {connection: b, methods: [POST], path: "/x/{id}"}}'),
    ("{id: r, allow: {connection: a, path: /x/**}}", "{id: d, deny: {connection: a, methods: [PUT], path: /x/**}}"),
    ("{id: r, allow: {connection: b, methods: [DELETE], path: /x}}", '{id: d, deny: "*"}'),
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules[-1][:50])
def test_what_it_can_do_where_is_what_the_gate_lets_it(rules: tuple[str, ...]) -> None:
    """Every method on every connection, on a few paths, asked of the gate's own rules."""
    tenant, _, radius = policy("{}", *rules)
    allowed: dict[str, set[str]] = {}
    for connection in tenant.connections:
        for method in METHODS:
            for path in ("/x", "/x/7", "/x/7/y", "/z"):
                trial = try_request(tenant, Asked("agent", "w", method, connection, path, None, b"", None))
                if isinstance(trial.decision, Allowed):
                    allowed.setdefault(connection, set()).add(of_method(method))
    assert {reach.connection: set(reach.effects) for reach in radius.reaches} == allowed


def test_conditions_of_allow_rules_count_as_met_and_those_of_deny_rules_as_not() -> None:
    _, _, radius = policy(
        "{}",
        "{id: r, allow: {connection: a, methods: [POST], path: /x}, when: now.hour < 8}",
        '{id: d, deny: "*", when: now.hour >= 8}',
    )
    (reach,) = radius.reaches
    assert (reach.effects, reach.rules, reach.recipients, reach.secret) == (("write",), ("r",), "anybody", "key/a")


def test_who_only_reads_reaches_nobody() -> None:
    _, _, radius = policy("{}", "{id: r, allow: {connection: b, methods: [GET], path: /x}}")
    assert [reach.recipients for reach in radius.reaches] == ["nobody"]
    assert (radius.writes, radius.deletes, radius.money) == (0, 0, ())


def test_an_account_without_rules_does_nothing() -> None:
    _, _, radius = policy("{}", '{id: d, deny: "*"}')
    assert (radius.reaches, radius.calls, radius.unbounded) == ((), 0, ())


def test_rules_that_are_only_observed_keep_nothing_back() -> None:
    tenant, account, _ = policy("{}", "{id: r, allow: {connection: b, methods: [GET], path: /x}}", '{id: d, deny: "*"}')
    radius = blast_radius(tenant, replace(account, observed_until=MIDNIGHT))
    assert {reach.connection: reach.effects for reach in radius.reaches} == {
        "a": ("read", "write", "delete"),
        "b": ("read", "write", "delete"),
    }


SHOP = """\
exeat: 1
tenant: acme
connections:
  stripe: {service: stripe, host: api.stripe.com}
  slack: {service: slack, host: slack.com}
  other: {host: other.example}
accounts:
  agent:
    owners: {accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}
    rules:
"""
TOOL_RULES: list[tuple[tuple[str, ...], dict[str, str]]] = [
    (("{id: r, allow: stripe.refund.create}",), {"stripe": "write"}),
    (("{id: r, allow: [stripe.customer.list]}",), {"stripe": "read"}),
    (('{id: r, allow: "stripe.*"}',), {"stripe": "read/write/delete"}),
    (('{id: r, allow: {connection: "*", effects: [read]}}',), {"stripe": "read", "slack": "read"}),
    (('{id: r, allow: "stripe.*"}', "{id: d, deny: {effects: [write]}}"), {"stripe": "read"}),
    (('{id: r, allow: "stripe.refund.*"}', "{id: d, deny: [stripe.refund.create]}"), {"stripe": "read/write"}),
    (("{id: r, allow: [stripe.refund.create]}", "{id: d, deny: [stripe.refund.create]}"), {}),
    (('{id: r, allow: "stripe.*"}', "{id: d, deny: {effects: [delete]}}"), {"stripe": "read/write"}),
    # Slack takes writes by GET: the catalogue knows, a method does not tell.
    (("{id: r, allow: {connection: slack, methods: [GET], path: /api/**}}",), {"slack": "read/write/delete"}),
    (("{id: r, allow: {connection: slack, methods: [GET], path: /api/conversations.list}}",), {"slack": "read"}),
    (("{id: r, allow: {connection: other, path: /**}}", "{id: d, deny: {effects: [write]}}"), {}),
    (
        ("{id: r, allow: {connection: other, methods: [DELETE], path: /**}}", "{id: d, deny: {effects: [delete]}}"),
        {"other": "delete"},
    ),
]


@pytest.mark.parametrize(("rules", "expected"), TOOL_RULES, ids=lambda value: str(value)[:60])
def test_rules_about_tools_do_what_the_catalogue_says_and_the_gate_lets_through_no_more(
    rules: tuple[str, ...], expected: dict[str, str]
) -> None:
    text = SHOP + "".join(f"      - {rule}\n" for rule in rules)
    tenant = compile_policy(parse_policy({"p.yaml": text.encode()})).tenants["acme"]
    radius = blast_radius(tenant, tenant.accounts["agent"])
    assert {reach.connection: "/".join(reach.effects) for reach in radius.reaches} == expected
    for name, connection in tenant.connections.items():
        lines = [("GET", "/x"), ("POST", "/x"), ("DELETE", "/x")]
        for tool in () if connection.known is None else connection.known.tools.values():
            calls = [call for call in tool.calls if isinstance(call, HttpCall)]
            lines += [(call.method, re.sub(r"\{\w+\}", "x1", call.template.text.removesuffix("/**"))) for call in calls]
        for method, path in lines:
            trial = try_request(tenant, Asked("agent", "w", method, name, path or "/", FORM, b"a=1", None))
            if isinstance(trial.decision, Allowed):
                assert name in expected, (method, path)
                did = {of_method(method)} if connection.known is None else {a.effect for a in trial.facts.actions}
                unlisted = {a.tool for a in trial.facts.actions} == {f"{name}.unknown"}
                assert unlisted or did <= set(expected[name].split("/")), (method, path)


def test_a_tenants_caps_bound_its_accounts_and_a_runs_bound_nobody() -> None:
    own = "{concurrency: 9, spend: [{meter: price, max: 1 USD, per: run}]}"
    text = POLICY.format(zone="UTC", price="0.5", limits=own, rules=f"      - {OPEN}")
    spend = "[{meter: price, max: 30 USD, per: month}, {meter: bytes_out, max: 1 MB, per: day}]"
    whole = f"limits: {{concurrency: 4, spend: {spend}}}\n"
    tenant = compile_policy(parse_policy({"p.yaml": (text + whole).encode()})).tenants["acme"]
    radius = blast_radius(tenant, tenant.accounts["agent"])
    assert [(money.cap_micros, money.micros) for money in radius.money] == [(30_000_000, 30_000_000)]
    assert radius.at_once == 4
    assert radius.counted == ("1000000 bytes_out per day",)
    assert "USD" not in radius.unbounded
