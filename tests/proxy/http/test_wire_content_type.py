"""An origin's Content-Type names one type, and is read in time that grows with its length alone."""

import pytest

from proxy.http.response_head import names_several


@pytest.mark.parametrize(
    ("value", "several"),
    [
        (b"", False),
        (b"text/html; charset=utf-8", False),
        (b'multipart/mixed; boundary="a,b"', False),
        (b'multipart/mixed; boundary="a\\",b"', False),
        (b"text/html, application/json", True),
        (b'text/html; a="x", application/json', True),
        # Without its end it is no quoted text: what follows counts.
        (b'text/html; a="x, application/json', True),
        (b'text/html; a="x\\", application/json', True),
        (b'text/html; a="x\\"', False),
    ],
)
def test_a_comma_counts_outside_of_quotes(value: bytes, several: bool) -> None:
    assert names_several(value) is several


def test_text_without_its_end_is_read_once() -> None:
    """In quadratic time this would take an hour."""
    assert not names_several(b'a/b; c="' + b'\\"' * 500_000)
