"""Multipart forms are read in one way or not at all."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from rules.content.multipart import MAX_PARTS, Part, read_multipart
from rules.content.refused import ContentRefused

FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
END = b"--b--\r\n"


def test_what_urllib3_writes_is_read() -> None:
    body, content_type = encode_multipart_formdata(
        {"purpose": "batch", "file": ("june.csv", b"a,b\r\n--x\r\n", "text/csv")}
    )
    boundary = content_type.partition("boundary=")[2]
    assert read_multipart(body, boundary) == (
        Part("purpose", None, None, b"batch"),
        Part("file", "june.csv", b"text/csv", b"a,b\r\n--x\r\n"),
    )


def test_blanks_around_a_header_fields_value_are_not_part_of_it() -> None:
    body = FIELD.replace(b"\r\n\r\n", b"\r\nContent-Type: \t text/plain\t \r\n\r\n") + END
    assert read_multipart(body, "b") == (Part("a", None, b"text/plain", b"1"),)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "begin and end"),
        (END, "no part"),
        (FIELD, "begin and end"),
        (b"preamble\r\n" + FIELD + END, "begin and end"),
        (FIELD + END + b"epilogue", "begin and end"),
        (FIELD + END + FIELD + END, "on its line"),
        (FIELD + FIELD + END, "twice"),
        (FIELD + FIELD.replace(b'"a"', b'"A"') + END, "twice"),
        (FIELD.replace(b'"a"', b"a") + END, "form-data name"),
        (FIELD.replace(b"form-data", b"attachment") + END, "form-data name"),
        (FIELD.replace(b'"a"', b'"a"; name="b"') + END, "form-data name"),
        (FIELD.replace(b'"a"', b"\"a\"; filename*=UTF-8''b") + END, "form-data name"),
        (FIELD.replace(b'"a"', b'"a\\"b"') + END, "form-data name"),
        (FIELD.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n") + END, "not read here"),
        (FIELD.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + END, "another length"),
        (FIELD.replace(b"\r\n\r\n", b'\r\nContent-Disposition: form-data; name="b"\r\n\r\n') + END, "twice"),
        (FIELD.replace(b"form-data;", b"form-data;\r\n") + END, "malformed"),
        (FIELD.replace(b"\r\n", b"\n") + END, "begin and end"),
        (FIELD.replace(b"--b\r\n", b"--b \r\n") + END, "on its line"),
        (FIELD.replace(b"\r\n\r\n", b"\r\n") + END, "no end of its header"),
        (b"".join(FIELD.replace(b'"a"', b'"a%d"' % n) for n in range(MAX_PARTS + 1)) + END, "more than"),
        (FIELD.replace(b'"a"', b'"\xff"') + END, "UTF-8"),
        # Days for a reader that tries every way to share out the blanks.
        (FIELD.replace(b"\r\n\r\n", b"\r\nContent-Type:" + b" " * 4000 + b"\x01\r\n\r\n") + END, "malformed"),
    ],
)
def test_what_is_refused(body: bytes, why: str) -> None:
    assert read_multipart(FIELD + END, "b") == (Part("a", None, None, b"1"),)
    with pytest.raises(ContentRefused, match=why):
        read_multipart(body, "b")


@pytest.mark.parametrize("boundary", [None, "", "a b", "a" * 71, "a;b", "ü"])
def test_unusual_boundaries_are_refused(boundary: str | None) -> None:
    with pytest.raises(ContentRefused, match="boundary"):
        read_multipart(FIELD + END, boundary)


@given(
    st.lists(
        st.sampled_from([b"--b", b"--b--", b"\r\n", b"\n", b"Content-Disposition: form-data; ", b'name="a"', b"x"])
    )
)
def test_any_bytes_are_parts_or_a_refusal(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    try:
        parts = read_multipart(body, "b")
    except ContentRefused:
        return
    written = io.BytesIO()
    for part in parts:
        written.write(
            b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (part.name.encode(), part.content)
        )
    assert body.rstrip(b"\r\n") == written.getvalue() + b"--b" + b"--"


@pytest.mark.parametrize("kind", ["multipart/mixed; boundary=c", "Multipart/Form-Data; boundary=c", "message/rfc822"])
def test_a_part_that_has_parts_is_refused(kind: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: {kind}\r\n\r\n'
    with pytest.raises(ContentRefused, match="parts itself"):
        read_multipart(head.encode() + b"--c\r\n\r\n1\r\n--c--\r\n--b--\r\n", "b")


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\n\n"])
def test_a_boundary_behind_half_a_line_end_is_refused(end: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    with pytest.raises(ContentRefused, match="half a line end"):
        read_multipart(head + b"1" + end + head + b"2\r\n--b--\r\n", "b")
