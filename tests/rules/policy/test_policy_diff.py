"""What a change opens and closes."""

from dataclasses import fields
from pathlib import Path

import pytest

from rules.limits.limit import Limits
from rules.policy.compile import Account, Connection, PolicySet, TenantPolicy, compile_policy
from rules.policy.diff import Summary, summarise
from rules.policy.load import load_policy, parse_policy
from rules.policy.matcher import Rule
from rules.prices.library import builtin
from tests.worlds.authority import Authority

BASE = """\
exeat: 1
tenant: acme
connections:
  tickets: {host: acme.zendesk.com, secret: zendesk/prod}
  models: {host: api.openai.com, price: 0.002 USD}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    limits:
      concurrency: 2
      rate: [{connection: tickets, max: 10, per: second}]
      spend: [{meter: price, max: 5 USD, per: day}]
    rules:
      - {id: read, allow: {connection: tickets, methods: [GET], path: /api/**}}
      - {id: chat, allow: {connection: models, path: /v1}}
      - {id: keep, deny: {connection: "*", methods: [DELETE]}}
"""


def policy(text: str) -> PolicySet:
    return compile_policy(parse_policy({"acme.yaml": text.encode()}))


def test_nothing_changed() -> None:
    moved = BASE.replace("      - {id: keep", "      # moved\n      - {id: keep")
    assert summarise(policy(BASE), policy(moved)) == Summary((), (), ())


def test_the_first_policy_opens_all_that_it_allows() -> None:
    assert summarise(None, policy(BASE)) == Summary(
        opens=(
            "acme: tenant added",
            "acme: connection models to https://api.openai.com:443",
            "acme: connection tickets to https://acme.zendesk.com:443",
            "acme/agent: account added",
            "acme/agent: allow read: GET tickets /api/**",
            "acme/agent: allow chat: any method models /v1",
            "acme/agent: except keep: DELETE * /**",
        ),
        closes=(),
        changes=(),
    )


RATE = "acme/agent: rate on tickets per second"
TEN = "10 per second, 10 at once"
KEEP = '{id: keep, deny: {connection: "*", methods: [DELETE]}}'
KEPT = "acme/agent: no longer deny keep: DELETE * /**"
NARROW = "acme/agent: no longer allow read: GET tickets /api/**"

OPENAI = builtin("openai")
BOOK = "" if OPENAI is None else OPENAI.digest[:19]

SPIKE = "max: 10, per: second}]\n      spikes: [{meter: price, per: hour, over: %s, least: 1 USD, then: %s}]"
STOP = "acme/agent: stop at a spike of price in USD per hour"
TELL = "acme/agent: alert at a spike of price in USD per hour"

# (what, replaced by what, opens, closes, changes)
CASES: list[tuple[str, str, list[str], list[str], list[str]]] = [
    ("max: 10,", "max: 20,", [f"{RATE} 20 per second, 20 at once, was {TEN}"], [], []),
    ("max: 10,", "max: 5,", [], [f"{RATE} 5 per second, 5 at once, was {TEN}"], []),
    ("max: 10,", "max: 5, burst: 20,", [], [], [f"{RATE} 5 per second, 20 at once, was {TEN}"]),
    ("rate: [{connection: tickets, max: 10, per: second}]", "rate: []", [f"{RATE} no limit, was {TEN}"], [], []),
    ("concurrency: 2", "concurrency: 3", ["acme/agent: concurrency 3, was 2"], [], []),
    ("      concurrency: 2\n", "", ["acme/agent: concurrency no limit, was 2"], [], []),
    ("max: 5 USD", "max: 4.5 USD", [], ["acme/agent: spend per day 4.5 USD, was 5 USD"], []),
    (
        "per: day}]",
        "per: run}]",
        ["acme/agent: spend per day no limit, was 5 USD"],
        ["acme/agent: spend per run 5 USD, was no limit"],
        [],
    ),
    (
        "per: day}]",
        "per: day}, {meter: calls, max: 9, per: hour, by: [run]}]",
        [],
        ["acme/agent: calls per hour, by run 9 calls, was no limit"],
        [],
    ),
    ("per: day}]", "per: day, alert: 80%}]", [], [], ["acme/agent: spend per day: when somebody is told, or asked"]),
    (
        "concurrency: 2",
        "concurrency: [{max: 2}, {max: 1, connection: tickets}]",
        [],
        ["acme/agent: concurrency on tickets 1, was no limit"],
        [],
    ),
    (
        "concurrency: 2",
        "concurrency: [{max: 2, queue: {max: 8, wait: 5s}}]",
        [],
        [],
        ["acme/agent: concurrency: 8 more wait up to 5 s, was: nobody waits"],
    ),
    (
        "tenant: acme",
        "tenant: acme\nlimits: {rate: [{connection: tickets, max: 7, per: hour}]}",
        [],
        ["acme: rate on tickets per hour 7 per hour, 7 at once, was no limit"],
        [],
    ),
    (
        "tenant: acme",
        "tenant: acme\nlimits: {when_unavailable: {local: 25%}}",
        ["acme: limits while the shared ones are away: granted 25%, was refused"],
        [],
        [],
    ),
    ("[GET]", "[GET, POST]", ["acme/agent: allow read: GET,POST tickets /api/**"], [NARROW], []),
    (KEEP, '{id: keep, deny: "*"}', [KEPT], ["acme/agent: deny keep: any method * /**"], []),
    (f"      - {KEEP}\n", "", [KEPT], [], []),
    ("risk: risk@", "risk: rita@", [], [], ["acme/agent: owners"]),
    ("zendesk/prod", "zendesk/two", [], [], ["acme: connection tickets: secret zendesk/two, was zendesk/prod"]),
    ("0.002 USD", "0.003 USD", [], [], ["acme: connection models: price 0.003 USD, was 0.002 USD"]),
    (
        "price: 0.002 USD",
        "price: {book: openai, max_tokens: 500}",
        [],
        [],
        [f"acme: connection models: price book openai ({BOOK}), at most 500 tokens an answer, was 0.002 USD"],
    ),
    (
        "secret: zendesk/prod",
        "secret: zendesk/prod, present: {basic: bob}",
        [],
        [],
        ["acme: connection tickets: presented as {'basic': 'bob'}, was bearer"],
    ),
    (
        "path: /api/**}}",
        "path: /api/**}, when: now.hour < 8}",
        [],
        ["acme/agent: allow read: GET tickets /api/**, when now.hour < 8, was always"],
        [],
    ),
    (
        "methods: [DELETE]}}",
        "methods: [DELETE]}, when: now.hour < 8}",
        ["acme/agent: deny keep: DELETE * /**, when now.hour < 8, was always"],
        [],
        [],
    ),
    ("id: read", "id: look", [], [], ["acme/agent: allow read is now called look"]),
    (
        "tenant: acme",
        "tenant: acme\ncredentials: {ttl: 6m}",
        [],
        [],
        ["acme/agent: credential when none is asked for 6m, was 5m"],
    ),
    (
        "acme.zendesk.com",
        "new.zendesk.com",
        [],
        [],
        ["acme: connection tickets: destination https://new.zendesk.com:443, was https://acme.zendesk.com:443"],
    ),
    (
        "connections:\n",
        "connections:\n  more: {host: more.example}\n",
        ["acme: connection more to https://more.example:443"],
        [],
        [],
    ),
    ("tenant: acme", "tenant: acme\ntimezone: Asia/Tokyo", [], [], ["acme: a day is one of Asia/Tokyo, not of UTC"]),
    ("tenant: acme", "tenant: acme\nroles: {lead: [lea@acme.example]}", [], [], ["acme: roles"]),
    (
        "tenant: acme",
        f"tenant: acme\ndenied_keys: ['sha256:{'0a' * 32}']",
        [],
        [f"acme: no chain over the key sha256:{'0a' * 32}"],
        [],
    ),
    (
        "tenant: acme",
        "tenant: acme\ncredentials: {max_ttl: 2h}",
        ["acme/agent: longest credential 2h, was 1h"],
        [],
        [],
    ),
]


@pytest.mark.parametrize(("old", "new", "opens", "closes", "changes"), CASES, ids=[case[1][:40] for case in CASES])
def test_a_change_opens_closes_or_changes(
    old: str, new: str, opens: list[str], closes: list[str], changes: list[str]
) -> None:
    assert old in BASE
    before, after = policy(BASE), policy(BASE.replace(old, new, 1))
    assert summarise(before, after) == Summary(tuple(opens), tuple(closes), tuple(changes))


@pytest.mark.parametrize(("old", "new", "opens", "closes", "changes"), CASES, ids=[case[1][:40] for case in CASES])
def test_going_back_closes_what_was_opened(
    old: str, new: str, opens: list[str], closes: list[str], changes: list[str]
) -> None:
    before, after = policy(BASE), policy(BASE.replace(old, new, 1))
    back = summarise(after, before)
    assert (len(back.opens), len(back.closes), len(back.changes)) == (len(closes), len(opens), len(changes))


def test_a_condition_that_changed_closes_what_it_was_and_opens_what_it_is() -> None:
    def under(condition: str) -> PolicySet:
        return policy(BASE.replace("path: /api/**}}", f"path: /api/**}}, when: {condition}}}"))

    before, after = under("\"path.x == 'a b'\""), under("\"path.x == 'a  b'\"")
    # Two spaces in a literal are another literal.
    assert summarise(before, after) == Summary(
        ("acme/agent: allow read: GET tickets /api/**, when path.x == 'a  b'",),
        ("acme/agent: no longer allow read: GET tickets /api/**, when path.x == 'a b'",),
        (),
    )
    assert [line.split(":")[0] for line in summarise(before, after).lines] == ["opens", "closes"]
    assert summarise(under("now.hour < 8"), policy(BASE)).opens == (
        "acme/agent: allow read: GET tickets /api/**, was only when now.hour < 8",
    )


TOOLS = """\
exeat: 1
tenant: acme
connections:
  stripe: {service: stripe, host: api.stripe.com, secret: stripe/key}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    rules:
      - {id: refund, allow: stripe.refund.create}
      - {id: look, allow: {tools: ["stripe.*"], effects: [read]}}
"""


def test_what_a_rule_about_tools_means_is_told() -> None:
    narrower = TOOLS.replace("stripe.refund.create", "stripe.refund.cancel").replace("[read]", "[read, write]")
    assert summarise(policy(TOOLS), policy(narrower)) == Summary(
        opens=(
            "acme/agent: allow look: stripe.*; any method * /**, only read, write",
            "acme/agent: allow refund: stripe.refund.cancel; any method * /**",
        ),
        closes=(
            "acme/agent: no longer allow look: stripe.*; any method * /**, only read",
            "acme/agent: no longer allow refund: stripe.refund.create; any method * /**",
        ),
        changes=(),
    )


def test_rules_that_are_only_observed_are_opened_and_closed() -> None:
    observed = TOOLS.replace("    rules:", "    stage: observe\n    until: 2026-12-31\n    rules:")
    longer = observed.replace("12-31", "12-30")
    opened = summarise(policy(TOOLS), policy(observed))
    assert opened == Summary(
        ("acme/agent: stage observe until 2027-01-01T00:00:00+00:00, its rules only tried, was autonomous",), (), ()
    )
    assert [len(part) for part in (summarise(policy(longer), policy(observed)).opens, opened.opens)] == [1, 1]
    assert summarise(policy(observed), policy(longer)).closes
    assert summarise(policy(observed), policy(TOOLS)).closes


def test_a_service_that_is_described_otherwise_is_told_with_its_tools() -> None:
    def described(effect: str) -> PolicySet:
        service = f"""\
catalogue: 1
service: shop
about: https://shop.example/docs
hosts: [api.shop.example]
tools:
  order.list: {{call: GET /orders, effect: read}}
  order.sweep: {{call: POST /sweep, effect: {effect}}}
"""
        text = TOOLS.replace(
            "  stripe: {service: stripe,",
            "  shop: {service: shop, host: api.shop.example}\n  stripe: {service: stripe,",
        )
        return compile_policy(parse_policy({"acme.yaml": text.encode(), "shop.yaml": service.encode()}))

    assert summarise(described("read"), described("delete")) == Summary(
        (), (), ("acme: connection shop: catalogue: shop is described otherwise: shop.order.sweep",)
    )


def test_nothing_that_is_judged_by_is_left_out() -> None:
    """A member that is added to what a policy compiles to has to be told of: this test asks for it by name."""
    assert {field.name for field in fields(Account)} == {
        "tenant", "name", "owners", "stage", "max_ttl_seconds", "default_ttl_seconds", "allow", "deny", "limits",
        "observed_until",
        "reading", "timed", "timed_allow", "by_clock", "conditional", "by_tool",  # these follow from what is above
         "plan",  # follows from its limits and its tenant's
    }  # fmt: skip
    assert {field.name for field in fields(Rule)} == {
        "id", "connection", "methods", "template", "body", "when", "tools", "effects",
        "position", "rank",  # which of several rules is named
    }  # fmt: skip
    assert {field.name for field in fields(Connection)} == {
        "tenant", "name", "scheme", "host", "port", "service", "binding", "dial", "networks", "ca_pem", "ca_added",
        "price_micros", "currency", "book", "max_tokens", "known", "account", "mode",
        "denied_keys", "unsafe_plaintext",  # told of for the tenant; follows from scheme
    }  # fmt: skip
    assert {field.name for field in fields(Limits)} == {"slots", "rates", "spends", "spikes"}
    assert {field.name for field in fields(TenantPolicy)} == {
        "tenant", "digest", "timezone", "roles", "accounts", "connections", "denied_keys", "keep_inputs_seconds",
        "limits", "share_percent", "workflows", "alerts",
        "_destinations",  # follows from connections
    }  # fmt: skip


def test_a_spike_that_stops_is_a_bound_and_one_that_alerts_is_none() -> None:
    def with_spike(over: str, then: str, least: str = "1 USD") -> PolicySet:
        spike = (SPIKE % (over, then)).replace("1 USD", least)
        return policy(BASE.replace("max: 10, per: second}]", spike))

    none, low, high = policy(BASE), with_spike("2x", "stop"), with_spike("5x", "stop")
    five, two = "over 5x, at least 1 USD", "over 2x, at least 1 USD"
    assert summarise(none, high) == Summary((), (f"{STOP} {five}, was none",), ())
    assert summarise(high, none) == Summary((f"{STOP} none, was {five}",), (), ())
    assert summarise(high, low) == Summary((), (f"{STOP} {two}, was {five}",), ())
    assert summarise(low, high) == Summary((f"{STOP} {five}, was {two}",), (), ())
    mixed = with_spike("2x", "stop", "3 USD")
    assert summarise(high, mixed) == Summary((), (), (f"{STOP} over 2x, at least 3 USD, was {five}",))
    assert summarise(none, with_spike("2.5x", "alert")).changes == (f"{TELL} over 2.5x, at least 1 USD, was none",)
    assert summarise(with_spike("5x", "alert"), high) == Summary(
        (), (f"{STOP} {five}, was none",), (f"{TELL} none, was {five}",)
    )


def test_a_share_that_is_raised_opens_and_one_that_is_lowered_closes() -> None:
    quarter, half = (
        policy(BASE.replace("tenant: acme", f"tenant: acme\nlimits: {{when_unavailable: {{local: {share}%}}}}"))
        for share in (25, 50)
    )
    what = "acme: limits while the shared ones are away:"
    assert summarise(quarter, half).opens == (f"{what} granted 50%, was granted 25%",)
    assert summarise(half, quarter).closes == (f"{what} granted 25%, was granted 50%",)
    assert summarise(half, policy(BASE)).closes == (f"{what} refused, was granted 50%",)


def test_an_account_and_a_tenant_that_go_close_as_a_whole() -> None:
    assert summarise(policy(BASE), policy(BASE.replace("  agent:", "  other:"))).closes == (
        "acme/agent: account removed, all of it",
    )
    assert summarise(policy(BASE), policy(BASE.replace("tenant: acme", "tenant: globex"))).closes == (
        "acme: tenant removed, all of it",
    )


def test_an_authority_beside_the_public_ones_is_told_from_one_instead_of_them(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(Authority().pem)
    said: list[str] = []
    for key in ("ca", "extra_ca"):
        (tmp_path / "acme.yaml").write_text(
            BASE.replace("secret: zendesk/prod", f"secret: zendesk/prod, {key}: ca.pem")
        )
        (change,) = summarise(policy(BASE), compile_policy(load_policy(tmp_path))).changes
        said.append(change)
    fingerprint = said[0].removeprefix("acme: connection tickets: authority ").removesuffix(", was public ones")
    assert fingerprint.startswith("sha256:")
    assert said[1] == f"acme: connection tickets: authority public ones and {fingerprint}, was public ones"
