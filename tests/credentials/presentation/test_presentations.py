"""Each presentation renders what its RFC says, and refuses what would break out of the field."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credentials.binding import Binding, BindingRefused
from credentials.presentation import (
    PRESENTATIONS,
    Basic,
    Bearer,
    Header,
    Presentation,
    PresentationInvalid,
    SecretNotPresentable,
)
from credentials.presentation.header import FORBIDDEN_NAMES
from credentials.presentation.refusal import MAX_PRESENTED_BYTES
from credentials.secret import Secret

ALL: list[Presentation] = [Bearer(), Basic("ana"), Header("X-Api-Key"), Header("Authorization", "Token ")]


def test_every_presentation_is_listed_and_tried_here() -> None:
    assert {type(one) for one in ALL} == set(PRESENTATIONS)
    assert [one.kind for one in PRESENTATIONS] == ["bearer", "basic", "header"]


def test_examples() -> None:
    secret = Secret("s3cr3t|a:b")
    assert (Bearer().header_name, Bearer().render(secret)) == (b"authorization", b"Bearer s3cr3t|a:b")
    assert Header("X-Api-Key").header_name == b"x-api-key"
    assert Header("X-Api-Key").render(secret) == b"s3cr3t|a:b"
    assert Header("Authorization", "Token token=").render(secret) == b"Token token=s3cr3t|a:b"
    # RFC 7617 section 2
    assert Basic("Aladdin").render(Secret("open sesame")) == b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    # RFC 7617 section 2.1: UTF-8
    assert Basic("test").render(Secret("123\u00a3")) == b"Basic dGVzdDoxMjPCow=="
    assert b64decode(Basic("").render(Secret("k"))[6:]) == b":k"


@pytest.mark.parametrize("presentation", ALL, ids=repr)
@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nX-Evil: 1", "a\x00", "\x7f", "a\x1bb", "key\n"])
def test_a_secret_that_would_end_the_field(presentation: Presentation, text: str) -> None:
    for attempt in (presentation.check, presentation.render):
        with pytest.raises(SecretNotPresentable):
            attempt(Secret(text))


@pytest.mark.parametrize("presentation", [Bearer(), Header("X-Api-Key")], ids=repr)
@pytest.mark.parametrize("text", [" a", "a ", "\ta", "a\tb", "é"])
def test_white_space_at_an_end_and_other_alphabets(presentation: Presentation, text: str) -> None:
    with pytest.raises(SecretNotPresentable):
        presentation.render(Secret(text))


def test_a_bearer_token_has_no_space_and_a_header_may() -> None:
    with pytest.raises(SecretNotPresentable):
        Bearer().render(Secret("a b"))
    assert Header("X-Key").render(Secret("a b")) == b"a b"


@pytest.mark.parametrize("presentation", ALL, ids=repr)
def test_the_size_is_bounded(presentation: Presentation) -> None:
    assert presentation.render(Secret("a" * MAX_PRESENTED_BYTES))
    with pytest.raises(SecretNotPresentable):
        presentation.render(Secret("a" * (MAX_PRESENTED_BYTES + 1)))


@pytest.mark.parametrize("presentation", ALL, ids=repr)
@given(secret=st.binary(min_size=1, max_size=64))
def test_whatever_is_rendered_is_one_line_of_ascii(presentation: Presentation, secret: bytes) -> None:
    try:
        value = presentation.render(Secret(secret))
    except SecretNotPresentable:
        return
    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert value == value.strip()


@pytest.mark.parametrize("user", ["a:b", "a\nb", "\u00e9", "x" * 256])
def test_a_basic_user_that_rfc_7617_forbids(user: str) -> None:
    with pytest.raises(PresentationInvalid):
        Basic(user)


@pytest.mark.parametrize(
    "name", ["", "a b", "a:b", "a\r\nb", "X_Api_Key", "\u00e9", "x" * 65, *sorted(FORBIDDEN_NAMES), "HOST"]
)
def test_a_header_name_that_frames_routes_or_is_none(name: str) -> None:
    with pytest.raises(PresentationInvalid):
        Header(name)


@pytest.mark.parametrize("prefix", ["a\r\nb: ", " a", "\x00", "\u00e9", "x" * 65, "a\n"])
def test_a_prefix_that_would_break_the_field(prefix: str) -> None:
    with pytest.raises(PresentationInvalid):
        Header("X-Key", prefix)


class TestBinding:
    BOUND = Binding("acme", "tickets", "https", "acme.zendesk.com", 443, "zendesk/prod", Bearer())

    def test_presents_to_its_own_destination(self) -> None:
        assert self.BOUND.present(Secret("k"), tenant="acme", scheme="https", host="acme.zendesk.com", port=443) == (
            b"authorization",
            b"Bearer k",
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"tenant": "globex"},
            {"scheme": "http"},
            {"host": "evil.example"},
            {"host": "acme.zendesk.com."},
            {"host": "ACME.zendesk.com"},
            {"host": "acme.zendesk.com.evil.example"},
            {"port": 8443},
        ],
        ids=str,
    )
    def test_and_to_no_other(self, change: dict[str, object]) -> None:
        where: dict[str, object] = {"tenant": "acme", "scheme": "https", "host": "acme.zendesk.com", "port": 443}
        with pytest.raises(BindingRefused) as refusal:
            self.BOUND.present(Secret("canary"), **{**where, **change})  # type: ignore[arg-type]
        assert "canary" not in str(refusal.value)
