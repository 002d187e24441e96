"""Why something cannot be presented, and the one rule on what may stand in a field value."""

import re
from typing import Final

from credentials.secret import Secret

MAX_PRESENTED_BYTES: Final = 8192
"""Nginx, Apache and Node refuse header lines beyond 8 KiB by default."""

# RFC 9110 section 5.5, narrowed to ASCII and without leading or trailing white space: no CR, LF, NUL, and nothing whose
# meaning depends on the reader.
_FIELD_VALUE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]+")


class SecretNotPresentable(ValueError):
    """The secret has bytes that this presentation cannot carry. The operator has to set another one."""


class PresentationInvalid(ValueError):
    """The presentation's own parameters are wrong. The policy's author has to correct them."""


def check_visible(secret: Secret) -> None:
    """Returns if the secret is 1 to `MAX_PRESENTED_BYTES` visible ASCII characters without spaces."""
    check_size(secret)
    if _VISIBLE.fullmatch(secret.reveal()) is None:
        raise SecretNotPresentable("the secret has a space, a line break or a character that is not visible ASCII")


def check_field_value(secret: Secret) -> None:
    """Returns if the secret may stand in a field value; inner spaces are allowed."""
    check_size(secret)
    if _FIELD_VALUE.fullmatch(secret.reveal()) is None:
        raise SecretNotPresentable(
            "the secret has a line break, a space at an end or a character that is not visible ASCII"
        )


def check_size(secret: Secret) -> None:
    """Returns if the secret fits in a header line."""
    if len(secret.reveal()) > MAX_PRESENTED_BYTES:
        raise SecretNotPresentable(f"the secret is longer than {MAX_PRESENTED_BYTES} bytes")
