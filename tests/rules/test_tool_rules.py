"""Rules about tools: what they match, what they do where a tool cannot be told, and that nothing opens by accident."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.codes import Code
from rules.content.content import Content
from rules.decide import decide
from rules.decision import Allowed, Decision, Denied
from rules.guards import GUARDS
from rules.inputs import Body, DecisionInputs, decide_again
from rules.matching import judged_by_body
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.trial import judge, understood

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HEAD = """\
exeat: 1
tenant: acme
connections:
  shop: {host: shop.example, service: shop}
  stripe: {host: api.stripe.com}
  helper: {host: mcp.example, service: mcp}
  nowhere: {host: nowhere.example}
  code: {host: api.github.com, account: acme}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
"""
SHOP = """\
catalogue: 1
service: shop
hosts: [shop.example]
graphql: [/graphql]
tools:
  order.read: {call: "GET /orders/{order}", effect: read}
  order.create:
    {call: POST /orders, effect: write, amount: args.total, currency: args.currency, recipients: "[args.to]"}
  order.cancel: {call: POST /orders/change, where: "args.action == 'cancel'", effect: delete, undo: never}
  order.change: {call: POST /orders/change, effect: write}
  order.drop: {call: mutation dropOrder, effect: delete}
  many: {call: POST /many, effect: write, batch: true}
"""
HOSTS = {"shop": "shop.example", "stripe": "api.stripe.com", "helper": "mcp.example", "nowhere": "nowhere.example"}
HOSTS["code"] = "api.github.com"


@cache
def policy(*rules: str, rest: str = "") -> PolicySet:
    lines = "    rules:\n" + "".join(f"      - {rule}\n" for rule in rules) if rules else ""
    return compile_policy(parse_policy({"acme.yaml": (HEAD + rest + lines).encode(), "shop.yaml": SHOP.encode()}))


def call_to(connection: str, method: str, path: str, query: str = "") -> Call:
    principal = Principal("acme", "agent", "w", "r", "j", 0, 0, 0)
    return Call("c_1", principal, "https", HOSTS[connection], 443, method, path, query)


def ask(
    rules: tuple[str, ...],
    call: str,
    body: object = None,
    *,
    rest: str = "",
    raw: bytes | None = None,
    kind: bytes = b"application/json",
    at: datetime = NOW,
) -> Decision:
    method, connection, target = call.split(" ", 2)
    path, _, query = target.partition("?")
    active = policy(*rules, rest=rest).tenants["acme"]
    asked = call_to(connection, method, path, query)
    data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    return judge(asked, Facts(active, active.connections[connection], at), (kind,) if data else (), data).decision


def says(decision: Decision) -> str:
    if isinstance(decision, Allowed):
        return f"allow {decision.rules[0]}"
    return str(decision.reasons[0].code)


ORDER = {"total": 500, "currency": "eur", "to": "ana"}
CANCEL = {"action": "cancel"}


@pytest.mark.parametrize(
    ("rule", "call", "body", "came"),
    [
        ("{id: r, allow: shop.order.read}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: shop.order.read}", "GET shop /orders", None, "not_allowed"),
        ("{id: r, allow: shop.order.read}", "POST shop /orders", ORDER, "not_allowed"),
        ("{id: r, allow: [shop.order.read, shop.order.create]}", "POST shop /orders", ORDER, "allow r"),
        ("{id: r, allow: shop.order.*}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: shop.order.*}", "GET shop /else", None, "not_allowed"),
        # A beginning means what is known; what is not goes by its own name.
        ("{id: r, allow: shop.*}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: '*'}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: {connection: shop, effects: [read, write, delete]}}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: [shop.*, shop.unknown]}", "GET shop /else", None, "allow r"),
        ("{id: r, allow: {connection: shop, path: /**}}", "GET shop /else", None, "allow r"),
        ("{id: r, allow: '*'}", "GET nowhere /else", None, "allow r"),
        ("{id: r, allow: shop.*}", "GET stripe /v1/refunds", None, "not_allowed"),
        ("{id: r, allow: {tools: [shop.order.read], connection: shop}}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: {tools: [shop.order.read], methods: [POST]}}", "GET shop /orders/7", None, "not_allowed"),
        ("{id: r, allow: {tools: [shop.*], path: /orders/**}}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: {tools: [shop.*], path: /orders/**}}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: {connection: '*', effects: [read]}}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: {connection: '*', effects: [read]}}", "POST shop /orders", ORDER, "not_allowed"),
        # What is not known is a write, whatever its method says.
        ("{id: r, allow: {connection: '*', effects: [read]}}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: {connection: '*', effects: [read]}}", "GET nowhere /x", None, "not_allowed"),
        ("{id: r, allow: {connection: '*', effects: [write]}}", "GET nowhere /x", None, "allow r"),
        ("{id: r, allow: {connection: '*', effects: [write]}}", "DELETE shop /else", None, "not_allowed"),
        ("{id: r, allow: shop.unknown}", "GET shop /else", None, "allow r"),
        # The body tells which of two tools it is.
        ("{id: r, allow: shop.order.change}", "POST shop /orders/change", {"action": "move"}, "allow r"),
        ("{id: r, allow: shop.order.change}", "POST shop /orders/change", CANCEL, "not_allowed"),
        ("{id: r, allow: shop.order.cancel}", "POST shop /orders/change", CANCEL, "allow r"),
        ("{id: r, allow: shop.order.change}", "POST shop /orders/change", {}, "not_allowed"),
        ("{id: r, allow: shop.order.change}", "POST shop /orders/change", [CANCEL], "not_allowed"),
        ("{id: r, allow: shop.order.change}", "POST shop /orders/change?action=move", CANCEL, "not_allowed"),
        ("{id: r, allow: {connection: '*', effects: [write]}}", "POST shop /orders/change", CANCEL, "not_allowed"),
        # Conditions.
        ("{id: r, allow: shop.order.create, when: amount <= eur(5)}", "POST shop /orders", ORDER, "allow r"),
        ("{id: r, allow: shop.order.create, when: amount <= eur(4.99)}", "POST shop /orders", ORDER, "not_allowed"),
        ("{id: r, allow: shop.order.create, when: amount <= usd(5)}", "POST shop /orders", ORDER, "condition_failed"),
        (
            "{id: r, allow: shop.order.create, when: amount <= usd(5) || amount <= eur(5)}",
            "POST shop /orders",
            ORDER,
            "allow r",
        ),
        ("{id: r, allow: shop.order.create, when: amount <= eur(5)}", "POST shop /orders", {}, "amount_unknown"),
        (
            "{id: r, allow: shop.order.create, when: amount <= eur(5)}",
            "POST shop /orders",
            {**ORDER, "total": -1},
            "amount_unknown",
        ),
        (
            "{id: r, allow: shop.order.create, when: amount <= eur(5)}",
            "POST shop /orders",
            {**ORDER, "currency": "xxx"},
            "amount_unknown",
        ),
        ("{id: r, allow: shop.order.create, when: currency == 'EUR'}", "POST shop /orders", ORDER, "allow r"),
        ("{id: r, allow: shop.order.create, when: \"recipients == ['ana']\"}", "POST shop /orders", ORDER, "allow r"),
        ("{id: r, allow: shop.order.read, when: args.order == '7'}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: shop.order.read, when: args.order == '7'}", "GET shop /orders/8", None, "not_allowed"),
        (
            "{id: r, allow: shop.order.read, when: args.order == '7'}",
            "GET shop /orders/7?order=8",
            None,
            "condition_failed",
        ),
        ("{id: r, allow: shop.*, when: effect == 'read'}", "GET shop /orders/7", None, "allow r"),
        ("{id: r, allow: shop.*, when: effect == 'read'}", "POST shop /orders", ORDER, "not_allowed"),
        ("{id: r, allow: shop.*, when: tool.startsWith('shop.order.')}", "GET shop /else", None, "not_allowed"),
        ("{id: r, allow: shop.unknown, when: stage == 'autonomous'}", "GET shop /else", None, "allow r"),
        # What carries others is nobody's.
        ("{id: r, allow: {connection: '*', path: /**}}", "POST shop /many", None, "batch_refused"),
        ("{id: r, allow: shop.many}", "POST shop /many", {}, "batch_refused"),
    ],
)
def test_what_an_allow_rule_about_tools_lets_out(rule: str, call: str, body: object, came: str) -> None:
    assert says(ask((rule,), call, body)) == came


ALL = "{id: all, allow: {connection: '*', path: /**}}"


@pytest.mark.parametrize(
    ("rule", "call", "body", "came"),
    [
        ("{id: r, deny: shop.order.read}", "GET shop /orders/7", None, "rule_denied"),
        ("{id: r, deny: shop.order.read}", "GET shop /orders", None, "allow all"),
        ("{id: r, deny: shop.order.*}", "POST shop /orders", ORDER, "rule_denied"),
        ("{id: r, deny: shop.order.cancel}", "POST shop /orders/change", CANCEL, "rule_denied"),
        ("{id: r, deny: shop.order.cancel}", "POST shop /orders/change", {"action": "move"}, "allow all"),
        # Not to be told which: it is nobody's, and a rule about all of the service meets it.
        ("{id: r, deny: shop.*}", "POST shop /orders/change", [1], "rule_denied"),
        ("{id: r, deny: {effects: [delete]}}", "POST shop /orders/change", CANCEL, "rule_denied"),
        ("{id: r, deny: {effects: [delete]}}", "DELETE shop /else", None, "rule_denied"),
        ("{id: r, deny: {effects: [write]}}", "POST shop /orders/change", CANCEL, "rule_denied"),
        ("{id: r, deny: {effects: [write]}}", "GET nowhere /x", None, "rule_denied"),
        ("{id: r, deny: {effects: [write]}}", "GET shop /orders/7", None, "allow all"),
        ("{id: r, deny: shop.order.create, when: amount > eur(5)}", "POST shop /orders", ORDER, "allow all"),
        ("{id: r, deny: shop.order.create, when: amount > eur(4)}", "POST shop /orders", ORDER, "rule_denied"),
        ("{id: r, deny: shop.order.create, when: amount > eur(4)}", "POST shop /orders", {}, "amount_unknown"),
        ("{id: r, deny: shop.order.create, when: amount > usd(4)}", "POST shop /orders", ORDER, "condition_failed"),
    ],
)
def test_what_a_deny_rule_about_tools_keeps_in(rule: str, call: str, body: object, came: str) -> None:
    assert says(ask((ALL, rule), call, body)) == came


def graphql(query: str, **variables: object) -> dict[str, object]:
    return {"query": query, "variables": variables}


@pytest.mark.parametrize(
    ("rules", "query", "came"),
    [
        (("{id: r, allow: shop.query.orders}",), "{ orders }", "allow r"),
        (("{id: r, allow: shop.query.orders}",), "{ a: orders b: users }", "not_allowed"),
        (("{id: r, allow: [shop.query.orders, shop.query.users]}",), "{ a: orders b: users }", "allow r"),
        (("{id: r, allow: shop.query.*}",), "{ a: orders b: users }", "allow r"),
        (("{id: r, allow: shop.query.*}",), "query A { a } mutation B { b }", "not_allowed"),
        (("{id: r, allow: shop.query.*}",), "{ ...f } fragment f on Query { orders }", "allow r"),
        (("{id: r, allow: {connection: shop, effects: [read]}}",), "mutation { dropOrder }", "not_allowed"),
        (("{id: r, allow: {connection: shop, effects: [read]}}",), "{ orders }", "allow r"),
        ((ALL, "{id: d, deny: {effects: [delete]}}"), "mutation { x: addOrder dropOrder }", "rule_denied"),
        ((ALL, "{id: d, deny: {effects: [delete]}}"), "mutation { addOrder }", "allow all"),
        (("{id: r, allow: shop.mutation.addOrder, when: args.n < 3}",), "mutation { addOrder(n: 2) }", "allow r"),
        (("{id: r, allow: shop.mutation.addOrder, when: args.n < 3}",), "mutation { addOrder(n: 4) }", "not_allowed"),
        (
            ("{id: r, allow: shop.mutation.addOrder, when: args.n < 3}",),
            "mutation { addOrder(n: 2) b: addOrder(n: 4) }",
            "not_allowed",
        ),
        (("{id: r, allow: shop.*}",), "{ orders ", "content_refused"),
        (("{id: r, allow: shop.*}",), "", "content_refused"),
    ],
)
def test_each_field_of_a_graphql_document_has_to_be_allowed(rules: tuple[str, ...], query: str, came: str) -> None:
    assert says(ask(rules, "POST shop /graphql", graphql(query))) == came


ids = count(1)


def rpc(method: str, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": next(ids), "method": method, "params": params}


def tool(name: str, **arguments: object) -> dict[str, object]:
    return rpc("tools/call", name=name, arguments=arguments)


ECHO = "{id: r, allow: mcp.helper.echo}"


@pytest.mark.parametrize(
    ("rules", "message", "came"),
    [
        ((ECHO,), tool("echo", text="x"), "allow r"),
        ((ECHO,), tool("add"), "not_allowed"),
        ((ECHO,), [tool("echo"), tool("add")], "not_allowed"),
        ((ECHO,), [tool("echo"), tool("echo")], "allow r"),
        ((ECHO,), rpc("initialize"), "allow r"),
        ((ECHO,), rpc("tools/list"), "allow r"),
        ((ECHO,), {"jsonrpc": "2.0", "method": "notifications/initialized"}, "allow r"),
        ((ECHO,), {"jsonrpc": "2.0", "id": 1, "result": {}}, "allow r"),
        ((ECHO,), rpc("resources/read", uri="file:///etc/passwd"), "not_allowed"),
        ((ECHO,), rpc("something/new"), "not_allowed"),
        (("{id: r, allow: mcp.helper/resources/read}",), rpc("resources/read", uri="x"), "allow r"),
        (("{id: r, allow: mcp.helper.*}",), tool("whatever"), "allow r"),
        (("{id: r, allow: mcp.helper.*}",), rpc("resources/read"), "not_allowed"),
        (("{id: r, allow: {connection: helper, effects: [read]}}",), tool("echo"), "not_allowed"),
        (("{id: r, allow: {connection: helper, effects: [read]}}",), rpc("resources/read"), "allow r"),
        (("{id: r, allow: mcp.helper.add, when: args.a < 3}",), tool("add", a=2), "allow r"),
        (("{id: r, allow: mcp.helper.add, when: args.a < 3}",), tool("add", a=3), "not_allowed"),
        (("{id: r, allow: mcp.helper.add, when: args.a < 3}",), tool("add"), "condition_failed"),
        (("{id: r, allow: mcp.helper.add, when: args.a < 3}",), rpc("initialize"), "allow r"),
        ((ALL, "{id: d, deny: mcp.helper.add}"), tool("add"), "rule_denied"),
        ((ALL, "{id: d, deny: mcp.helper.add}"), [tool("echo"), tool("add")], "rule_denied"),
        ((ALL, "{id: d, deny: mcp.helper.add}"), tool("echo"), "allow all"),
        ((ALL, "{id: d, deny: mcp.helper.add}"), rpc("initialize"), "allow all"),
        ((ALL, "{id: d, deny: mcp.helper.add}"), {"method": "tools/call"}, "content_refused"),
        ((ALL, "{id: d, deny: '*'}"), rpc("initialize"), "rule_denied"),
        ((ECHO,), {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 7}}, "not_allowed"),
        (("{id: r, allow: shop.*}",), rpc("initialize"), "not_allowed"),
    ],
)
def test_each_message_to_a_server_of_tools_has_to_be_allowed(
    rules: tuple[str, ...], message: object, came: str
) -> None:
    assert says(ask(rules, "POST helper /mcp", message)) == came


@pytest.mark.parametrize(
    "params",
    [{"Name": "add", "arguments": {}}, {"NAME": "add"}, {"name": "echo", "Arguments": {"a": 9}}, {"URI": "file:///x"}],
)
def test_what_a_server_may_read_as_the_name_or_the_arguments_of_a_tool_is_refused(params: dict[str, object]) -> None:
    rules = ("{id: r, allow: mcp.helper.*}", "{id: d, deny: mcp.helper.add}", "{id: e, deny: '*', when: has(args.a)}")
    assert says(ask(rules, "POST helper /mcp", rpc("tools/call", **params))) == "content_refused"
    assert says(ask(rules, "POST helper /mcp", tool("echo", Name="x", b=1))) == "allow r"


@pytest.mark.parametrize("call", ["GET helper /mcp", "DELETE helper /mcp", "POST helper /mcp"])
def test_a_session_is_kept_only_where_a_rule_lets_a_tool_be_called(call: str) -> None:
    body = rpc("ping") if call.startswith("POST") else None
    for place in ("path: /mcp", "path: /**", "connection: helper"):
        rule = f"{{id: r, allow: {{tools: [mcp.helper.echo], {place}}}}}"
        assert says(ask((rule,), call, body)) == "allow r"
        for elsewhere in ("/api/users/5", "/", "/mcp/", "/mcp/x", "/MCP"):
            assert says(ask((rule,), call.replace("/mcp", elsewhere), body)) == "not_allowed"
    other = "{id: r, allow: {tools: [mcp.helper.echo], methods: [PATCH]}}"
    assert says(ask((other,), call, body)) == "not_allowed"


def test_beside_its_endpoint_a_server_of_tools_is_plain_http() -> None:
    place = "{id: api, allow: {connection: helper, path: /api/**}}"
    for call, body in (
        ("POST helper /api/x", tool("echo")),
        ("POST helper /api/x", {"note": 1}),
        ("GET helper /api", None),
    ):
        assert says(ask((ECHO,), call, body)) == "not_allowed"
        assert says(ask((ECHO, place), call, body)) == "allow api"
    assert says(ask((place, "{id: d, deny: mcp.helper.*}"), "GET helper /api/x")) == "rule_denied"
    # What may be served as the endpoint is judged as it is, too.
    everywhere = "{id: all, allow: {connection: helper, path: /**}}"
    assert says(ask((everywhere, "{id: d, deny: mcp.helper.add}"), "POST helper /mcp/", tool("add"))) == "rule_denied"


@pytest.mark.parametrize("endpoint", ["/", "/v1/tools", "/mcp/"])
def test_an_endpoint_is_where_the_connection_says(endpoint: str) -> None:
    head = HEAD.replace("service: mcp}", f"service: mcp, endpoint: {endpoint}}}")
    rules = f"    rules:\n      - {ECHO}\n"
    active = compile_policy(parse_policy({"acme.yaml": (head + rules).encode(), "shop.yaml": SHOP.encode()}))
    tenant = active.tenants["acme"]
    for path, came in ((endpoint, "allow r"), ("/mcp", "not_allowed")):
        call = call_to("helper", "POST", path)
        body = json.dumps(tool("echo")).encode()
        facts = Facts(tenant, tenant.connections["helper"], NOW)
        assert says(judge(call, facts, (b"application/json",), body).decision) == came


def test_a_handshake_that_is_denied_is_denied_beside_any_number_of_other_rules() -> None:
    others = tuple(f"{{id: d{number}, deny: mcp.helper.t{number}}}" for number in range(20))
    rules = (ALL, *others, "{id: first, deny: mcp.helper.a}", "{id: d, deny: mcp.helper/initialize}")
    assert says(ask(rules, "POST helper /mcp", rpc("initialize"))) == "rule_denied"
    assert says(ask(rules, "POST helper /mcp", rpc("ping"))) == "allow all"


@pytest.mark.parametrize("query", ["?total=1", "?total=1&currency=eur", "?action=move"])
def test_what_stands_in_the_query_alone_of_a_method_with_a_body_is_not_told(query: str) -> None:
    rule = '{id: r, allow: shop.*, when: "!has(args.total) || int(args.total) <= 1"}'
    assert says(ask((rule,), f"POST shop /orders{query}")) == "condition_failed"
    assert says(ask((ALL, "{id: d, deny: shop.order.create, when: has(args.to)}"), f"POST shop /orders{query}")) == (
        "condition_failed"
    )
    assert says(ask((rule,), f"GET shop /orders/7{query}")) == "allow r"
    assert says(ask((rule,), "POST shop /orders")) == "allow r"


@pytest.mark.parametrize(
    ("denied", "call", "body"),
    [
        ("shop.order.read", "HEAD shop /orders/7", None),
        ("shop.order.read", "HEAD shop /orders/7/", None),
        ("shop.order.create", "POST shop /orders/", ORDER),
        ("shop.order.cancel", "POST shop /orders/change/", CANCEL),
        ("shop.order.drop", "POST shop /graphql/", graphql("mutation { dropOrder }")),
    ],
)
def test_what_a_service_may_take_for_a_tool_is_denied_with_it_and_allowed_only_as_unknown(
    denied: str, call: str, body: object
) -> None:
    every = "{id: a, allow: [shop.*, shop.unknown]}"
    assert says(ask((every,), call, body)) == "allow a"
    assert says(ask(("{id: a, allow: shop.*}",), call, body)) == "not_allowed"
    assert says(ask((every, f"{{id: d, deny: {denied}}}"), call, body)) == "rule_denied"
    assert says(ask((f"{{id: a, allow: {denied}}}",), call, body)) == "not_allowed"
    delete = "{id: d, deny: {effects: [delete]}}"
    came = "rule_denied" if denied in {"shop.order.cancel", "shop.order.drop"} else "allow a"
    assert says(ask((every, delete), call, body)) == came


ALIASES = (
    "/v1/Refunds", "/V1/refunds", "/v1/refunds;x", "/v1/refunds;/", "/v1;a=b/refunds", "/v2/refunds", "/v1.1/refunds",
    "/v1/refunds/", "/v1/refunds.json", "/v1/REFUNDS.XML", "/v1/refunds%20", "/v1/refunds.", "/v1/r%45funds",
    "/v1/refund%C5%BF",
)  # fmt: skip


@pytest.mark.parametrize("path", ALIASES)
@pytest.mark.parametrize("body", [{"amount": 1}, None])
def test_an_alias_of_a_denied_tool_is_let_out_by_no_wildcard_and_denied_beside_any_rule(
    path: str, body: object
) -> None:
    call = f"POST stripe {path}"
    for wild in ("stripe.*", "'*'", "{connection: stripe, effects: [write]}", "{tools: [stripe.*], path: /**}"):
        assert says(ask((f"{{id: a, allow: {wild}}}",), call, body)) == "not_allowed"
    for open_ in ("[stripe.*, stripe.unknown]", "{connection: stripe, path: /**}"):
        assert says(ask((f"{{id: a, allow: {open_}}}",), call, body)) == "allow a"
        denied = (f"{{id: a, allow: {open_}}}", "{id: d, deny: stripe.refund.create}")
        assert says(ask(denied, call, body)) == "rule_denied"
        # With which arguments it would be that tool, nobody knows; but for a slash, which changes none.
        denied = (f"{{id: a, allow: {open_}}}", "{id: d, deny: stripe.refund.create, when: args.amount > 5}")
        told = body is not None and path == "/v1/refunds/"
        assert says(ask(denied, call, body)) == ("allow a" if told else "condition_failed")


@pytest.mark.parametrize("body", [{"Amount": 1, "charge": "ch_1"}, {"amount": 1.5}, {"Charge": "ch_1"}])
def test_an_argument_in_other_capitals_or_with_a_fraction_opens_nothing(body: object) -> None:
    call = "POST stripe /v1/refunds"
    full = (
        '{id: a, allow: stripe.refund.create, when: "!has(args.charge) && (!has(args.amount) || int(args.amount) < 2)"}'
    )
    assert says(ask((full,), call, {})) == "allow a"
    assert says(ask((full,), call, body)) == "condition_failed"
    money = ("{id: a, allow: stripe.refund.create, when: amount <= usd(5)}",)
    assert says(ask(money, call, body)) == "amount_unknown"
    denied = (ALL, "{id: d, deny: stripe.refund.create, when: has(args.charge) || int(args.amount) > 5}")
    assert says(ask(denied, call, body)) == "condition_failed"


@pytest.mark.parametrize("kind", [b"application/x-www-form-urlencoded", b"application/json"])
def test_a_form_is_no_json_rpc(kind: bytes) -> None:
    form = b"jsonrpc=2.0&id=1&method=tools%2Fcall&params[name]=echo&params[arguments][text]=x"
    raw = form if kind.endswith(b"encoded") else json.dumps(tool("echo", text="x")).encode()
    came = "content_refused" if kind.endswith(b"encoded") else "allow r"
    assert says(ask((ECHO,), "POST helper /mcp", raw=raw, kind=kind)) == came


def test_a_known_tool_that_a_server_may_take_for_another_is_both() -> None:
    call = "GET stripe /v1/charges/Search"
    assert says(ask(("{id: a, allow: stripe.charge.get}",), "GET stripe /v1/charges/ch_1Ab")) == "allow a"
    assert says(ask(("{id: a, allow: stripe.charge.get}",), call)) == "not_allowed"
    assert says(ask(("{id: a, allow: stripe.charge.*}",), call)) == "allow a"
    assert says(ask(("{id: a, allow: stripe.charge.*}", "{id: d, deny: stripe.charge.search}"), call)) == "rule_denied"
    assert says(ask((ALL, "{id: d, deny: mcp.helper.add}"), "POST helper /MCP;x", tool("add"))) == ("rule_denied")
    drop = graphql("mutation { dropOrder }")
    assert says(ask((ALL, "{id: d, deny: shop.order.drop}"), "POST shop /GraphQL", drop)) == "rule_denied"


@pytest.mark.parametrize("allow", [ALL, "{id: all, allow: [shop.*, shop.unknown]}"])
@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("POST shop /orders/change?x=1", CANCEL),
        ("POST shop /orders/change?action=move", CANCEL),
        ("POST shop /orders/change?action=cancel", None),
        ("POST shop /orders/change", [CANCEL]),
        ("POST shop /orders/change", {}),
    ],
)
def test_what_may_be_a_denied_tool_is_denied(allow: str, call: str, body: object) -> None:
    assert says(ask((allow,), call, body)) == "allow all"
    assert says(ask((allow, "{id: d, deny: shop.order.cancel}"), call, body)) == "rule_denied"
    assert says(ask((allow, "{id: d, deny: shop.order.change}"), call, body)) == "rule_denied"
    assert says(ask((allow, "{id: d, deny: shop.order.create}"), call, body)) == "allow all"


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE"])
def test_graphql_by_another_method_is_refused(method: str) -> None:
    rules = ("{id: a, allow: shop.*}", "{id: d, deny: shop.order.drop}")
    assert says(ask(rules, f"{method} shop /graphql?query=mutation{{dropOrder}}")) == "content_refused"
    assert says(ask(("{id: a, allow: {connection: shop, path: /**}}",), f"{method} shop /graphql")) == "allow a"


@pytest.mark.parametrize(
    ("call", "body", "came"),
    [
        ("GET code /repos/acme/x", None, "allow all"),
        ("GET code /repos/ACME/x", None, "allow all"),
        ("GET code /repos/other/x", None, "account_mismatch"),
        ("GET code /user?owner=acme", None, "account_mismatch"),
        # From there to its collaborators, and to whatever they own.
        (
            "POST code /graphql",
            graphql('{ repository(owner: "acme") { owner { id } } }'),
            "account_mismatch",
        ),
        ("POST code /graphql", graphql('mutation { deleteIssue(owner: "acme") { id } }'), "account_mismatch"),
    ],
)
def test_a_connection_is_bound_by_the_path_alone(call: str, body: object, came: str) -> None:
    assert says(ask((ALL,), call, body)) == came


def test_a_request_of_graphql_in_the_query_has_no_body_that_could_say_more() -> None:
    rules = (ALL, "{id: d, deny: shop.query.a, when: has(args.y) && args.y == 7}")
    call = "GET shop /graphql?query=query($v:Int){a(y:$v)}"
    assert says(ask(rules, call)) == "allow all"
    assert says(ask(rules, call, {"variables": {"v": 7}})) == "content_refused"


@pytest.mark.parametrize("currency", ["u\u017fd", "\u0131nr", "eur ", "\uff45ur"])
def test_a_currency_is_three_letters_of_ascii(currency: str) -> None:
    rule = "{id: r, allow: shop.order.create, when: amount <= usd(5) || amount <= inr(5) || amount <= eur(5)}"
    assert says(ask((rule,), "POST shop /orders", {**ORDER, "currency": currency})) == "amount_unknown"


def test_a_body_is_asked_for_only_where_it_can_matter() -> None:
    def wanted(rules: tuple[str, ...], call: str, rest: str = "") -> bool:
        method, connection, path = call.split(" ")
        active = policy(*rules, rest=rest).tenants["acme"]
        asked = Call(
            "c", Principal("acme", "agent", "w", "r", "j", 0, 0, 0), "https", HOSTS[connection], 443, method, path, ""
        )

        return judged_by_body(asked, understood(asked, Facts(active, active.connections[connection], NOW)))

    assert not wanted((ALL,), "POST shop /orders/change")
    assert not wanted((ALL,), "POST helper /mcp")
    assert wanted(("{id: r, allow: shop.order.change}",), "POST shop /orders/change")
    assert not wanted(("{id: r, allow: shop.order.create}",), "POST shop /orders")
    assert wanted(("{id: r, allow: shop.order.create, when: amount < eur(1)}",), "POST shop /orders")
    assert wanted((ALL, "{id: d, deny: mcp.helper.add}"), "POST helper /mcp")
    assert not wanted((ALL, "{id: d, deny: mcp.helper.add}"), "POST shop /orders/change")
    assert not wanted(("{id: r, allow: stripe.*}", "{id: d, deny: shop.order.cancel}"), "POST shop /orders/change")
    assert not wanted((ECHO, "{id: d, deny: {connection: helper}}"), "POST helper /mcp")
    # In stage observe the call leaves, so which tool it is has to be known; where it is known, nothing more is asked.
    assert wanted((), "POST helper /mcp", OBSERVE)
    assert wanted((), "POST shop /orders/change", OBSERVE)
    assert not wanted((), "POST shop /orders", OBSERVE)
    assert not wanted((), "POST helper /mcp", OBSERVE.replace("25", "24"))


OBSERVE = "    stage: observe\n    until: 2026-11-25\n"


def test_stage_observe_lets_out_what_the_rules_deny_and_says_why() -> None:
    decision = ask((ECHO,), "GET shop /orders/7", rest=OBSERVE)
    assert isinstance(decision, Allowed)
    assert decision.rules == ("stage:observe",)
    assert [reason.code for reason in decision.observed] == [Code.NOT_ALLOWED]
    decision = ask((ALL, "{id: d, deny: shop.order.read}"), "GET shop /orders/7", rest=OBSERVE)
    assert isinstance(decision, Allowed)
    assert decision.rules == ("all",)
    assert [(reason.code, reason.rule) for reason in decision.observed] == [(Code.RULE_DENIED, "d")]
    decision = ask((ALL,), "GET shop /orders/7", rest=OBSERVE)
    assert isinstance(decision, Allowed)
    assert decision.observed == ()
    decision = ask((ECHO,), "POST helper /mcp", raw=b'{"jsonrpc": 2}', rest=OBSERVE)
    assert isinstance(decision, Allowed)
    assert decision.observed[0].code == Code.CONTENT_REFUSED


def test_stage_observe_ends_and_never_opens_what_is_not_the_rules() -> None:
    late = datetime(2026, 11, 26, tzinfo=UTC)
    assert isinstance(ask((ECHO,), "GET shop /orders/7", rest=OBSERVE, at=late - timedelta(seconds=1)), Allowed)
    assert says(ask((ECHO,), "GET shop /orders/7", rest=OBSERVE, at=late)) == "not_allowed"
    assert says(ask((ECHO,), "POST shop /many", rest=OBSERVE)) == "batch_refused"
    assert says(ask((ECHO,), "GET shop //orders", rest=OBSERVE)) == "ambiguous_target"
    active = policy(ECHO, rest=OBSERVE).tenants["acme"]
    call = Call("c", Principal("acme", "agent", "w", "r", "j", 0, 0, 0), "https", "other.example", 443, "GET", "/", "")
    assert says(decide(call, Facts(active, None, NOW))) == "destination_unknown"


verbs = st.sampled_from(["allow", "deny"])
targets = st.sampled_from(
    [
        "shop.order.read", "shop.order.*", "shop.*", "'*'", "mcp.helper.echo", "mcp.helper.*", "[shop.order.cancel]",
        "{connection: shop, effects: [read]}", "{connection: '*', effects: [write, delete]}",
        "{connection: shop, path: /orders/**}", "{tools: [shop.*], effects: [delete]}", "{connection: '*', path: /**}",
    ]
)  # fmt: skip
conditions = st.sampled_from(
    ["", ", when: effect == 'read'", ", when: args.a == 1", ", when: amount <= eur(5)", ", when: body.x == 1"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "x", "action", "query", "method", "jsonrpc"]), v, max_size=3)
    ),
    max_leaves=6,
)
kinds = st.sampled_from(
    [b"application/json", b"application/x-www-form-urlencoded", b"text/plain", b"multipart/form-data; boundary=x"]
)
rules = st.lists(st.tuples(verbs, targets, conditions), max_size=6)
requests = st.tuples(
    st.sampled_from(
        [
            "GET shop /orders/7", "POST shop /orders", "POST shop /orders/change", "POST shop /graphql", "GET shop /x",
            "POST helper /mcp", "GET helper /mcp", "DELETE nowhere /x", "POST shop /many",
            "GET shop /graphql?query={a}",
        ]
    ),
    st.one_of(
        st.none(),
        st.sampled_from([ORDER, CANCEL, {"a": 1}, tool("echo"), [tool("add"), tool("echo")], graphql("{ a }"), [], 1]),
        values,
    ),
)  # fmt: skip


def written(given: list[tuple[str, str, str]]) -> tuple[str, ...]:
    return tuple(f"{{id: r{i}, {verb}: {target}{when}}}" for i, (verb, target, when) in enumerate(given))


@given(rules, st.tuples(st.just("deny"), targets, conditions), requests)
def test_adding_a_deny_never_allows(
    had: list[tuple[str, str, str]], added: tuple[str, str, str], request: tuple[str, object]
) -> None:
    if isinstance(ask(written(had), *request), Denied):
        assert isinstance(ask(written([*had, added]), *request), Denied)


@given(rules, requests, st.permutations(GUARDS))
def test_no_order_of_guards_changes_a_decision(
    had: list[tuple[str, str, str]], request: tuple[str, object], order: list[object]
) -> None:
    method, connection, target = request[0].split(" ", 2)
    path, _, query = target.partition("?")
    active = policy(*written(had)).tenants["acme"]
    call = Call(
        "c", Principal("acme", "agent", "w", "r", "j", 0, 0, 0), "https", HOSTS[connection], 443, method, path, query
    )
    data = b"" if request[1] is None else json.dumps(request[1]).encode()
    trial = judge(
        call, Facts(active, active.connections[connection], NOW), (b"application/json",) if data else (), data
    )
    again = decide(call, trial.facts, tuple(order))  # type: ignore[arg-type]
    assert type(again) is type(trial.decision)
    assert decide(call, trial.facts) == trial.decision
    # An evaluation error never allows: with everything a rule could ask for gone, what was denied stays denied.
    blind = replace(
        trial.facts,
        content=None,
        found=None,
        actions=tuple(replace(a, args=None, _told={}) for a in trial.facts.actions),
    )
    if isinstance(trial.decision, Denied) and not any("when" in rule for rule in written(had)):
        assert isinstance(decide(call, blind), Denied)


@given(
    rules,
    requests,
    st.binary(max_size=60),
    st.sampled_from(
        [b"application/json", b"application/x-www-form-urlencoded", b"text/plain", b"multipart/form-data; boundary=x"]
    ),
)
def test_any_bytes_give_a_class_or_a_refusal(
    had: list[tuple[str, str, str]], request: tuple[str, object], raw: bytes, kind: bytes
) -> None:
    decision = ask(written(had), request[0], raw=raw, kind=kind)
    assert isinstance(decision, Allowed | Denied)
    if isinstance(decision, Denied):
        assert Code.GUARD_FAILED not in {reason.code for reason in decision.reasons}


@pytest.mark.parametrize("kind", [b"application/x-www-form-urlencoded", b"application/json"])
def test_a_replay_tells_a_form_from_json(kind: bytes) -> None:
    active = policy(ECHO).tenants["acme"]
    call = call_to("helper", "POST", "/mcp")
    facts = Facts(active, active.connections["helper"], NOW, Content(tool("echo", text="x"), form=b"form" in kind))
    kept = DecisionInputs.from_bytes(DecisionInputs.of(call, facts, (kind,), Body.READ).to_bytes())
    decision = decide_again(kept, active)
    assert decision is not None
    assert says(decision) == ("content_refused" if b"form" in kind else "allow r")
