"""How long a service wants to be left alone, whatever it writes."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.response import ResponseHead
from proxy.waiting import LONGEST_SECONDS, SHORTEST_SECONDS, asked_to_wait

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def head(status: int, *said: bytes) -> ResponseHead:
    fields = tuple((b"retry-after", value) for value in said)
    return ResponseHead(status, b"", fields, 0, False, False, False, True)


@pytest.mark.parametrize(
    ("status", "said", "seconds"),
    [
        (429, b"7", 7),
        (429, None, SHORTEST_SECONDS),
        (429, b"0", SHORTEST_SECONDS),
        (429, b"86400", LONGEST_SECONDS),
        (429, b"9" * 400, LONGEST_SECONDS),
        (429, b"-5", SHORTEST_SECONDS),
        (429, b"1.5", SHORTEST_SECONDS),
        (429, b"soon", SHORTEST_SECONDS),
        (429, b"Wed, 25 Nov 2026 12:00:42 GMT", 42),
        (429, b"Wed, 25 Nov 2026 11:00:00 GMT", SHORTEST_SECONDS),
        (429, b"Wednesday, 25-Nov-26 12:00:42 GMT", 42),
        (429, b"Wed, 25 Nov 9999 12:00:00 GMT", LONGEST_SECONDS),
        (503, b"20", 20),
        (503, None, None),
        (500, b"20", None),
        (301, b"20", None),
        (200, b"20", None),
    ],
)
def test_a_service_that_asks(status: int, said: bytes | None, seconds: float | None) -> None:
    assert asked_to_wait(head(status, *(() if said is None else (said,))), NOW) == seconds


@given(st.binary(max_size=64))
def test_no_words_make_it_longer_than_it_may_be(said: bytes) -> None:
    seconds = asked_to_wait(head(429, said), NOW)
    assert seconds is not None
    assert SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS
