"""A condition is compiled when the policy loads, and is true, false, or cannot be told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.conditions.condition import MAX_LENGTH, compile_condition
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
        ("body.tags.all(a, body.tags.all(b, a - b != 3))", None),
    ],
)
def test_true_false_or_untold(text: str, holds: bool | None) -> None:
    assert compile_condition(text).holds(VALUES) is holds


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
    body = {"l": list(range(2000))}
    slow = "body.l.all(a, body.l.all(b, body.l.all(c, a + b + c >= 0)))"
    assert compile_condition(slow).holds({"body": body}) is None


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
    assert compile_condition(text).holds({"body": body}) in (True, False, None)
