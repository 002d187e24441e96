"""Forms are read in one way or not at all."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.content.form import MAX_PAIRS, read_form
from rules.content.refused import ContentRefused


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"", {}),
        (b"amount=100&currency=usd", {"amount": "100", "currency": "usd"}),
        (b"a=1+2%20%C3%BC&b=&c", {"a": "1 2 ü", "b": "", "c": ""}),
        (b"metadata[order]=6735&metadata%5Bwho%5D=a", {"metadata": {"order": "6735", "who": "a"}}),
        (b"expand[]=a&expand[]=b", {"expand": ["a", "b"]}),
        (b"items[0][price]=p&items[1][price]=q", {"items": {"0": {"price": "p"}, "1": {"price": "q"}}}),
        (b"text=a=b", {"text": "a=b"}),
        (b"text=line%0D%0Atwo%09", {"text": "line\r\ntwo\t"}),
    ],
)
def test_what_is_read(data: bytes, fields: object) -> None:
    assert read_form(data) == fields


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"amount=1&amount=900", "twice"),
        (b"amount=1&%61mount=900", "twice"),
        (b"amount=1&Amount=900", "capitals"),
        (b"a[b]=1&A[c]=900", "capitals"),
        (b"account_type=user&account.type=admin", "capitals alone, or"),
        (b"account_type=user&+account%20type=admin", "capitals alone, or"),
        (b"a=1&a[b]=2", "brackets"),
        (b"a[b]=2&a=1", "twice"),
        (b"a[]=2&a=1", "twice"),
        (b"a=1&a[]=2", "as a list"),
        (b"a[b]=1&a[b][c]=2", "brackets"),
        (b"a[][b]=1", "not at the end"),
        (b"a=1;amount=900", "semicolon"),
        (b'{"amount": 1}', "begins like"),
        (b' {"amount": 1}', "begins like"),
        (b"<a>1</a>", "begins like"),
        (b"=1", "empty"),
        (b"a=1&&b=2", "empty"),
        (b"a[=1", "unbalanced"),
        (b"a]=1", "unbalanced"),
        (b"a[b]c=1", "unbalanced"),
        (b"a=%", "escape"),
        (b"a=%zz", "escape"),
        (b"a=%ff", "UTF-8"),
        (b"a%00b=1", "control"),
        (b"a=1\x00", "control"),
        (b"a" + b"[b]" * 16 + b"=1", "deep"),
        (b"&".join(b"a%d=1" % number for number in range(MAX_PAIRS + 1)), "more than"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ContentRefused, match=why):
        read_form(data)


@given(st.binary(max_size=100) | st.text(alphabet="ab[]&=%2+;A", max_size=40).map(str.encode))
def test_any_bytes_are_fields_or_a_refusal(data: bytes) -> None:
    try:
        fields = read_form(data)
    except ContentRefused:
        return
    flat = dict(parse_qsl(data.decode(), keep_blank_values=True))
    assert {name: value for name, value in fields.items() if isinstance(value, str)} == {
        name: value for name, value in flat.items() if "[" not in name
    }


@given(st.dictionaries(st.text("abcdef", min_size=1), st.text("xyz ü&=;+%[]\n"), max_size=6))
def test_what_every_writer_writes_is_read_back(fields: dict[str, str]) -> None:
    assert read_form(urlencode(fields).encode()) == fields
