"""Targets and hosts: one documented reading of each, and a refusal of everything that has two.

Hosts (`normalise_host`): lower-case letters, digits and hyphens in non-empty labels of at most 63 bytes, 253 in all;
or an IPv4 address in its one dotted-decimal form; or an IPv6 literal in brackets, returned without them in RFC 5952
form. A name whose last label is a number in any base is no name (WHATWG URL, "ends in a number"), so `2130706433`,
`0x7f.1` and `127.1` are refused. So are trailing dots, userinfo, zone ids, IPv4 inside IPv6, and every byte outside
ASCII: an internationalised name comes as its A-label.

Paths (`normalise_path`): absolute; segments of RFC 3986 pchar without `;`; percent-encoding of UTF-8 alone, in
upper-case hexadecimal, with unreserved characters decoded (RFC 3986 section 6.2.2). Refused because some server reads
them otherwise: dot segments and empty segments, an encoded `/`, `\\`, `;`, `%xx` or control character, and characters
whose compatibility form is one of these. The result is what rules judge and what is sent.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn

from proxy.http.errors import RequestRefused
from proxy.http.query import overrides_method
from proxy.http.request_head import RequestHead
from rules.codes import Code
from rules.swift import swift

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LABEL: Final = rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(_LABEL + rb"(?:\." + _LABEL + rb")*")
_IPV6: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\]")
_NUMBER: Final = re.compile(rb"[0-9]+|0x[0-9a-f]*")
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([1-9][0-9]{0,4}))?")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?")
_PLAIN_PATH: Final = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9\-._~!$&'()*+,=:@]+)*/?")
_SEGMENT: Final = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,=:@%]*")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_QUERY: Final = re.compile(rb"""[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]{}|^`\\]*""")
# Decoded text of a segment that some server would take for structure: separators, parameters, a second encoding.
_STRUCTURE: Final = re.compile(r"[/\\;\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


@swift
@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, after admission. CONNECT host, Host header and target agree."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    """As it will be sent, without the question mark."""


def parse_connect_target(raw: bytes) -> tuple[str, int]:
    """The host and port of a CONNECT; the port is mandatory (RFC 9112 section 3.2.3). Raises RequestRefused."""
    host, port = _split_authority(raw)
    if port is None:
        _refuse("CONNECT needs host and port")
    return normalise_host(host), port


def parse_host_header(raw: bytes, default_port: int) -> tuple[str, int]:
    """The one host and port that a Host field names (RFC 9110 section 7.2). Raises RequestRefused."""
    host, port = _split_authority(raw)
    return normalise_host(host), default_port if port is None else port


def parse_origin_target(raw: bytes) -> tuple[str, str]:
    """Path and query of an origin-form target (RFC 9112 section 3.2.1). Raises RequestRefused."""
    if raw[:1] != b"/":
        # Also absolute-form and asterisk-form: in a tunnel the destination is settled, a second one contradicts it.
        _refuse("the request target has to be an absolute path here")
    path, _, query = raw.partition(b"?")
    return normalise_path(path), check_query(query)


def parse_absolute_target(raw: bytes) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, path and query of an absolute-form target (RFC 9112 section 3.2.2). Raises RequestRefused."""
    match = _ABSOLUTE.fullmatch(raw)
    if match is None:
        _refuse("the request target is no absolute URL")
    scheme = match[1].decode("ascii").lower()
    default_port = DEFAULT_PORTS.get(scheme)
    if default_port is None:
        raise RequestRefused(Code.PROTOCOL_REFUSED, "only http and https are carried", close=False)
    host, port = parse_host_header(match[2], default_port)
    return scheme, host, port, normalise_path(match[3] or b"/"), check_query(match[4] or b"")


def resolve_target(head: RequestHead, *, tunnel: tuple[str, int] | None = None, scheme: str = "https") -> Target:
    """The one destination of a request that is no CONNECT; every place that names one agrees. Raises RequestRefused.

    `tunnel` is the CONNECT's host and port: then the target is a path, and Host must name that host and port. Without
    it the target is an absolute URL, and Host must name the same (RFC 9112 section 3.2.2 lets a proxy ignore Host; a
    server behind us might not). `scheme` is what the tunnel carries.
    """
    host_field = head.host
    if host_field is None:
        _refuse("no Host header")
    if tunnel is not None:
        path, query = parse_origin_target(head.target)
        host, port = tunnel
    else:
        scheme, host, port, path, query = parse_absolute_target(head.target)
    if parse_host_header(host_field, DEFAULT_PORTS[scheme]) != (host, port):
        raise RequestRefused(Code.DESTINATION_MISMATCH, "Host and target name different destinations", close=False)
    return Target(scheme, host, port, path, query)


def format_authority(scheme: str, host: str, port: int) -> bytes:
    """The Host field for a normalised destination: brackets for IPv6, no default port."""
    name = f"[{host}]" if ":" in host else host
    return (name if DEFAULT_PORTS.get(scheme) == port else f"{name}:{port}").encode("ascii")


@lru_cache(maxsize=1024)
def normalise_host(raw: bytes) -> str:
    """The host in the form the module describes. Raises RequestRefused."""
    if raw[:1] == b"[":
        return _normalise_ipv6(raw)
    name = raw.lower()
    if len(name) > 253 or _NAME.fullmatch(name) is None:
        _refuse("the host is no DNS name in ASCII and no address")
    if _NUMBER.fullmatch(name.rpartition(b".")[2]):
        try:
            return str(ipaddress.IPv4Address(name.decode("ascii")))
        except ValueError:
            _refuse("an address has to be written as four decimal numbers")
    return name.decode("ascii")


def _normalise_ipv6(raw: bytes) -> str:
    match = _IPV6.fullmatch(raw)  # no zone id: it means something on one machine alone (RFC 4007 section 11.2)
    try:
        address = ipaddress.IPv6Address(match[1].decode("ascii") if match else "")
    except ValueError:
        _refuse("the brackets hold no IPv6 address")
    # RFC 4291 section 2.5.5: an IPv4 address in IPv6 clothes is another name for what has one already.
    if int(address) >> 32 in (0, 0xFFFF) and int(address) > 1:
        _refuse("an IPv4 address written as IPv6")
    return str(address)


def normalise_path(raw: bytes) -> str:
    """The path in the form the module describes. Raises RequestRefused."""
    if raw and _PLAIN_PATH.fullmatch(raw):
        return raw.decode("ascii")
    if raw[:1] != b"/":
        _refuse("the path is not absolute")
    if _BAD_ESCAPE.search(raw):
        _refuse("a percent sign without two hexadecimal digits")
    segments = raw[1:].split(b"/")
    for index, segment in enumerate(segments):
        if not segment and index < len(segments) - 1:
            _refuse("an empty path segment")
        if _SEGMENT.fullmatch(segment) is None:
            _refuse("a character that a path cannot hold")
        _check_decoded(_ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), segment))
    return _ESCAPE.sub(_canonical_escape, raw).decode("ascii")


def _check_decoded(segment: bytes) -> None:
    try:
        text = segment.decode("utf-8")  # refuses overlong forms, e.g. %C0%AE for a dot
    except UnicodeDecodeError:
        _refuse("percent-encoding that is not UTF-8")
    # Some servers fold compatibility forms (fullwidth stop and solidus) before they look at segments.
    for form in (text,) if text.isascii() else (text, unicodedata.normalize("NFKC", text)):
        if form in (".", ".."):
            _refuse("a dot segment")
        if _STRUCTURE.search(form):
            _refuse("an encoded separator, control character or second encoding")


def _canonical_escape(escape: re.Match[bytes]) -> bytes:
    byte = int(escape[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED else b"%%%02X" % byte


def check_query(raw: bytes) -> str:
    """The query unchanged: its characters and escapes are sound, no method's override in it. Raises RequestRefused.

    Wider than RFC 3986 by the characters that WHATWG URL leaves bare in a query. Repeated parameters, arrays and
    semicolons are carried: no rule reads a query, so no reading of it can pass one by (`proxy.http.query`).
    """
    if not raw:
        return ""
    if _QUERY.fullmatch(raw) is None:
        _refuse("a character that a query cannot hold")
    text = raw.decode("ascii")
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            _refuse("a percent sign without two hexadecimal digits")
        # %0A and %0D are data in a query (multi-line texts); NUL is nobody's data and ends strings in C.
        if b"%00" in raw:
            _refuse("an encoded NUL in the query")
    if overrides_method(text):
        raise RequestRefused(Code.METHOD_REFUSED, "a parameter that overrides the method", close=False)
    return text


def _split_authority(raw: bytes) -> tuple[bytes, int | None]:
    match = _AUTHORITY.fullmatch(raw)
    if match is None:
        _refuse("host and port are malformed")
    if match[2] is None:
        return match[1], None
    port = int(match[2])
    if port > 65535:
        _refuse("the port is above 65535")
    return match[1], port


def _refuse(detail: str) -> NoReturn:
    # The head was sound, so the connection's framing still is.
    raise RequestRefused(Code.AMBIGUOUS_TARGET, detail, close=False)
