"""`Authorization: Basic <user:secret>` (RFC 7617)."""

from base64 import b64encode
from dataclasses import dataclass
from typing import ClassVar

from credentials.presentation.refusal import PresentationInvalid, SecretNotPresentable, check_size
from credentials.secret import Secret


def _has_control(text: bytes) -> bool:
    return any(byte < 0x20 or byte == 0x7F for byte in text)


@dataclass(frozen=True, slots=True)
class Basic:
    """The secret is the password of `user`, which may be empty."""

    user: str
    kind: ClassVar[str] = "basic"

    def __post_init__(self) -> None:
        # RFC 7617 section 2: "a user-id containing a colon character is invalid".
        if ":" in self.user or not (self.user.isprintable() and self.user.isascii()) or len(self.user) > 255:
            raise PresentationInvalid("a basic user is at most 255 printable ASCII characters without a colon")

    @property
    def header_name(self) -> bytes:
        """Lower-case field name."""
        return b"authorization"

    def check(self, secret: Secret) -> None:
        """Returns if the secret can be a password; raises `SecretNotPresentable` if not."""
        check_size(secret)
        # RFC 7617 section 2: "The user-id and password MUST NOT contain any control characters".
        if _has_control(secret.reveal()):
            raise SecretNotPresentable("the secret has a line break or another control character")

    def render(self, secret: Secret) -> bytes:
        """The field's value. Raises as `check` does."""
        self.check(secret)
        return b"Basic " + b64encode(self.user.encode() + b":" + secret.reveal())
