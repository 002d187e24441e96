"""What of a path reaches the ledger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.records import media_type, route_shape
from rules.catalogue.effect import of_method


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/", "/"),
        ("/v1/refunds", "/v1/refunds"),
        ("/v1/refunds/re_3Mq", "/v1/refunds/{}"),
        ("/hooks/T024BE7LD/B02/xoxbsecret", "/hooks/{}/{}/xoxbsecret"),
        ("/users/ana@acme.example", "/users/{}"),
        ("/repos/Acme/site/issues/12", "/repos/{}/site/issues/{}"),
        ("/a%20b", "/{}"),
    ],
)
def test_a_shape_hides_what_could_identify(path: str, shape: str) -> None:
    assert route_shape(path) == shape


@given(st.text(alphabet="abcXYZ019%/._-~", max_size=600))
def test_a_shape_is_bounded_and_keeps_no_digit_or_capital(path: str) -> None:
    """Identifiers and keys have digits or capitals; versions (`v1`) are the one exception."""
    shape = route_shape("/" + path)
    assert len(shape) <= 256
    for segment in shape.split("/"):
        assert segment in {"", "{}"} or segment.islower() or "..." in segment or not any(c.isalpha() for c in segment)


def test_an_unknown_method_is_a_write() -> None:
    assert [of_method(m) for m in ("GET", "HEAD", "OPTIONS", "DELETE", "POST", "FROB")] == [
        "read",
        "read",
        "read",
        "delete",
        "write",
        "write",
    ]


@pytest.mark.parametrize(
    ("value", "media"),
    [
        (b"application/json; charset=utf-8", "application/json"),
        (b"TEXT/Event-Stream", "text/event-stream"),
        (b"evil\x1b[31m/x", None),
        (b"x" * 300, None),
        (b"", None),
    ],
)
def test_only_media_types_reach_a_record(value: bytes, media: str | None) -> None:
    """An origin writes Content-Type; nothing it invents is copied into the ledger."""
    assert media_type(((b"content-type", value),)) == media
