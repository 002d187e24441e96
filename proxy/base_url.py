"""The base-URL door: `/to/<connection>/<path>`, for clients that ignore proxies and take a base URL.

The agent's credential stands where the SDK puts its API key. It is known by its shape, in exactly one place, and goes
no further: the header or the query parameter that carried it is removed before anything is judged. What is left is the
same request that a tunnel would have brought, and takes the same way.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from credentials.tokens import MAX_TOKEN_BYTES, CredentialRejected
from proxy.http.errors import RequestRefused
from proxy.http.headers import Headers, canonical_name
from proxy.http.query import stems
from proxy.http.request_head import RequestHead
from proxy.http.target import check_query, normalise_path, parse_host_header
from rules.codes import Code

PREFIX: Final = b"/to/"

HEADER_PLACES: Final = (
    b"proxy-authorization",
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"private-token",
)
"""Where SDKs put an API key: OpenAI, GitHub, Slack and Stripe (bearer or basic), Anthropic, Azure, Google, GitLab; and
where a proxy's credential stands."""

QUERY_PLACES: Final = (b"key", b"api_key", b"apikey", b"access_token", b"token")
"""Names under which Google and older APIs take a key in the URL."""

_TARGET: Final = re.compile(rb"/to/([a-z0-9][a-z0-9._-]{0,127})(/[^?]*)?(?:\?(.*))?", re.DOTALL)
# RFC 7515 section 7.1: three base64url parts; the first of ours is a JSON object, so it begins with `{"`.
_TOKEN: Final = re.compile(rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Presented:
    """An agent's credential as a base-URL request carried it. `token` is not verified."""

    token: str
    header: bytes | None
    """Lower-case name of the field that carried it; None: a query parameter did."""
    target: bytes
    """The request's target without the credential."""


@dataclass(frozen=True, slots=True)
class BaseTarget:
    """What a base-URL request asks for, in normalised form."""

    connection: str
    path: str
    query: str


def is_base_url(head: RequestHead) -> bool:
    """True for a request outside of any tunnel that names its target by path: it came to the base-URL door."""
    return head.target[:1] == b"/"


def find_credential(head: RequestHead) -> Presented:
    """The one credential of the request. Raises `CredentialRejected`: missing, or invalid where there are two, or
    where something else stands in its place.

    Nothing that will be forwarded contains it.
    """
    found: list[tuple[bytes | None, bytes]] = []
    other = False
    for name, value in head.headers:
        if name in HEADER_PLACES:
            token = _in_header(value)
            if token is None:
                other = True
            else:
                found.append((name, token))
    path, mark, query = head.target.partition(b"?")
    kept: list[bytes] = []
    key: bytes | None = None
    for parameter in query.split(b"&") if mark else ():
        name, _, value = parameter.partition(b"=")
        if name in QUERY_PLACES and _TOKEN.fullmatch(value) is not None:
            found.append((None, value))
            key = name
        else:
            kept.append(parameter)
    if not found:
        if other:
            raise CredentialRejected("credential_invalid", "what stands in the API key's place is no Exeat credential")
        raise CredentialRejected("credential_missing", "an Exeat credential has to stand where the API key goes")
    if len(found) > 1:
        raise CredentialRejected("credential_invalid", "the credential is given in more than one place")
    header, token = found[0]
    if len(token) > MAX_TOKEN_BYTES:
        raise CredentialRejected("credential_invalid", "the credential is too long")
    target = path + b"?" + b"&".join(kept) if kept else path
    if key is not None and canonical_name(key) in stems(b"&".join(kept).decode("ascii")):
        # Of two the service would see the one that is left: a key of an account that no policy named.
        raise CredentialRejected("credential_invalid", "the parameter with the credential is given twice")
    _refuse_copies(token, header, target, head.headers)
    return Presented(token.decode("ascii"), header, target)


def _in_header(value: bytes) -> bytes | None:
    """The credential in a field's value: bare, after a scheme, or as either half of a Basic pair."""
    if _TOKEN.fullmatch(value) is not None:
        return value
    scheme, _, parameter = value.partition(b" ")
    parameter = parameter.strip(b" ")
    if scheme.lower() in (b"bearer", b"token"):  # GitHub's older clients say `token`
        return parameter if _TOKEN.fullmatch(parameter) is not None else None
    if scheme.lower() == b"basic":
        try:
            user, _, password = base64.b64decode(parameter, validate=True).partition(b":")
        except binascii.Error:
            return None
        # Stripe puts its key where the user goes, Twilio and git where the password does.
        halves = [half for half in (password, user) if _TOKEN.fullmatch(half) is not None]
        return halves[0] if halves else None
    return None


def _refuse_copies(token: bytes, header: bytes | None, target: bytes, headers: Headers) -> None:
    """A copy elsewhere would travel on to the service."""
    elsewhere = any(_holds(value, token) for name, value in headers if name != header)
    if elsewhere or token in _unescaped(target):
        raise CredentialRejected("credential_invalid", "the credential is given in more than one place")


def _holds(value: bytes, token: bytes) -> bool:
    """Bare, percent-encoded as in a cookie or a Referer, or in a Basic pair under whatever name."""
    if token in value or (b"%" in value and token in _unescaped(value)):
        return True
    scheme, _, parameter = value.partition(b" ")
    if scheme.lower() != b"basic":
        return False
    try:
        return token in base64.b64decode(parameter.strip(b" "), validate=True)
    except binascii.Error:
        return False


def _unescaped(raw: bytes) -> bytes:
    return _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), raw)


def parse_base_target(raw: bytes) -> BaseTarget:
    """Connection, path and query of a target without its credential. Raises `RequestRefused`."""
    match = _TARGET.fullmatch(raw)
    if match is None:
        raise RequestRefused(
            Code.AMBIGUOUS_TARGET,
            "a path here has to be /to/<connection>/..., with the connection's name from the policy",
            close=False,
        )
    return BaseTarget(match[1].decode("ascii"), normalise_path(match[2] or b"/"), check_query(match[3] or b""))


def connection_name(target: bytes) -> str | None:
    """The connection that a raw target names; None for one that is no base-URL target."""
    match = _TARGET.fullmatch(target)
    return None if match is None else match[1].decode("ascii")


def check_own_host(raw: bytes | None, names: tuple[str, ...]) -> bytes:
    """The Host field, which names this gate: an address, `localhost`, or one of `names`. Raises `RequestRefused`.

    A name that is not ours may be a service's: what the agent believes to talk to would not be what it talks to. And a
    name that somebody else's DNS leads here is how a web page reaches a listener on loopback (DNS rebinding).
    """
    host, _ = parse_host_header(raw or b"", 80)
    if host != "localhost" and host not in names:
        try:
            ip_address(host)
        except ValueError:
            raise RequestRefused(
                Code.DESTINATION_MISMATCH, "Host is neither an address nor a name of this gate", close=False
            ) from None
    return raw or b""
