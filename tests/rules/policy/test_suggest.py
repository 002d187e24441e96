"""What is suggested allows what was seen and nothing else, is valid, and has no more of a call than it needs."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.principal import Principal
from rules.call import Call, Facts
from rules.content.content import Content, read_content
from rules.decision import Allowed
from rules.inputs import Body, DecisionInputs, decide_again
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.policy.seen_paths import SeenPaths, is_identifier
from rules.policy.suggest import Observed, Seen, Suggestion, suggest
from rules.policy.suggestion_text import fragment
from rules.policy.templates import PARAMETER

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HEAD = """\
exeat: 1
tenant: acme
connections:
  shop: {host: shop.example, service: shop}
  github: {host: api.github.com}
  helper: {host: mcp.example, service: mcp}
  plain: {host: plain.example}
accounts:
  agent:
    owners: {accountable: a@acme.example, system: a@acme.example, risk: a@acme.example}
    stage: observe
    until: 2026-12-31
    limits: {rate: [{connection: "*", max: 60, per: minute}]}
"""
SHOP = """\
catalogue: 1
service: shop
hosts: [shop.example]
graphql: [/graphql]
tools:
  order.list: {call: GET /orders, effect: read}
  order.read: {call: "GET /orders/{order}", effect: read}
  order.create: {call: POST /orders, effect: write}
  order.cancel: {call: POST /orders/change, where: "args.action == 'cancel'", effect: delete, undo: never}
  order.change: {call: POST /orders/change, effect: write}
  order.drop: {call: mutation dropOrder, effect: delete}
  many: {call: POST /many, effect: write, batch: true}
"""
HOSTS = {"shop": "shop.example", "github": "api.github.com", "helper": "mcp.example", "plain": "plain.example"}
DENY = ("{id: never, deny: {connection: plain, methods: [DELETE]}}", "{id: not-drop, deny: shop.order.drop}")


def policy(*rules: str, more: str = "") -> TenantPolicy:
    lines = "    rules:\n" + "".join(f"      - {rule}\n" for rule in rules) if rules else ""
    source = parse_policy({"acme.yaml": (HEAD + lines + more).encode(), "shop.yaml": SHOP.encode()})
    return compile_policy(source).tenants["acme"]


def inputs(asked: str, body: object = None, *, body_state: Body | None = None, minute: int = 0) -> DecisionInputs:
    method, connection, target = asked.split(" ")
    path, _, query = target.partition("?")
    principal = Principal("acme", "agent", "w", "r", "j", 0, 0, 0)
    call = Call("c", principal, "https", HOSTS.get(connection, connection), 443, method, path, query)
    content: Content | None = None
    state = body_state or (Body.ABSENT if body is None else Body.READ)
    if state is Body.READ:
        content = read_content((b"application/json",), json.dumps(body).encode())
    return DecisionInputs.of(call, Facts(None, None, NOW + timedelta(minutes=minute), content), (), state)


def seen(active: TenantPolicy, *asked: DecisionInputs) -> list[Observed]:
    return [(f"c_{number}", one.now, one, active) for number, one in enumerate(asked)]


def rows(found: Suggestion) -> list[tuple[object, ...]]:
    return [
        (rule.id, rule.effect, rule.tools or None, rule.methods or None, rule.path, rule.seen.calls)
        for rule in found.rules
    ]


def left(found: Suggestion) -> list[tuple[str, str, int]]:
    return [(one.why, one.what, one.seen.calls) for one in found.left]


def with_suggestion(found: Suggestion, *deny: str) -> TenantPolicy:
    """The fragment as a reviewer puts it into the policy: as it stands, beside the deny rules, stage over."""
    text = fragment(found, ("a head",), show_values=True)
    indented = "".join(f"    {line}\n" for line in text.splitlines())
    tail = "".join(f"      - {rule}\n" for rule in deny)
    if not found.rules:
        indented = indented.replace("rules: []", "rules:" if deny else "rules: []")
    head = HEAD.replace("    stage: observe\n    until: 2026-12-31\n", "")
    source = parse_policy({"acme.yaml": (head + indented + tail).encode(), "shop.yaml": SHOP.encode()})
    # A connection that nobody called, and a policy of nothing, are no matter of the fragment.
    assert {warning.name for warning in source.warnings} <= {"unused-connection", "no-allow-rule"}
    return compile_policy(source).tenants["acme"]


def tool_call(name: str) -> object:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {"path": "x"}}}


def test_tools_become_rules_about_tools_reads_together_and_each_write_alone() -> None:
    active = policy("{id: some, allow: shop.order.list}")
    found = suggest("agent", seen(
        active, inputs("GET shop /orders/7"), inputs("GET shop /orders"), inputs("GET shop /orders/8", minute=5),
        inputs("POST shop /orders", body_state=Body.UNREAD), inputs("POST shop /orders/change", {"action": "cancel"}),
        inputs("GET github /repos/acme/site/issues"), inputs("GET shop /unlisted/1"),
    ))  # fmt: skip
    assert rows(found) == [
        ("github-reads", "read", ("github.issues.listForRepo",), None, None, 1),
        ("shop-reads", "read", ("shop.order.list", "shop.order.read"), None, None, 3),
        ("shop-order-create", "write", ("shop.order.create",), None, None, 1),
        ("shop-order-cancel", "delete", ("shop.order.cancel",), None, None, 1),
        ("shop-read-unlisted-id", "read", ("shop.unknown",), ("GET",), "/unlisted/{id}", 1),
    ]
    reads = found.rules[1]
    assert (reads.seen.denied, reads.seen.untold) == (2, 0)
    assert (reads.seen.first, reads.seen.last) == ((NOW, "c_0"), (NOW + timedelta(minutes=5), "c_2"))
    assert (reads.of_tools["shop.order.list"].denied, reads.of_tools["shop.order.read"].calls) == (0, 2)


def test_fields_of_graphql_and_tools_of_a_server_become_rules() -> None:
    active = policy()
    mutation, query = ({"query": text} for text in ("mutation { a: makeOrder(id: 1) { id } }", "{ me { id } }"))
    found = suggest("agent", seen(
        active, inputs("POST shop /graphql", mutation), inputs("POST shop /graphql", query),
        inputs("POST helper /mcp", {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}),
        inputs("POST helper /mcp", tool_call("readFile")), inputs("GET helper /mcp"),
    ))  # fmt: skip
    assert rows(found) == [
        ("helper-read-file", "write", ("mcp.helper.readFile",), None, None, 1),
        ("shop-reads", "read", ("shop.query.me",), None, None, 1),
        ("shop-mutation-make-order", "write", ("shop.mutation.makeOrder",), None, None, 1),
    ]


def test_a_session_alone_is_a_rule_about_keeping_it() -> None:
    asked = seen(policy(), inputs("POST helper /mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
    found = suggest("agent", asked)
    assert rows(found) == [("helper-reads", "read", ("mcp.helper/tools/list",), None, None, 1)]
    assert isinstance(decide_again(asked[0][2], with_suggestion(found)), Allowed)
    assert not isinstance(decide_again(inputs("POST helper /mcp", tool_call("x")), with_suggestion(found)), Allowed)


def test_what_a_deny_rule_keeps_out_is_listed_and_not_suggested() -> None:
    query = {"query": "mutation { dropOrder(id: 1) { id } makeOrder { id } }"}
    asked = seen(
        policy(*DENY), inputs("DELETE plain /a"), inputs("POST shop /graphql", query), inputs("POST shop /many"),
        inputs("GET other.example /secret-path"), inputs("POST helper /mcp", body_state=Body.UNREAD),
        inputs("POST shop /orders/change", body_state=Body.UNREAD), inputs("GET plain /a"),
    )  # fmt: skip
    found = suggest("agent", asked)
    assert rows(found) == [("plain-read-a", "read", None, ("GET",), "/a", 1)]
    assert left(found) == [
        ("batch_refused", "shop.many", 1),
        ("deny rule never", "DELETE on plain", 1),
        ("deny rule not-drop", "shop.mutation.makeOrder + shop.order.drop", 1),
        ("destination_unknown", "GET on other.example", 1),
        ("which tool it is stands in a body that was not read", "POST on helper", 1),
        ("which tool it is stands in a body that was not read", "POST on shop", 1),
    ]
    text = fragment(found, (), show_values=True)
    assert "#   DELETE on plain: deny rule never; 1 call, 1 denied by the present rules; first" in text
    assert "secret-path" not in text


def test_no_rule_about_a_path_is_suggested_where_it_would_open_tools() -> None:
    found = suggest("agent", seen(
        policy(), inputs("POST helper /mcp", tool_call("not a name")), inputs("PUT shop /graphql", {}),
        inputs("POST shop /orders/change?action=other", {"action": "cancel"}),
    ))  # fmt: skip
    assert rows(found) == []
    why = "what it carries does not tell which tool it is"
    refused = "it could not be understood"  # GraphQL by another method than GET and POST
    assert left(found) == [(refused, "PUT on shop", 1), (why, "POST on helper", 1), (why, "POST on shop", 1)]


@pytest.mark.parametrize(
    ("segment", "is_one"),
    [
        ("7", True), ("1234567890", True), ("550e8400-e29b-41d4-a716-446655440000", True), ("deadbeef01", True),
        ("ana@acme.example", True), ("ch_3MmlLrLkdIwHu7ix", True), ("T024BE7LD", True), ("AC0123456789abcdef0", True),
        ("dQw4w9WgXcQ_dQw4w9WgXcQ", True), ("AbCdEfGhIjKlMnOpQrStUvWxYz", True), ("orders", False), ("v1", False),
        ("order-items", False), ("createOrder", False), ("facade", False), ("search.json", False), ("", False),
        ("chat.postMessage", False),
    ],
)  # fmt: skip
def test_identifiers_are_known_by_their_shape(segment: str, *, is_one: bool) -> None:
    assert is_identifier(segment) is is_one


def test_paths_become_templates_where_segments_differ_like_identifiers() -> None:
    active = policy()

    def paths(*asked: str) -> list[tuple[str, str]]:
        found = suggest("agent", seen(active, *(inputs(f"GET plain {one}") for one in asked)))
        assert all(
            isinstance(decide_again(inputs(f"GET plain {one}"), with_suggestion(found)), Allowed) for one in asked
        )
        return [(str(rule.path), rule.id) for rule in found.rules]

    assert paths("/t/1/notes/2") == [("/t/{id}/notes/{id2}", "plain-read-t-id-notes-id2")]
    assert [p for p, _ in paths("/v1/users", "/v2/users")] == ["/v1/users", "/v2/users"]
    assert [p for p, _ in paths("/api/users", "/api/groups")] == ["/api/groups", "/api/users"]
    assert [p for p, _ in paths("/api/b2")] == ["/api/b2"]  # one value, and no shape
    assert [p for p, _ in paths("/api/b2", "/api/report.v7")] == ["/api/{id}"]
    assert [p for p, _ in paths(*(f"/u/name{c}" for c in "abcdefgh"))] == [f"/u/name{c}" for c in "abcdefgh"]
    assert [p for p, _ in paths(*(f"/u/name{c}" for c in "abcdefghi"))] == ["/u/{id}"]
    # What a template allows is not said twice: it would be a shadowed rule.
    assert paths("/o/1", "/o/search", "/o/search/x") == [
        ("/o/search/x", "plain-read-o-search-x"), ("/o/{id}", "plain-read-o-id"),
    ]  # fmt: skip
    assert [p for p, _ in paths("/", "/a/", "/caf%c3%a9%7B", "/x*y")] == ["/", "/a/", "/caf%C3%A9%7B", "/x%2Ay"]


def test_methods_that_only_read_stand_together() -> None:
    asked = [inputs(f"{method} plain /a") for method in ("HEAD", "PUT", "GET", "DELETE")]
    assert [(rule.id, rule.methods, rule.effect) for rule in suggest("agent", seen(policy(), *asked)).rules] == [
        ("plain-read-a", ("GET", "HEAD"), "read"),
        ("plain-delete-a", ("DELETE",), "delete"),
        ("plain-put-a", ("PUT",), "write"),
    ]


def test_a_name_is_not_given_twice_nor_that_of_a_deny_rule() -> None:
    active = policy("{id: plain-read-a-b, deny: {connection: plain, methods: [DELETE]}}")
    found = suggest("agent", seen(active, inputs("GET plain /a/b"), inputs("GET plain /a-b")))
    assert [rule.id for rule in found.rules] == ["plain-read-a-b-2", "plain-read-a-b-3"]


def test_values_are_shown_only_when_asked_for_and_only_where_they_are_few() -> None:
    asked = [inputs(f"GET github /repos/{owner}/r{number}/issues") for number, owner in enumerate(
        ["acme", "acme", "other", "acme", "acme", "acme"]
    )]  # fmt: skip
    asked.append(inputs("POST shop /orders", {"note": 'x"\n  - id: evil', "bad\nname": "x", "total": 1}))
    found = suggest("agent", seen(policy(), *asked))
    text = fragment(found, (), show_values=True)
    assert '# args.owner was: "acme" (5), "other" (1)\n' in text
    assert "args.repo" not in text
    assert r'# args.note was: "x\"\n  - id: evil" (1)' in text
    assert "bad" not in text
    hidden = fragment(found, (), show_values=False)
    for value in ("other", "evil", "total"):
        assert value not in hidden
    assert len(with_suggestion(found).accounts["agent"].allow.rules) == 2


segments = st.sampled_from(["orders", "graphql", "unlisted", "7", "b2", "c3", "search", "x", "y", "café", "a@b"])
paths = st.lists(segments, min_size=0, max_size=3).map(lambda parts: "/" + "/".join(parts))
drop = {"query": "mutation { dropOrder(id: 1) { id } makeOrder { id } }"}
plain_bodies = st.sampled_from([None, drop, {"action": "cancel"}, {"action": "other"}, {"query": "{ me { id } }"}])
asked_calls = st.one_of(
    st.builds(
        lambda method, connection, path, body: inputs(
            f"{method} {connection} {path.replace('é', '%C3%A9')}", body if method == "POST" else None
        ),
        st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PROPFIND"]), st.sampled_from(["plain", "plain", "shop"]),
        paths, plain_bodies,
    ),
    st.sampled_from(["add", "echo", "not a name"]).map(lambda name: inputs("POST helper /mcp", tool_call(name))),
    st.just(inputs("POST helper /mcp", body_state=Body.UNREAD)),
    st.just(inputs("POST shop /many")),
)  # fmt: skip


@given(st.lists(asked_calls, max_size=25), st.sampled_from([(), DENY]))
def test_what_is_suggested_allows_what_was_seen_and_nothing_else(
    asked: list[DecisionInputs], deny: tuple[str, ...]
) -> None:
    active = policy(*deny)
    found = suggest("agent", seen(active, *asked))
    candidate = with_suggestion(found, *deny)
    allowed = [isinstance(decide_again(one, candidate), Allowed) for one in asked]
    # Each call by itself says whether a rule is suggested for it.
    wanted = [not suggest("agent", seen(active, one)).left for one in asked]
    assert allowed == wanted
    assert sum(one.seen.calls for one in found.left) == wanted.count(False)


class Count:
    def __init__(self) -> None:
        self.number = 1

    def merge(self, other: "Count") -> None:
        self.number += other.number


@given(st.lists(st.lists(st.sampled_from([*"abcdefghijkl", "b2", "c3", "7"]), min_size=1, max_size=4), max_size=30),
       st.randoms(use_true_random=False))  # fmt: skip
def test_templates_do_not_depend_on_the_order_and_count_every_call(asked: list[list[str]], random: object) -> None:
    def templates(of: list[list[str]]) -> list[tuple[tuple[object, ...], int]]:
        paths = SeenPaths[Count](top=True)
        for segments in of:
            paths.add(tuple(segments), "GET", Count())
        return [(segments, ends["GET"].number) for segments, ends in paths.templates()]

    found = templates(asked)
    shuffled = list(asked)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random
    assert templates(shuffled) == found
    assert sum(number for _, number in found) == len(asked)
    assert all(segments[0] is not PARAMETER or any(one[0] == "7" for one in asked) for segments, _ in found)


def test_memory_is_that_of_templates_and_not_of_calls() -> None:
    paths = SeenPaths[Count](top=True)
    for number in range(5000):
        paths.add(("orders", f"o{number}", "items", f"item-{number}"), "GET", Count())
    ((segments, ends),) = paths.templates()
    assert (segments, ends["GET"].number) == (("orders", PARAMETER, "items", PARAMETER), 5000)

    def size(node: SeenPaths[Count]) -> int:
        below = [*node.literals.values(), *([] if node.parameter is None else [node.parameter])]
        return 1 + sum(size(one) for one in below)

    assert size(paths) == 5
    once = seen(policy(), inputs("GET plain /a"))[0]
    found = suggest("agent", (replace_id(once, f"c_{number}") for number in range(100)))
    assert (found.calls, found.rules[0].seen.calls) == (100, 100)
    assert isinstance(found.rules[0].seen, Seen)


def replace_id(one: Observed, call: str) -> Observed:
    _, at, asked, active = one
    return call, at, replace(asked), active
