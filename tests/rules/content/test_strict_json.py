"""JSON is read in one way or not at all."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.content.refused import ContentRefused
from rules.content.strict_json import MAX_DEPTH, MAX_VALUES, read_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"amount": 100, "currency": "usd"}', {"amount": 100, "currency": "usd"}),
        ("[1.10, -0.5e3, 0]", [Decimal("1.10"), Decimal("-500"), 0]),
        ('"\\ud83d\\ude00 \\n ü"', "\U0001f600 \n ü"),
        (" null ", None),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
        (json.dumps(["[{" * 100, "\\", '"[[['] * 40), ["[{" * 100, "\\", '"[[['] * 40),
        ("9007199254740991", 2**53 - 1),
        (json.dumps([1] * (MAX_VALUES - 1)), [1] * (MAX_VALUES - 1)),
        (json.dumps({"text": '\\",[{' * MAX_VALUES}), {"text": '\\",[{' * MAX_VALUES}),
    ],
)
def test_what_is_read(text: str, value: object) -> None:
    assert read_json(text.encode()) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1 /* x */}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": +1}', "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"amount": 1, "Amount": 900}', "twice"),
        (b'{"amount": 1, "\\u0061mount": 900}', "twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "twice"),
        (b'{"a": NaN}', "no number"),
        (b"[-Infinity]", "no number"),
        (b'{"a": 9007199254740992}', "2\\^53"),
        (b'{"a": 1e400}', "no double"),
        (b'{"a": 1e-400}', "no double"),
        (b'{"a": ' + b"9" * 65 + b"}", "too long"),
        (b'{"a": 0.' + b"9" * 65 + b"}", "too long"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a\\u0000": 1}', "U\\+0000"),
        (b'{"a": "\xff"}', "UTF-8"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeper"),
        (b'{"a":' * 10_000, "deeper"),
        (b'{"a":' * 100_000, "more than"),
        (b"[" + b"1," * MAX_VALUES + b"1]", "more than"),
        (b"[" + b"{}," * MAX_VALUES + b"{}]", "more than"),
        (b'{"a": [' + b'"",' * MAX_VALUES + b'""]}', "more than"),
        # A megabyte of escaped quotes without an end: hours for a reader that tries each as another beginning.
        (b"[" * MAX_DEPTH + b'{"' + b'\\"' * 500_000, "deeper"),
        (b"[{}," * (MAX_DEPTH - 1) + b'"' + b'\\"' * 500_000 + b"\\", "not JSON"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ContentRefused, match=why) as refused:
        read_json(data)
    assert "900" not in refused.value.detail


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0123456789aeE.+- ntrfl', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_a_refusal(data: bytes) -> None:
    try:
        value = read_json(data)
    except ContentRefused:
        return
    assert json.loads(data) == json.loads(json.dumps(value, default=float))


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_what_every_writer_writes_is_read_back(value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text:
        return
    assert read_json(text.encode()) == value
