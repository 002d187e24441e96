"""Every field at the root of a GraphQL request is found, or the request is refused."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.content.graphql import MAX_FIELDS, MAX_LENGTH, MAX_REQUESTS, read_graphql, read_graphql_query
from rules.content.refused import ContentRefused
from rules.content.strict_json import Json


def _read(query: str, **variables: Json) -> list[tuple[str, str, object]]:
    fields = read_graphql({"query": query, "variables": dict(variables)})
    return [(field.operation, field.name, field.arguments) for field in fields]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("{viewer {login}}", [("query", "viewer", {})]),
        ("query A {a} mutation B {b}", [("query", "a", {}), ("mutation", "b", {})]),
        ("subscription {s}", [("subscription", "s", {})]),
        ("mutation {x: pay(n: 1) y: pay(n: 2)}", [("mutation", "pay", {"n": 1}), ("mutation", "pay", {"n": 2})]),
        ("{a @skip(if: true) b @include(if: false)}", [("query", "a", {}), ("query", "b", {})]),
        ("{...F @skip(if: true)} fragment F on Q {a ...{b}}", [("query", "a", {}), ("query", "b", {})]),
        ("{...F} fragment F on Q {a ...G} fragment G on Q {b ...F}", [("query", "a", {}), ("query", "b", {})]),
        ('{a(b: """x\n  "y" {z}\n""")} # {c}', [("query", "a", {"b": 'x\n"y" {z}'})]),
        (
            "{a(b: [1, 1.50, null, true, E, {c: -2}])}",
            [("query", "a", {"b": [1, Decimal("1.50"), None, True, "E", {"c": -2}]})],
        ),
        ("query ($v: Int = 3, $w: Int) {a(b: $v, c: $w, d: [$w])}", [("query", "a", {"b": 3, "d": [None]})]),
    ],
)
def test_what_is_read(query: str, fields: list[object]) -> None:
    assert _read(query) == fields


def test_a_value_is_stronger_than_a_default_and_null_is_a_value() -> None:
    query = "query ($v: Int = 3) {a(b: {c: $v})}"
    assert _read(query, v=4) == [("query", "a", {"b": {"c": 4}})]
    assert _read(query, v=None) == [("query", "a", {"b": {"c": None}})]


def test_the_operation_name_hides_no_operation() -> None:
    value: Json = {"query": "query A {a} mutation B {b}", "operationName": "A"}
    assert [field.name for field in read_graphql(value)] == ["a", "b"]
    assert [field.name for field in read_graphql([value, {"query": "{c}"}])] == ["a", "b", "c"]


def test_a_mutation_in_a_query_string_is_found() -> None:
    (field,) = read_graphql_query({"query": "mutation ($v: Int) {pay(n: $v)}", "variables": '{"v": 7}'})
    assert (field.operation, field.name, field.arguments) == ("mutation", "pay", {"n": 7})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"query": ["{a}", "{b}"]},
        {"query": "{a}", "variables": "{"},
        {"query": "{a}", "variables": "[]"},
        {"query": "{a}", "extensions": '{"persistedQuery": {"version": 1}}'},
        {"query": "{a}", "id": "1"},
    ],
)
def test_query_strings_that_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(ContentRefused):
        read_graphql_query(members)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "{",
        "{}",
        "type A {b: Int}",
        "{a} type A {b: Int}",
        "fragment F on Q {a}",
        "{...F}",
        "{...F} fragment F on Q {a} fragment F on Q {b}",
        "{a} {b}",
        "query A {a} query A {b}",
        "{a(b: 1, b: 2)}",
        "{a(b: {c: 1, c: 2})}",
        "{a(b: $v)}",
        "query ($v: Int, $v: Int) {a(b: $v)}",
        "{a(b: 9007199254740992)}",
        "{a(b: 1e999)}",
        "{a(b: " + "1" * 1000 + ")}",
        '{a(b: "\\u0000")}',
        '{a(b: "\\ud800")}',
        "{a(b: " + "[" * 40 + "]" * 40 + ")}",
    ],
)
def test_what_is_refused(query: str) -> None:
    with pytest.raises(ContentRefused):
        _read(query, given_but_undeclared=1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [[]],
        "{a}",
        {},
        {"query": None},
        {"query": "{a}", "Query": "{b}"},
        {"query": "{a}", "id": "saved"},
        {"query": "{a}", "variables": []},
        {"query": "{a}", "operationName": 1},
        {"query": "{a}", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0"}}},
        [{"query": "{a}"}] * (MAX_REQUESTS + 1),
    ],
)
def test_values_that_are_no_request(value: Json) -> None:
    with pytest.raises(ContentRefused):
        read_graphql(value)


ADVERSARIAL = {
    "braces": "{a" * 5000 + "}" * 5000,
    "braces within the bound of tokens": "{a" * 999 + "}" * 999,
    "aliases": "{" + " ".join(f"a{n}:b" for n in range(5000)) + "}",
    "fields": "{" + "a " * (MAX_FIELDS + 1) + "}",
    "fragments, 100 wide and 50 deep": "{...F0}"
    + "".join(f"fragment F{n} on Q {{{f'...F{n + 1} ' * 100}}}" for n in range(50))
    + "fragment F50 on Q {a}",
    "operations": "".join(f"query Q{n} {{a}}" for n in range(21)),
    "newlines in a block string": '{a(b: """' + "\n" * MAX_LENGTH + '""")}',
    "a long number": "{a(b: " + "1" * (MAX_LENGTH - 9) + ")}",
    "comments": "{a}" + "#\n" * 20000,
    "an end without its text": "\n" * (MAX_LENGTH - 2) + "{a",
    "types": "query ($a: " + "[" * 1400 + "I" + "]" * 1400 + ") {a}",
}


@pytest.mark.parametrize("query", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_documents_that_cost_too_much_are_refused(query: str) -> None:
    with pytest.raises(ContentRefused):
        _read(query)


def test_fragments_that_spread_each_other_are_entered_once() -> None:
    deep = "".join(f"fragment F{n} on Q {{{f'...F{n + 1} ' * 30}}}" for n in range(20))
    assert _read("{...F0}" + deep + "fragment F20 on Q {a}") == [("query", "a", {})]


def test_a_variable_in_many_places_counts_as_often() -> None:
    query = "query ($v: [Int]) {" + " ".join(f"a{n}: b(c: $v)" for n in range(50)) + "}"
    assert len(_read(query, v=[1] * 300)) == 50
    with pytest.raises(ContentRefused, match="values"):
        _read(query, v=[1] * 500)


_PIECES = st.sampled_from(
    [
        *"{}()[]a:F1-#=&!\\\n\ufeff",
        "$v",
        "...",
        " on Q",
        "fragment ",
        "mutation ",
        "query ",
        '"',
        '"""',
        ".5",
        "e9",
        "Int",
        "null",
    ]
)


@given(st.text(max_size=60) | st.lists(_PIECES, max_size=40).map("".join))
def test_any_text_is_fields_or_a_refusal(text: str) -> None:
    try:
        fields = _read(text)
    except ContentRefused:
        return
    assert fields
    json.dumps(fields, default=float)
