"""`Authorization: Bearer <secret>` (RFC 6750 section 2.1)."""

from dataclasses import dataclass
from typing import ClassVar

from credentials.presentation.refusal import check_visible
from credentials.secret import Secret


@dataclass(frozen=True, slots=True)
class Bearer:
    """The secret is a bearer token."""

    kind: ClassVar[str] = "bearer"

    @property
    def header_name(self) -> bytes:
        """Lower-case field name."""
        return b"authorization"

    def check(self, secret: Secret) -> None:
        """Returns if the secret is visible ASCII; raises `SecretNotPresentable` if not."""
        # Wider than the b64token of RFC 6750 on purpose: services issue tokens with `|` and `:` in them.
        check_visible(secret)

    def render(self, secret: Secret) -> bytes:
        """The field's value. Raises as `check` does."""
        self.check(secret)
        return b"Bearer " + secret.reveal()
