"""A response's head: read by llhttp, its status line and framing judged as strictly as a request's."""

import re
from dataclasses import dataclass
from typing import Final

import httptools

from proxy.http.errors import ResponseRefused
from proxy.http.headers import Headers, canonical_name, connection_options, has_twin
from rules.swift import swift

# RFC 9112 section 4. The space before an empty phrase is mandatory there, often missing, and nothing hangs on it.
_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_ONCE: Final = frozenset(
    {
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"content-location",
        b"content-disposition",
        b"location",
        b"etag",
        b"retry-after",
    }
)
"""A second one lets two readers follow different ones. RFC 9110 section 5.3: none of these is a list."""
_FRAMING_TWINS: Final = frozenset({b"content-length", b"transfer-encoding"})
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*+("?)')
"""Quoted text, also without its end: were that no match, each quote in it would be tried as another beginning, which
takes an origin's 32 KB seconds of the loop."""


@swift
@dataclass(frozen=True, slots=True)
class ResponseHead:
    """One response's head, syntactically sound."""

    status: int
    reason: bytes
    headers: Headers
    content_length: int | None
    """As declared, also for HEAD and 304, whose bodies are empty whatever it says."""
    chunked: bool
    until_close: bool
    """The body ends with the connection (RFC 9112 section 6.3, rule 8)."""
    bodyless: bool
    """No body follows: HEAD, 204, 304."""
    keep_alive: bool

    def get(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name."""
        for field, value in self.headers:
            if field == name:
                return value
        return None


class _Fields:
    """What llhttp reports of one head."""

    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def read_response_head(raw: bytes, request_method: str, max_header_count: int) -> ResponseHead:
    """The head in `raw`, which ends with its empty line. Raises ResponseRefused. 101 is refused, other 1xx come
    back."""
    end = raw.index(b"\r\n")
    line = _LINE.fullmatch(raw, 0, end)
    if line is None:
        raise ResponseRefused("the status line is not of HTTP/1.1")
    status = int(line[2])
    # RFC 9110 section 15.2.2: a server switches only to what was asked for, and nothing was.
    if status == 101:
        raise ResponseRefused("unsolicited protocol switch")
    seen = _Fields()
    llhttp = httptools.HttpResponseParser(seen)
    try:
        llhttp.feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise ResponseRefused("unsolicited protocol switch") from None
    except httptools.HttpParserError:
        raise ResponseRefused("the header section does not follow RFC 9112") from None
    if not seen.complete or llhttp.get_status_code() != status:
        raise ResponseRefused("two readers read this head differently")
    if len(seen.fields) > max_header_count:
        raise ResponseRefused("too many header fields")
    return _judge(status, raw[line.end(2) + 1 : end], line[1] == b"1", tuple(seen.fields), request_method)


def _judge(status: int, reason: bytes, http11: bool, fields: Headers, request_method: str) -> ResponseHead:
    once: dict[bytes, bytes] = {}
    options: frozenset[bytes] = frozenset()
    for name, value in fields:
        if name == b"connection":
            listed = connection_options(value)
            if listed is None:
                raise ResponseRefused("Connection is not a list of tokens")
            options |= listed
        elif name in _ONCE:
            if name in once:
                raise ResponseRefused("a field that may come once is repeated")
            once[name] = value
        elif has_twin(name) and canonical_name(name) in _FRAMING_TWINS:
            raise ResponseRefused("a field name that some readers take for framing")
    # As with requests: a joined pair is read as its first by some and as its last by others.
    if names_several(once.get(b"content-type", b"")):
        raise ResponseRefused("Content-Type names more than one type")
    length, coding = once.get(b"content-length"), once.get(b"transfer-encoding")
    # RFC 9112 section 6.3 rule 3: both is an attempt at response splitting or worse.
    if length is not None and coding is not None:
        raise ResponseRefused("both Content-Length and Transfer-Encoding")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise ResponseRefused("Content-Length is not a number")
    if coding is not None and (not http11 or coding.lower() != b"chunked"):
        raise ResponseRefused("Transfer-Encoding other than chunked")
    # RFC 9110 section 15.3.6: no content in a 205. Some clients take that for the framing and read on behind the head,
    # so nothing but a length of zero will do: what a chunk or a close would show comes when the head is gone.
    if status == 205 and (length is None or int(length) > 0):
        raise ResponseRefused("205 with content")
    bodyless = request_method == "HEAD" or status in (204, 304) or status < 200
    # RFC 9112 section 6.1: no Transfer-Encoding, RFC 9110 section 8.6: no Content-Length in 1xx and 204. A server
    # that sends one may send the body too, so such a connection is not used again.
    confused = (status < 200 or status == 204) and (coding is not None or length not in (None, b"0"))
    until_close = not bodyless and length is None and coding is None
    keep_alive = http11 and b"close" not in options and not until_close and not confused
    return ResponseHead(
        status=status,
        reason=reason,
        headers=fields,
        content_length=None if length is None else int(length),
        chunked=coding is not None and not bodyless,
        until_close=until_close,
        bodyless=bodyless,
        keep_alive=keep_alive,
    )


def names_several(content_type: bytes) -> bool:
    """Whether a comma stands outside of quoted text. Takes time in proportion to the length."""
    return b"," in _QUOTED.sub(lambda quoted: b"" if quoted[1] else quoted[0], content_type)
