"""A named header field, with an optional prefix: `X-Api-Key: <secret>`, `Authorization: Token <secret>`."""

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from credentials.presentation.refusal import PresentationInvalid, check_field_value
from credentials.secret import Secret

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)  # RFC 9110 section 5.6.2
_PREFIX: Final = re.compile(r"(?:[\x21-\x7e][\x20-\x7e]{0,63})?", re.ASCII)

# Fields that frame or route a message: a secret in one of them would change what the origin reads, or be consumed on
# the way (RFC 9110 section 7.6.1, RFC 9112 section 6).
FORBIDDEN_NAMES: Final = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    )
)


@dataclass(frozen=True, slots=True)
class Header:
    """The secret is the value of the field `name`, after `prefix` as it stands."""

    name: str
    prefix: str = ""
    kind: ClassVar[str] = "header"

    def __post_init__(self) -> None:
        if _TOKEN.fullmatch(self.name) is None:
            raise PresentationInvalid("a header name is 1 to 64 token characters")
        if self.name.lower() in FORBIDDEN_NAMES:
            raise PresentationInvalid(f"the header {self.name} frames or routes messages; it cannot carry a secret")
        # Origins that map fields to variables read `X_Api_Key` and `X-Api-Key` as one.
        if "_" in self.name:
            raise PresentationInvalid("a header name with an underscore is ambiguous to many origins; use a hyphen")
        if _PREFIX.fullmatch(self.prefix) is None:
            raise PresentationInvalid("a prefix is at most 64 visible ASCII characters and spaces")

    @property
    def header_name(self) -> bytes:
        """Lower-case field name."""
        return self.name.lower().encode("ascii")

    def check(self, secret: Secret) -> None:
        """Returns if the secret may stand in a field value; raises `SecretNotPresentable` if not."""
        check_field_value(secret)

    def render(self, secret: Secret) -> bytes:
        """The field's value. Raises as `check` does."""
        self.check(secret)
        return self.prefix.encode("ascii") + secret.reveal()
