"""One byte string for one value, whoever encodes it."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
LEAVES = st.none() | st.booleans() | st.integers(-canonical.MAX_INT, canonical.MAX_INT) | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=30
)


@given(VALUES)
def test_orjson_the_standard_library_and_rfc8785_agree(value):
    """On the profile all three give the same bytes, and the bytes give the value back."""
    expected = rfc8785.dumps(value)
    assert canonical.encode_stdlib(value) == expected
    assert canonical.encode_fast(value) == expected
    assert canonical.parse(expected) == value
    assert canonical.decode_stdlib(expected) == value


@given(VALUES)
def test_any_other_text_of_a_value_is_refused(value):
    """White space, ASCII escapes, trailing bytes."""
    expected = canonical.encode(value)
    others = [
        json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "surrogatepass"),
        json.dumps(value, separators=(",", ":")).encode(),
        expected + b"\n",
        b" " + expected,
    ]
    for other in others:
        if other != expected:
            with pytest.raises(canonical.NotCanonical):
                canonical.parse(other)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":2}',
        b"1.0",
        b"1.5",
        b"1e3",
        b"-0",
        b"9007199254740992",
        b"18446744073709551616",
        b"NaN",
        b"Infinity",
        b'"\\ud800"',
        b'"\\u0041"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x01"',
        b"\xef\xbb\xbf1",
        b'{"\xc3\xa4":1}',
        b"",
        b"[1",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("by", ["orjson", "stdlib"])
def test_what_is_outside_the_profile_is_refused(monkeypatch, data, by):
    """By both readers alike: an auditor without orjson reaches the same verdict."""
    if by == "stdlib":
        monkeypatch.setattr(canonical, "decode", canonical.decode_stdlib)
        monkeypatch.setattr(canonical, "encode", canonical.encode_stdlib)
    with pytest.raises(canonical.NotCanonical):
        canonical.parse(data)


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, object(), {"a": {1}}])
@pytest.mark.parametrize("encode", [canonical.encode_fast, canonical.encode_stdlib])
def test_what_json_cannot_carry_is_refused(value, encode):
    """Floats and keys that are no text are left to schemas: the two encoders treat them differently."""
    with pytest.raises(canonical.NotCanonical):
        encode(value)
