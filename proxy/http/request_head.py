"""A request's head: read by llhttp, then every field judged for what two readers could read differently."""

import re
from dataclasses import dataclass
from typing import Final, NoReturn

import httptools

from proxy.http.errors import RequestRefused
from proxy.http.headers import (
    METHOD_OVERRIDES,
    SINGLETONS,
    TARGET_OVERRIDES,
    UPGRADES,
    Headers,
    canonical_name,
    connection_options,
    has_twin,
    is_security_relevant,
    joins_credentials,
)
from rules.codes import Code
from rules.swift import swift

_LENGTH: Final = re.compile(rb"[0-9]{1,15}")

_MEANINGFUL: Final = (
    SINGLETONS | METHOD_OVERRIDES | TARGET_OVERRIDES | UPGRADES | {b"connection", b"keep-alive", b"proxy-connection"}
)


@swift
@dataclass(frozen=True, slots=True)
class RequestHead:
    """One request's head, syntactically sound. The target is still raw: `proxy.http.target` parses it."""

    method: str
    target: bytes
    version: str
    """`HTTP/1.1`; `HTTP/1.0` for a CONNECT alone."""
    headers: Headers
    host: bytes | None
    """The one Host field, raw. None only for CONNECT over HTTP/1.0."""
    content_length: int | None
    chunked: bool
    expect_continue: bool
    keep_alive: bool

    @property
    def has_body(self) -> bool:
        """True where at least one body byte or chunk header follows."""
        return self.chunked or bool(self.content_length)

    def get(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name."""
        for field, value in self.headers:
            if field == name:
                return value
        return None


class _Fields:
    """What llhttp reports of one head."""

    __slots__ = ("complete", "fields", "url")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def read_head(raw: bytes, max_header_count: int) -> RequestHead:
    seen = _Fields()
    llhttp = httptools.HttpRequestParser(seen)
    try:
        llhttp.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT, or an Upgrade that is refused below; either way the head is complete
    except httptools.HttpParserInvalidURLError:
        _refuse(Code.AMBIGUOUS_TARGET, "the request target has no form of RFC 9112 section 3.2")
    except httptools.HttpParserError as error:
        _refuse_like_llhttp(str(error))
    method, target, tail = raw[: raw.index(b"\r\n")].split(b" ")
    if not seen.complete or seen.url != target or llhttp.get_method() != method:
        _refuse(Code.MALFORMED_REQUEST, "two readers read this head differently")
    if len(seen.fields) > max_header_count:
        _refuse(Code.HEADERS_TOO_LARGE, f"more than {max_header_count} header fields")
    return _judge_fields(method.decode(), target, tail.decode(), tuple(seen.fields))


def _refuse_like_llhttp(reason: str) -> NoReturn:
    if "Content-Length" in reason or "Transfer-Encoding" in reason:
        _refuse(Code.AMBIGUOUS_FRAMING, "Content-Length or Transfer-Encoding is malformed or repeated")
    _refuse(Code.MALFORMED_REQUEST, "the header section does not follow RFC 9112")


def _judge_fields(method: str, target: bytes, version: str, fields: Headers) -> RequestHead:
    known: dict[bytes, bytes] = {}
    keep_alive = version == "HTTP/1.1"
    for name, value in fields:
        if name in _MEANINGFUL:
            if name == b"connection":
                options = connection_options(value)
                if options is None:
                    _refuse(Code.MALFORMED_REQUEST, "Connection is not a list of tokens")
                if b"close" in options:
                    keep_alive = False
                if b"upgrade" in options or b"http2-settings" in options:
                    _refuse(Code.UPGRADE_REFUSED, "upgrades are not carried")
            elif name in known:
                _refuse_repeated(name)
            known[name] = value
        elif has_twin(name) and is_security_relevant(canonical_name(name)):
            _refuse(Code.MALFORMED_REQUEST, "a header name whose twin with hyphens means something to us")
    if not known.keys().isdisjoint(UPGRADES):
        _refuse(Code.UPGRADE_REFUSED, "upgrades are not carried")
    if not known.keys().isdisjoint(METHOD_OVERRIDES):
        _refuse(Code.METHOD_REFUSED, "a header that overrides the method")
    if not known.keys().isdisjoint(TARGET_OVERRIDES):
        _refuse(Code.AMBIGUOUS_TARGET, "a header that overrides the target")
    host = known.get(b"host")
    # RFC 9112 section 3.2: a request without Host, or with more than one, MUST be answered with 400.
    if host is None and version == "HTTP/1.1":
        _refuse(Code.AMBIGUOUS_TARGET, "no Host header")
    # RFC 9110 section 8.3: one media type. A joined pair is read as its first by some and as its last by others.
    if b"," in known.get(b"content-type", b""):
        _refuse(Code.MALFORMED_REQUEST, "Content-Type names more than one type")
    for name in (b"authorization", b"proxy-authorization"):
        if name in known and joins_credentials(known[name]):
            _refuse(Code.MALFORMED_REQUEST, "two credentials in one field")
    content_length, chunked = _judge_framing(known, version, connect=method == "CONNECT")
    expect = known.get(b"expect")
    # RFC 9110 section 10.1.1: an expectation that is not understood is not met.
    if expect is not None and expect.lower() != b"100-continue":
        _refuse(Code.PROTOCOL_REFUSED, "an expectation other than 100-continue")
    return RequestHead(
        method=method,
        target=target,
        version=version,
        headers=fields,
        host=host,
        content_length=content_length,
        chunked=chunked,
        expect_continue=expect is not None and (chunked or bool(content_length)),
        keep_alive=keep_alive,
    )


def _refuse_repeated(name: bytes) -> NoReturn:
    if name == b"host":
        _refuse(Code.AMBIGUOUS_TARGET, "more than one Host header")
    if name in (b"content-length", b"transfer-encoding"):
        _refuse(Code.AMBIGUOUS_FRAMING, "a framing header is repeated")
    if name in UPGRADES:
        _refuse(Code.UPGRADE_REFUSED, "upgrades are not carried")
    _refuse(Code.MALFORMED_REQUEST, "a header that may come once is repeated")


def _judge_framing(known: dict[bytes, bytes], version: str, *, connect: bool) -> tuple[int | None, bool]:
    length, coding = known.get(b"content-length"), known.get(b"transfer-encoding")
    if length is None and coding is None:
        return None, False
    if length is not None and coding is not None:
        # RFC 9112 section 6.1: such a message ought to be handled as an error.
        _refuse(Code.AMBIGUOUS_FRAMING, "both Content-Length and Transfer-Encoding")
    if connect and length != b"0":
        # RFC 9110 section 9.3.6: content in a CONNECT request has no defined semantics.
        _refuse(Code.AMBIGUOUS_FRAMING, "CONNECT with a body")
    if coding is not None:
        # RFC 9112 section 6.1: no Transfer-Encoding below HTTP/1.1; and a coding beside chunked would hide the body.
        if version != "HTTP/1.1" or coding.lower() != b"chunked":
            _refuse(Code.AMBIGUOUS_FRAMING, "Transfer-Encoding other than chunked")
        return None, True
    if length is None or _LENGTH.fullmatch(length) is None:
        _refuse(Code.AMBIGUOUS_FRAMING, "Content-Length is not a number")
    return int(length), False


def _refuse(code: Code, detail: str) -> NoReturn:
    raise RequestRefused(code, detail)
