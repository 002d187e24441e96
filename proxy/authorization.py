"""The agent's credential as a request carries it: `Proxy-Authorization`, Bearer, or Basic with the account as user."""

import base64
import binascii
from typing import Final

from credentials.tokens import CredentialRejected

_MAX_HEADER: Final = 8192


def proxy_token(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    """The token, unverified. Raises `CredentialRejected`: missing when there is none, invalid when it is malformed."""
    values = [value for name, value in headers if name == b"proxy-authorization"]
    if not values:
        raise CredentialRejected("credential_missing", "this proxy needs an Exeat credential")
    if len(values) > 1 or len(values[0]) > _MAX_HEADER:
        raise CredentialRejected("credential_invalid", "exactly one Proxy-Authorization header is accepted")
    scheme, _, parameter = values[0].partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return parameter.strip().decode("ascii")
        if scheme.lower() == b"basic":
            # RFC 7617 2: the user may not contain a colon, the password may.
            _, colon, password = base64.b64decode(parameter.strip(), validate=True).partition(b":")
            if colon:
                return password.decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialRejected("credential_invalid", "the Proxy-Authorization header cannot be read") from error
    raise CredentialRejected("credential_invalid", "Proxy-Authorization must be Bearer, or Basic account:credential")
