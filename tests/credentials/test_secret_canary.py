"""A canary planted in a `Secret` must come out of `reveal()` alone."""

import copy
import io
import json
import logging
import pickle
import pprint
import traceback

import orjson
import pytest

from credentials.envelope import KeyEncryptionKey, SealBroken, SealedSecret, seal, unseal
from credentials.presentation import Basic, Bearer, Header, SecretNotPresentable
from credentials.secret import MAX_SECRET_BYTES, Secret, SecretRefused

CANARY = "canary-5f1d9c7e-do-not-show"


def assert_hidden(*texts: object) -> None:
    for text in texts:
        assert CANARY not in str(text)
        assert CANARY.encode().hex() not in str(text)


def test_every_rendering_hides_the_canary() -> None:
    secret = Secret(CANARY)
    assert_hidden(
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        f"{secret!a}",
        f"{secret:>40}",
        "%s" % secret,  # noqa: UP031
        "{0}".format(secret),  # noqa: UP030, UP032
        pprint.pformat({"a": [secret]}),
        dir(secret),
    )
    assert secret.reveal() == CANARY.encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError) as refusal:
        pickle.dumps({"secret": Secret(CANARY)}, protocol)
    assert_hidden(refusal.value)


@pytest.mark.parametrize("dumps", [json.dumps, orjson.dumps])
def test_it_cannot_be_written_as_json(dumps) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError) as refusal:
        dumps({"secret": Secret(CANARY)})
    assert_hidden(refusal.value)


def test_it_has_no_bytes_iteration_length_or_attributes() -> None:
    secret = Secret(CANARY)
    with pytest.raises(TypeError):
        bytes(secret)
    with pytest.raises(TypeError):
        iter(secret)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        len(secret)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        vars(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_copies_are_the_same_object() -> None:
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_a_log_with_a_stack_and_arguments_hides_it() -> None:
    stream = io.StringIO()
    logger = logging.Logger("canary")
    logger.addHandler(logging.StreamHandler(stream))
    secret = Secret(CANARY)
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed with %s and %r", secret, {"s": secret})
    assert "failed with" in stream.getvalue()
    assert_hidden(stream.getvalue())


def rendered(action) -> str:  # type: ignore[no-untyped-def]
    """The traceback of what `action` raises, with the locals of every frame below this one."""
    try:
        action()
    except Exception as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "".join(shown.format()) + repr(error) + str(error.__context__) + str(error.__cause__)
    raise AssertionError("nothing was raised")


class TestTracebacksWithLocals:
    """Error trackers render the locals of every frame."""

    @pytest.mark.parametrize("end", ["\n", "\r\nX: y", "\x00", " "])
    def test_a_secret_that_cannot_be_presented(self, end: str) -> None:
        secret = Secret(CANARY + end)
        for presentation in (Bearer(), Header("X-Api-Key")):
            assert_hidden(rendered(lambda p=presentation: p.render(secret)))

    def test_a_secret_that_cannot_be_a_password(self) -> None:
        secret = Secret(CANARY + "\n")
        assert_hidden(rendered(lambda: Basic("user").render(secret)))

    def test_a_secret_that_is_too_long(self) -> None:
        # Built by a call in the lambda, so that no frame of this test holds the text.
        assert_hidden(rendered(lambda: Secret(CANARY * (MAX_SECRET_BYTES // len(CANARY) + 1))))

    def test_a_secret_that_is_not_unicode(self) -> None:
        assert_hidden(rendered(lambda: Secret(CANARY + "\udcff")))

    def test_a_sealed_secret_that_was_changed(self) -> None:
        kek = KeyEncryptionKey(b"k" * 32)
        sealed = seal(kek, "acme", "zendesk/prod", 1, Secret(CANARY))
        changed = SealedSecret("acme", "zendesk/prod", 2, sealed.sealed)
        text = rendered(lambda: unseal(kek, changed))
        assert SealBroken.__name__ in text
        assert_hidden(text)
        assert "data_key" not in text


@pytest.mark.parametrize("value", ["", b"", 5, None, bytearray(b"x"), "\ud800"])
def test_what_is_no_secret_is_refused(value: object) -> None:
    with pytest.raises(SecretRefused):
        Secret(value)  # type: ignore[arg-type]


def test_the_length_is_counted_in_bytes() -> None:
    assert len(Secret("é" * (MAX_SECRET_BYTES // 2)).reveal()) == MAX_SECRET_BYTES
    with pytest.raises(SecretRefused):
        Secret("é" * (MAX_SECRET_BYTES // 2 + 1))


def test_equality_is_by_value_and_only_with_secrets() -> None:
    assert Secret("a") == Secret(b"a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("a") != b"a"


class TestThumbprint:
    def test_is_stable_under_one_key_and_differs_between_keys(self) -> None:
        one, two = Secret("s", thumbprint_key=b"1"), Secret("s", thumbprint_key=b"1")
        assert one.thumbprint() == two.thumbprint()
        assert Secret("s", thumbprint_key=b"2").thumbprint() != one.thumbprint()
        assert Secret("t", thumbprint_key=b"1").thumbprint() != one.thumbprint()

    def test_is_sixteen_hex_digits_and_no_plain_hash(self) -> None:
        import hashlib

        thumb = Secret("hunter2").thumbprint()
        assert len(thumb) == 16
        assert int(thumb, 16) >= 0
        assert not hashlib.sha256(b"hunter2").hexdigest().startswith(thumb)


def test_presenting_refusals_name_no_bytes() -> None:
    with pytest.raises(SecretNotPresentable) as refusal:
        Bearer().render(Secret("abc\ndef"))
    assert "abc" not in str(refusal.value)
