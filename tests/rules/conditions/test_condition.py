"""A condition is compiled when the policy loads, and is true, false, or cannot be told."""

import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.conditions.asked import MAX_BUILT
from rules.conditions.condition import MAX_LENGTH, Values, compile_condition, compile_expression
from rules.conditions.unknown import Unknown
from rules.conditions.variables import VARIABLES
from rules.policy.invalid import ValueInvalid

VALUES = {
    "account": "agent",
    "method": "POST",
    "path": {"repo": "tools"},
    "query": {"state": "open"},
    "body": {"amount": 50, "rate": 1.5, "tags": ["a", "b"], "note": None, "nested": {"to": "x@acme.example"}},
    "now.weekday": "sat",
    "now.hour": 14,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("body.amount <= 100", True),
        ("body.amount > 100", False),
        ("body.rate < 2", True),
        ("body.amount <= 100 && now.weekday in ['sat', 'sun']", True),
        ("path.repo == 'tools' && method == 'POST'", True),
        ("query.state in ['open', 'closed']", True),
        ("body.nested.to.endsWith('@acme.example')", True),
        ("body.tags.all(tag, tag in ['a', 'b'])", True),
        ("has(body.currency)", False),
        ("body.note == null", True),
        ("body.nested.to.matches('^[a-z]+@')", True),
        # What is missing or of another type cannot be told, unless the rest decides alone.
        ("body.currency == 'usd'", None),
        ("body.nested < 3", None),
        ("body.amount.endsWith('x')", None),
        ("body.currency == 'usd' || body.amount == 50", True),
        ("body.currency == 'usd' && body.amount == 51", False),
        ("tenant == 'acme'", None),
        ("1 / (body.amount - 50) > 0", None),
        ("body.tags[5] == 'a'", None),
        ("body.tags.all(a, a - 1 != 3)", None),
    ],
)
def test_true_false_or_untold(text: str, holds: bool | None) -> None:
    assert compile_condition(text).holds(Values(VALUES)) is holds


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("boddy.amount <= 100", "no variable or function boddy", "did you mean body"),
        ("now.weekdy == 'sat'", "no variable or function now.weekdy", "did you mean now.weekday"),
        ("body.amount", "does not say true or false", "compare it"),
        ("'yes'", "does not say true or false", "compare it"),
        ("method == 1", "no matching overload", "policy.md"),
        ("now.hour == 'x'", "no matching overload", "policy.md"),
        ("body.amount <=", "Syntax error", "policy.md"),
        ("", "Syntax error", "policy.md"),
        ("1 > xyz(100)", "no variable or function xyz", "known"),
        (" && ".join(["true"] * MAX_LENGTH), "longer than", "split"),
    ],
)
def test_what_cannot_be_compiled_is_told_with_its_cure(text: str, message: str, fix: str) -> None:
    with pytest.raises(ValueInvalid) as invalid:
        compile_condition(text)
    assert message in invalid.value.message
    assert fix in invalid.value.fix


def test_what_it_reads_is_what_it_names() -> None:
    assert compile_condition("body.a == 1 || query.b == 'x'").reads == {"body", "query"}
    assert compile_condition("now.hour > 3").reads >= {"now.hour"}
    # A name in a text, and one that a macro binds, are no variables.
    assert "body" not in compile_condition("'body' == account").reads
    assert "body" not in compile_condition("[1, 2].exists(body, body > 1)").reads


def test_the_reference_lists_the_variables() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "policy.md").read_text()
    for variable in VARIABLES:
        assert f"| `{variable.name}` | `{variable.type}` | {variable.meaning} |" in text
    assert text.count("| `now") == sum(variable.name.startswith("now") for variable in VARIABLES)


def test_evaluation_is_bounded() -> None:
    body = {"l": list(range(20_000))}
    assert compile_condition("body.l.all(a, a >= 0)").holds(Values({"body": body})) is None


@pytest.mark.parametrize(
    "text",
    [
        "body.a.all(x, body.b.exists(y, x == y))",
        "recipients.all(r, recipients.exists(s, s == r))",
        "args.a.all(x, x.b.all(y, x.c.all(z, z == y)))",
        "body.a.map(x, body.a).all(y, y.all(z, z == 1))",
        "[body.a, body.a].all(x, x.all(y, y == 1))",
        "body.a.all(x, !(x in body.b))",
        "body.a.all(x, size(body.t) > 5)",
        "body.a.all(x, (body.t + x) != 'a')",
        "body.a.all(x, !args.t.contains(x))",
        "body.a.all(x, !body.t.matches('z' + x))",
        "body.a.map(x, body.t).all(y, size(y) > 3)",
        "body.o.all(x, x.t.all(y, y in body.o))",
    ],
)
def test_work_that_grows_with_the_square_of_what_is_sent_is_refused(text: str) -> None:
    with pytest.raises(ValueInvalid) as invalid:
        compile_condition(text)
    assert "a macro over what is sent" in invalid.value.message
    assert "written out" in invalid.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "body.tags.all(t, ['a', 'b'].exists(x, x == t))",
        "['a', 'b'].exists(x, body.tags.exists(t, t == x))",
        "body.rows.all(r, r.cells.all(c, c in [1, 2]))",
        "body.rows.filter(r, size(r.cells) > 0).all(r, r.cells.all(c, c > 0))",
        "body.tags.all(t, size(t) == 1) && body.rows.all(r, size(r.cells) < 5)",
    ],
)
def test_macros_that_meet_each_item_once_are_not(text: str) -> None:
    assert compile_condition(text).holds(Values({"body": {"tags": ["a", "b"], "rows": [{"cells": [1, 2]}]}})) is True


def test_a_list_is_built_from_no_long_one() -> None:
    for count, came in ((MAX_BUILT, True), (MAX_BUILT + 1, None)):
        body = {"l": list(range(count)), "rows": [{"cells": list(range(count))}]}
        for text in (
            "body.l.map(x, x) != []", "body.l.filter(x, x > 1).map(x, x) != []", "(body.l + []).map(x, x) != []",
            "body.rows.all(r, r.cells.map(c, c) != [])",
        ):  # fmt: skip
            assert compile_condition(text).holds(Values({"body": body})) is came, text
    assert compile_condition("body.l.map(x, x) != []").holds(Values({"body": {"l": [1], "m": [1] * 1000}})) is True
    with pytest.raises(Unknown):
        compile_expression("args.l.map(x, x)").value(args={"l": [1] * (MAX_BUILT + 1)})


@pytest.mark.parametrize(
    ("text", "body", "holds"),
    [
        ("!has(body.amount)", {"Amount": 1}, None),
        ("!has(body.amount)", {"AMOUNT": 1}, None),
        ("!has(body.task)", {"tas\u212a": 1}, None),
        ("!has(body.amount)", {"amounts": 1}, True),
        ("!('amount' in body)", {"Amount": 1}, None),
        ("!has(body.meta.order)", {"meta": {"Order": 1}}, None),
        ("!has(body.meta.order)", {"meta": {}, "other": {"Order": 1}}, True),
        ("body.rows.all(r, !has(r.price))", {"rows": [{"x": 1}, {"Price": 2}]}, None),
        ("body.amount == 1", {"amount": 1, "Note": 2}, True),
        ("int(body.amount) <= 5", {"amount": 5.9}, None),
        ("int(body.amount) <= 5", {"amount": "5.9"}, None),
        ("int(body.amount) <= 5", {"amount": 5.0}, True),
        ("int(body['amount']) <= 5", {"amount": 5.5}, None),
    ],
)
def test_what_the_service_may_read_otherwise_is_not_told(text: str, body: object, holds: bool | None) -> None:
    assert compile_condition(text).holds(Values({"body": body})) is holds
    expression = compile_expression(text.replace("body", "args"))
    if holds is None:
        with pytest.raises(Unknown):
            expression.value(args=body)
    else:
        assert expression.value(args=body) is holds


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(
        ["body.a < 3", "body.a == body.b", "body.exists(x, x == 'a')", "has(body.a) && body.a.b", "body == 1"]
    ),
    st.one_of(json, st.fixed_dictionaries({"a": json, "b": json})),
)
def test_no_value_raises(text: str, body: object) -> None:
    if text.endswith("body.a.b"):
        text += " == true"
    assert compile_condition(text).holds(Values({"body": body})) in (True, False, None)


texts = st.sampled_from(
    [
        "body.a < 3",
        "body.a == body.b",
        "body.exists(x, x == 'a')",
        "has(body.a) && body.b == 1",
        "body == 1",
        "args.a == 'x' || account == 'agent'",
        "args.map(name, name).size() > 1",
        "amount <= usd(5)",
        "amount <= eur(5)",
        "now.hour > 3 && account == 'agent'",
        "!has(body.a)",
        "int(body.a) <= 5",
        "int(body.b) <= 5 || has(args.a)",
    ]
)


@given(
    st.lists(texts, max_size=12), json, json, st.sampled_from(["_one_micro_usd", "_one_micro_eur", "_one_micro_xyz"])
)
def test_what_one_says_is_the_same_beside_others(asked: list[str], body: object, arg: object, unit: str) -> None:
    known = {"body": body, "args": {"a": arg}, "account": "agent", "now.hour": 5, "amount": 4_000_000, unit: 1}
    beside = Values(known)
    for text in asked:
        condition = compile_condition(text)
        assert condition.holds(beside) is condition.holds(Values(known))


def test_the_bound_is_each_evaluations_own() -> None:
    values = Values({"body": list(range(6000))})
    within = [compile_condition(f"body.all(a, a != {n})") for n in range(10_000, 10_100)]
    assert {condition.holds(values) for condition in within} == {True}
    beyond = compile_condition("body.all(a, a >= 0) && body.all(a, a >= 0)")
    assert beyond.holds(values) is None
    assert compile_condition("body.all(a, a != 10500)").holds(values) is True


def test_what_evaluations_make_is_given_back_before_the_last() -> None:
    """CEL keeps what an evaluation makes for as long as the values it was given."""
    values = Values({"body": {"l": ["x" * 100] * 400}})
    before = resident()
    for n in range(300):
        assert compile_condition(f"body.l.map(x, x + '{n}').size() == 3").holds(values) is False
    assert resident() - before < 60 * 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("first", [("now.weekday in ['sat']", False), ("args.n > 0", True)])
def test_a_moment_is_told_to_conditions_beside_others(first: tuple[str, bool]) -> None:
    """What conditions share holds no moment: each that asks for it says what it says alone."""
    given = {"now": datetime(2026, 11, 27, 15, 59, 59, tzinfo=UTC), "now.weekday": "fri", "args": {"n": 1}}
    values = Values(given)
    assert compile_condition(first[0]).holds(values) is first[1]
    assert compile_condition("args.n == 1").holds(values) is True
    assert compile_condition("now < timestamp('2026-11-27T15:59:58Z')").holds(values) is False
    assert compile_condition("now > timestamp('2026-11-27T15:59:58Z') && args.n == 1").holds(values) is True
    assert compile_condition("args.n == 2").holds(values) is False
