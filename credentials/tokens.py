"""Agents' credentials: a signed token of one exact form, minutes to live.

JWS compact serialisation (RFC 7515 section 7.1) with EdDSA over Ed25519 (RFC 8037). We are the only issuer of what we
accept, so nothing in a token is negotiated:

1. The header segment must be, byte for byte, one of those we write. There is no header to parse: `alg` confusion,
   `none`, `kid` paths, `jku`, `jwk`, `x5u`, `x5c`, `crit`, `b64`, `zip`, duplicate members and white space all fail
   one look-up.
2. The signature is checked before the payload is decoded. No byte that we did not sign reaches a JSON parser.
3. The claims must be exactly the set we write, each of its exact type (RFC 8725 sections 3.8 to 3.12).

PyJWT is the independent reader in the tests; it is not used here because it decodes before it verifies, keeps the
last of two duplicate members and takes lists for `aud` and `iss`.
"""

import json
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from credentials.names import is_name, is_tenant
from credentials.principal import Principal
from credentials.revocation import lineage
from credentials.secret import Secret
from credentials.signing import SigningKey, encode_segment, thumbprint_of

__all__ = [
    "AUDIENCE",
    "MAX_LIFETIME_SECONDS",
    "MAX_TOKEN_BYTES",
    "CredentialRejected",
    "IssuedToken",
    "SigningKey",
    "TokenIssuer",
    "TokenVerifier",
    "thumbprint_of",
]

AUDIENCE: Final = "exeat"
TOKEN_TYPE: Final = "exeat+jwt"  # noqa: S105  explicit typing, RFC 8725 section 3.11
MAX_TOKEN_BYTES: Final = 4096
"""Our tokens are below 1 KiB; a proxy password of 4 KiB already troubles clients."""
MAX_LIFETIME_SECONDS: Final = 86_400
"""No policy can ask for more: a credential is meant to live for minutes."""
CLOCK_SKEW_SECONDS: Final = 30
"""Between hosts that share keys; two NTP-disciplined clocks differ by less than one second."""
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second that RFC 3339 can write."""

_CLAIMS: Final = frozenset(("aud", "epoch", "exp", "iat", "iss", "jti", "nbf", "run", "sub", "tenant", "workflow"))


class CredentialRejected(Exception):
    """The caller's credential does not identify it; the caller is answered 407 (or 401 inside a tunnel)."""

    def __init__(self, code: str, detail: str, principal: Principal | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        """`credential_missing`, `credential_invalid`, `credential_expired` or `credential_revoked`."""
        self.detail = detail
        """For the operator; holds no part of the token."""
        self.principal = principal
        """Whom the token names, where its signature proves that much: when expired or revoked."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new credential. `token` is shown to nobody but the one who asked for it."""

    token: Secret
    principal: Principal


class TokenIssuer:
    """Writes credentials. Decides nothing: its caller has checked policy and revocations."""

    def __init__(self, key: SigningKey, issuer: str) -> None:
        self._key = key
        self._issuer = issuer
        self._header = _header_segment(key.kid)

    def issue(
        self,
        *,
        tenant: str,
        account: str,
        workflow: str,
        run: str,
        epoch: int,
        ttl_seconds: int,
        now: int,
        renews: str | None = None,
    ) -> IssuedToken:
        """A token good for `ttl_seconds` from `now` (Unix seconds), bound to the run and to the revocation epoch.

        `renews` is the id of the credential that this one continues; both share a lineage and are revoked together.
        Raises `ValueError` for names that a token may not carry or a lifetime outside 1 to `MAX_LIFETIME_SECONDS`.
        """
        if not is_tenant(tenant):
            raise ValueError("the tenant is not a name of 1 to 64 letters, digits and ._-")
        for name, value in (("account", account), ("workflow", workflow), ("run", run)):
            if not is_name(value):
                raise ValueError(f"the {name} is not a name of 1 to 128 letters, digits and ._@:/+=-")
        if not 1 <= ttl_seconds <= MAX_LIFETIME_SECONDS:
            raise ValueError(f"a credential lives 1 to {MAX_LIFETIME_SECONDS} seconds")
        credential = _new_id("k_", 16) if renews is None else f"{lineage(renews)}.{_new_id('', 8)}"
        principal = Principal(tenant, account, workflow, run, credential, epoch, now, now + ttl_seconds)
        claims = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": account,
            "tenant": tenant,
            "workflow": workflow,
            "run": run,
            "jti": credential,
            "epoch": epoch,
            "iat": now,
            "nbf": now,
            "exp": principal.expires_at,
        }
        signed = f"{self._header}.{encode_segment(json.dumps(claims, separators=(',', ':')).encode())}"
        token = Secret(f"{signed}.{encode_segment(self._key.sign(signed.encode()))}")
        return IssuedToken(token, principal)


class TokenVerifier:
    """Reads credentials of one issuer. Holds public keys only."""

    def __init__(self, public_keys: Mapping[str, Ed25519PublicKey], issuer: str) -> None:
        """Tokens signed by any of `public_keys` (by `kid`) are accepted."""
        self._issuer = issuer
        self._keys = {_header_segment(kid): key for kid, key in public_keys.items()}

    def verify(self, token: str, now: float) -> Principal:
        """Whom the token proves at `now` (Unix seconds). Raises `CredentialRejected`; knows nothing of revocations."""
        if not token:
            raise CredentialRejected("credential_missing", "no credential was presented")
        if len(token) > MAX_TOKEN_BYTES:
            raise _invalid("the token is too long")
        if not token.isascii():
            raise _invalid("the token is not ASCII")
        segments = token.split(".", 3)
        if len(segments) != 3:
            raise _invalid("the token is not a JWS in compact serialisation")
        header, payload, signature = segments
        # RFC 8725 section 3.1: the algorithm is ours to choose, not the token's.
        key = self._keys.get(header)
        if key is None:
            raise _invalid("the token's header is not one of ours")
        try:
            key.verify(_decode(signature), f"{header}.{payload}".encode())
        except InvalidSignature:
            raise _invalid("the token's signature is wrong") from None
        return self._principal_of(_parse_claims(_decode(payload)), now)

    def _principal_of(self, claims: dict[str, object], now: float) -> Principal:
        if claims.keys() != _CLAIMS:
            raise _invalid("the token's claims are not the set we issue")
        # RFC 7519 allows `aud` to be a list; ours is one string, and so is `iss` (RFC 8725 sections 3.8, 3.9).
        if claims["aud"] != AUDIENCE:
            raise _invalid("the token is for another audience")
        if claims["iss"] != self._issuer:
            raise _invalid("the token is from another issuer")
        issued, not_before, expires = _second(claims, "iat"), _second(claims, "nbf"), _second(claims, "exp")
        epoch = _second(claims, "epoch")
        if not 1 <= expires - issued <= MAX_LIFETIME_SECONDS:
            raise _invalid("the token's lifetime is out of bounds")
        if not_before < issued or not_before >= expires:
            raise _invalid("the token's times contradict each other")
        tenant = _name(claims, "tenant")
        if not is_tenant(tenant):
            raise _invalid("the token's tenant is not a tenant's name")
        principal = Principal(
            tenant=tenant,
            account=_name(claims, "sub"),
            workflow=_name(claims, "workflow"),
            run=_name(claims, "run"),
            credential=_name(claims, "jti"),
            epoch=epoch,
            issued_at=issued,
            expires_at=expires,
        )
        if not_before > now + CLOCK_SKEW_SECONDS:
            raise _invalid("the token is not valid yet; compare the clocks")
        # RFC 7519 section 4.1.4: "on or after which the JWT MUST NOT be accepted". No leeway: expiry is a promise.
        if now >= expires:
            raise CredentialRejected("credential_expired", "the token has expired", principal)
        return principal


def _header_segment(kid: str) -> str:
    return encode_segment(json.dumps({"alg": "EdDSA", "typ": TOKEN_TYPE, "kid": kid}, separators=(",", ":")).encode())


def _new_id(prefix: str, size: int) -> str:
    # RFC 7519 section 4.1.7: "negligible probability" of being assigned twice; 16 bytes also cannot be guessed. Without
    # the dot, which separates a lineage from its renewals, and starting with a letter or digit after the prefix.
    return prefix + secrets.token_hex(size)


def _decode(segment: str) -> bytes:
    # RFC 7515 section 2: base64url "with all trailing '=' characters omitted and without the inclusion of any line
    # breaks, whitespace, or other additional characters". The library skips those and ignores surplus bits, so the
    # result is encoded again: one value has one spelling.
    try:
        data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise _invalid("a segment of the token is not base64url") from None
    if encode_segment(data) != segment:
        raise _invalid("a segment of the token is not canonical base64url")
    return data


def _parse_claims(payload: bytes) -> dict[str, object]:
    # Signed by us and strict all the same: a stolen or shared key must not gain a parser differential.
    try:
        claims = json.loads(
            payload.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError):
        raise _invalid("the token's payload is not strict JSON") from None
    if not isinstance(claims, dict):
        raise _invalid("the token's payload is not an object")
    return claims


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    # RFC 7519 section 4: "Claim Names within a JWT Claims Set MUST be unique".
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse_number(text: str) -> Never:
    raise ValueError("not an integer")


def _second(claims: Mapping[str, object], claim: str) -> int:
    value = claims[claim]
    # `True` is an int to Python and none to JSON.
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise _invalid(f"the token's {claim} is not an integer in range")
    return value


def _name(claims: Mapping[str, object], claim: str) -> str:
    value = claims[claim]
    if not isinstance(value, str) or not is_name(value):
        raise _invalid(f"the token's {claim} is not a name")
    return value


def _invalid(detail: str) -> CredentialRejected:
    return CredentialRejected("credential_invalid", detail)
