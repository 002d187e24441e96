"""Requests of agents, tokenised by llhttp and refused wherever two readers could read them differently.

One message at a time. `feed` what arrived; `head`, `take_body()` and `complete` say how far the message is; bytes of a
pipelined next request are kept unparsed until `next()`. What is refused, in the order in which it is judged; the order
depends on the bytes alone and not on how they were split:

 1. a first byte that begins no method (TLS, binary protocols, a blank line): at once
 2. the request line: method, form and version, as soon as the line is there
 3. a bare CR or LF, a control character: as soon as it is there
 4. a head above the limits: before more than the limit is held
 5. llhttp's own strictness, then one field after the other, then Host, framing and body size: when the head is complete
 6. the chunked coding: as it arrives
"""

import re
from typing import Final, NoReturn

from proxy.http.chunked import ChunkDecoder, ChunkError
from proxy.http.errors import RequestRefused
from proxy.http.limits import HttpLimits
from proxy.http.request_head import RequestHead, read_head
from rules.codes import Code

__all__ = ["METHODS", "RequestHead", "RequestParser"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""RFC 9110 section 9.3 and RFC 5789. Left out: TRACE (reflects credentials), and WebDAV's COPY and MOVE, whose second
target stands in a header that no rule judges."""

_LINE: Final = re.compile(rb"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.1")
_ANY_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+)(?: HTTP/([0-9])\.([0-9]))?")
_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEAD_BYTES: Final = bytes(byte for byte in range(256) if byte in b"\t\r\n" or (byte >= 0x20 and byte != 0x7F))
_STRAY_DETAIL: Final = "control character, bare CR or bare LF in the header section"
_STRAY: Final = re.compile(rb"\r(?!\n|\Z)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class RequestParser:
    """Reads the requests of one agent's connection, one at a time.

    Every method that raises RequestRefused leaves the parser refusing: the connection is to be answered and closed.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_chunks",
        "_connect",
        "_left",
        "_limits",
        "_line_judged",
        "_pending",
        "_refusal",
        "_scanned",
        "complete",
        "head",
    )

    def __init__(self, limits: HttpLimits | None = None, *, connect: bool = False) -> None:
        """`connect` True at the agent-facing door alone: it admits CONNECT, which is refused inside a tunnel."""
        self._limits = limits or HttpLimits()
        self._connect = connect
        self._pending = bytearray()
        self._refusal: RequestRefused | None = None
        self._reset()

    def _reset(self) -> None:
        self.head: RequestHead | None = None
        self.complete = False
        self._scanned = 0
        self._line_judged = False
        self._left = 0
        self._chunks: ChunkDecoder | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0

    @property
    def idle(self) -> bool:
        """True between two messages: the agent may close here without having broken off a request."""
        return self.head is None and not self._pending

    @property
    def buffered(self) -> int:
        """Bytes held: body not yet taken, an incomplete head, pipelined requests."""
        return self._body_bytes + len(self._pending)

    @property
    def announced(self) -> int:
        """Bytes of body that are known to come: the declared length, or the chunks that have begun so far."""
        if self._chunks is not None:
            return self._chunks.body_bytes
        return 0 if self.head is None else self.head.content_length or 0

    @property
    def wants_pause(self) -> bool:
        """True while more than `pause_bytes` are held: the caller stops reading until it has consumed some."""
        return self.buffered > self._limits.pause_bytes

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises RequestRefused; look at `head`, `take_body()` and `complete` afterwards."""
        if self._refusal is not None:
            raise self._refusal
        try:
            if self.complete:
                self._keep(data)
            elif self.head is not None:
                self._feed_body(data, 0)
            elif data:
                self._feed_head(data)
        except RequestRefused as refusal:
            self._refusal = refusal
            raise

    def take_body(self) -> bytes:
        """The body bytes decoded since the last call; empty when there are none yet, or no more."""
        if not self._body:
            return b""
        taken = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._body_bytes = 0
        return taken

    def next(self) -> None:
        """Turn to the next message, which may be there already. Only after `complete`. Raises RequestRefused."""
        if not self.complete:
            raise RuntimeError("next() before the message is complete")
        rest = bytes(self._pending)
        self._pending.clear()
        self._reset()
        self.feed(rest)

    def take_tunnel_bytes(self) -> bytes:
        """Bytes that followed a CONNECT's head: the first of the tunnel, not HTTP of this connection."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    # --- the head -----------------------------------------------------------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        limits = self._limits
        if not self._pending:
            end = data.find(b"\r\n\r\n")
            if 0 <= end <= limits.max_header_bytes - 4:  # the usual case: nothing is copied
                self._take_head(data, end + 4)
                return
        self._pending += data
        held = self._pending
        end = held.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if 0 <= end <= limits.max_header_bytes - 4:
            data = bytes(held)
            held.clear()
            self._take_head(data, end + 4)
            return
        self._judge_line(held)
        # A CR may still be followed by its LF, so the last byte is judged again with the next.
        if _STRAY.search(held, max(0, self._scanned - 1), limits.max_header_bytes):
            _refuse(Code.MALFORMED_REQUEST, _STRAY_DETAIL)
        self._scanned = len(held)
        if len(held) >= limits.max_header_bytes:
            _refuse(Code.HEADERS_TOO_LARGE, f"header section above {limits.max_header_bytes} bytes")

    def _take_head(self, data: bytes, end: int) -> None:
        head = data[:end]
        self._judge_line(head)
        if head.translate(None, _HEAD_BYTES) or not head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r"):
            _refuse(Code.MALFORMED_REQUEST, _STRAY_DETAIL)
        limits = self._limits
        self.head = read_head(head, limits.max_header_count)
        if self.head.content_length is not None:
            self._left = self.head.content_length
            if limits.max_body_bytes is not None and self._left > limits.max_body_bytes:
                _refuse(Code.BODY_TOO_LARGE, f"the declared body is longer than {limits.max_body_bytes} bytes")
        elif self.head.chunked:
            self._chunks = ChunkDecoder(free_chunks=limits.free_chunks, max_extension_bytes=0, max_trailer_bytes=0)
        self._feed_body(data, end)

    def _judge_line(self, prefix: bytes | bytearray) -> None:
        if self._line_judged:
            return
        if prefix[0] not in _TOKEN_BYTES:
            # RFC 9112 section 2.2 asks a server to skip an empty line here; the rest of a smuggled body may begin
            # with it.
            if prefix[0] in b"\r\n \t":
                _refuse(Code.MALFORMED_REQUEST, "blank before the request line")
            _refuse(Code.PROTOCOL_REFUSED, "these bytes are not HTTP/1.1")
        stop = prefix.find(b"\r\n")
        match = _LINE.fullmatch(prefix, 0, stop) if stop >= 0 else None
        if match is not None and match[1].decode() in METHODS and len(match[2]) <= self._limits.max_target_bytes:
            self._line_judged = True
            return
        self._explain_line(prefix if stop < 0 else prefix[:stop], ended=stop >= 0)

    def _explain_line(self, line: bytes | bytearray, *, ended: bool) -> None:
        """Refuse a request line that is none of ours; return where it may become one or is an admitted CONNECT."""
        # The longest line that can still be ours: method, two spaces, the target, the version.
        longest = self._limits.max_target_bytes + len("OPTIONS  HTTP/1.1")
        stray = re.search(rb"[^\x20-\x7e]", line[:-1] if line[-1:] == b"\r" and not ended else line)
        if stray is not None and stray.start() <= longest:
            _refuse(Code.MALFORMED_REQUEST, "control or 8-bit character in the request line")
        if len(line) > longest + (0 if ended else 1):
            _refuse(Code.HEADERS_TOO_LARGE, f"request target above {self._limits.max_target_bytes} bytes")
        if not ended:
            return
        match = _ANY_LINE.fullmatch(line)
        if match is None:
            if b" HTTP/" in line:
                _refuse(Code.MALFORMED_REQUEST, "the request line is not `method target HTTP/1.1`")
            _refuse(Code.PROTOCOL_REFUSED, "these bytes are not HTTP/1.1")
        method, target, major, minor = match.groups()
        # No version is HTTP/0.9. Python before 3.12 sends its CONNECT over HTTP/1.0, so that much is understood.
        if (major, minor) != (b"1", b"1") and not (method == b"CONNECT" and (major, minor) == (b"1", b"0")):
            _refuse(Code.PROTOCOL_REFUSED, "the version is not HTTP/1.1")
        if method == b"CONNECT" and not self._connect:
            _refuse(Code.METHOD_REFUSED, "CONNECT inside a tunnel")
        if method != b"CONNECT" and method.decode() not in METHODS:
            _refuse(Code.METHOD_REFUSED, "this method is not carried")
        if len(target) > self._limits.max_target_bytes:
            _refuse(Code.HEADERS_TOO_LARGE, f"request target above {self._limits.max_target_bytes} bytes")
        self._line_judged = True

    # --- the body -----------------------------------------------------------------------------------------------------

    def _feed_body(self, data: bytes, at: int) -> None:
        if self._chunks is not None:
            at = self._feed_chunks(self._chunks, data, at)
        elif self._left:
            piece = data[at : at + self._left]
            if piece:
                at += len(piece)
                self._left -= len(piece)
                self._body.append(piece)
                self._body_bytes += len(piece)
            self.complete = self._left == 0
        else:
            self.complete = True
        if at < len(data):
            self._keep(data[at:])

    def _feed_chunks(self, chunks: ChunkDecoder, data: bytes, at: int) -> int:
        maximum = self._limits.max_body_bytes
        already = len(self._body)
        try:
            at = chunks.feed(data, at, self._body, maximum)
        except ChunkError as error:
            _refuse(Code.AMBIGUOUS_FRAMING if error.framing else Code.MALFORMED_REQUEST, error.detail)
        finally:
            self._body_bytes += sum(map(len, self._body[already:]))
        if maximum is not None and chunks.body_bytes > maximum:
            _refuse(Code.BODY_TOO_LARGE, f"the body is longer than {maximum} bytes")
        self.complete = chunks.done
        return at

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > self._limits.max_pipelined_bytes:
            _refuse(Code.PROTOCOL_REFUSED, "too many pipelined bytes")


def _refuse(code: Code, detail: str) -> NoReturn:
    raise RequestRefused(code, detail)
