"""Which header fields mean something to us, and what they mean. One table, read by the parsers and by `emit`."""

import re
from functools import lru_cache
from typing import Final

Headers = tuple[tuple[bytes, bytes], ...]
"""Fields in the order received; names lower-case, values without surrounding white space."""

TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 5.6.2. Use with fullmatch."""

FIELD_VALUE: Final = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
"""RFC 9110 section 5.5: no control character, no white space at either end. Use with fullmatch."""

SINGLETONS: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"proxy-authorization",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"content-disposition",
        b"content-md5",
        b"cookie",
        b"date",
        b"dpop",
        b"expect",
        b"from",
        b"idempotency-key",
        b"if-modified-since",
        b"if-range",
        b"if-unmodified-since",
        b"max-forwards",
        b"origin",
        b"range",
        b"referer",
        b"user-agent",
        b"api-key",
        b"apikey",
        b"x-api-key",
        b"x-auth-token",
        b"x-access-token",
        b"x-csrf-token",
        b"x-amz-security-token",
        b"x-amz-date",
        b"x-amz-content-sha256",
        b"x-goog-api-key",
        b"private-token",
        b"stripe-account",
        b"openai-organization",
        b"openai-project",
    }
)
"""Request fields that may come once. RFC 9110 section 5.3: only a list-based field may be repeated; two servers may
pick different ones of two values, so what we judged need not be what the origin uses."""

METHOD_OVERRIDES: Final = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-method", b"x-original-method"}
)
"""Frameworks (Rails, Symfony, ASP.NET, Google APIs) let these replace the method that was judged."""

TARGET_OVERRIDES: Final = frozenset(
    {
        b"x-original-url",
        b"x-original-uri",
        b"x-original-host",
        b"x-rewrite-url",
        b"x-rewrite-uri",
        b"x-override-url",
        b"x-http-host-override",
        b"x-http-path-override",
        b"x-http-destinationurl",
        b"x-envoy-original-path",
        b"x-envoy-original-host",
    }
)
"""Fields by which IIS, Symfony, Envoy and others replace the path or host that was judged."""

CREDENTIALS: Final = frozenset(
    {
        b"authorization",
        b"api-key",
        b"apikey",
        b"x-api-key",
        b"x-auth-token",
        b"x-access-token",
        b"x-goog-api-key",
        b"private-token",
    }
)
"""Fields in which services take a credential. Where ours is attached in one of them, the agent's own in another would
make two, of which the origin picks one: the agent's, of an account that no policy named."""

UPGRADES: Final = frozenset(
    {
        b"upgrade",
        b"http2-settings",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
        b"sec-websocket-accept",
    }
)
"""RFC 9110 section 7.8, RFC 9113 section 3.1 (h2c), RFC 6455."""

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings", b"proxy-connection"}
)
"""RFC 9110 section 7.6.1: about one connection, so never carried to the next."""

FORWARDING: Final = frozenset(
    {
        b"forwarded",
        b"via",
        b"max-forwards",
        b"x-real-ip",
        b"x-client-ip",
        b"client-ip",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"x-cluster-client-ip",
        b"x-originating-ip",
        b"x-remote-ip",
        b"x-remote-addr",
        b"x-host",
        b"x-forwarded",
        # httpoxy (CVE-2016-5385): CGI makes HTTP_PROXY of it, by which the origin's own calls go astray.
        b"proxy",
        b"alt-used",
    }
)
"""What an agent says about where it is or which way it came; an origin that trusts its proxies would believe it."""

DROPPED_PREFIXES: Final = (b"proxy-", b"x-forwarded-", b"exeat-")
"""`Proxy-*` is between the agent and us; `X-Forwarded-*` as FORWARDING; `Exeat-*` is ours to say, both ways."""

FRAMING: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
"""Always written by us from what was parsed, never copied."""

NOT_NOMINABLE: Final = SINGLETONS | METHOD_OVERRIDES | TARGET_OVERRIDES | frozenset({b"accept", b"prefer", b"if-match"})
"""Names a `Connection` field may not list: a hop that obeys the list would strip what was judged or attached.
RFC 9110 section 7.6.1: a sender MUST NOT list fields intended for all recipients."""


_PLAIN: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
_FOLDED: Final = bytes(byte if chr(byte).isalnum() and byte < 0x80 else ord("-") for byte in range(256))


def has_twin(name: bytes) -> bool:
    """True for a name with punctuation other than the hyphen: some origin may take it for another name."""
    return bool(name.translate(None, _PLAIN))


def canonical_name(name: bytes) -> bytes:
    """The name as CGI-like origins see it: `X_Api_Key` and `x-api-key` are one variable there (RFC 3875, 4.1.18), and
    with some servers `x.api.key` too: they turn all punctuation into underscores."""
    return name.lower().translate(_FOLDED)


def joins_credentials(value: bytes) -> bool:
    """True for an Authorization value that holds two credentials. RFC 9110 section 11.4: token68 has no comma; schemes
    with parameters (Digest, AWS4-HMAC-SHA256, Rails's Token) do."""
    scheme, _, credentials = value.partition(b" ")
    return scheme.lower() in _TOKEN68_SCHEMES and b"," in credentials


_TOKEN68_SCHEMES: Final = frozenset({b"bearer", b"basic", b"dpop"})


def is_security_relevant(name: bytes) -> bool:
    """True for a lower-case name whose meaning we rely on or guard; its underscore twin is refused."""
    return (
        name in NOT_NOMINABLE
        or name in UPGRADES
        or name in HOP_BY_HOP
        or name in FORWARDING
        or name.startswith(DROPPED_PREFIXES)
    )


def connection_options(value: bytes) -> frozenset[bytes] | None:
    """The lower-case options of one Connection field; None where it is no list of tokens (RFC 9110 section 7.6.1), or
    longer than any honest one."""
    return _options(value) if len(value) <= _MAX_CONNECTION_BYTES else None


_MAX_CONNECTION_BYTES: Final = 512
"""Few values are ever seen, so they are remembered; the bound keeps an agent from filling the memory."""


@lru_cache(maxsize=256)
def _options(value: bytes) -> frozenset[bytes] | None:
    options = [option for part in value.lower().split(b",") if (option := part.strip(b" \t"))]
    return frozenset(options) if all(map(TOKEN.fullmatch, options)) else None
