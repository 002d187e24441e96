"""Responses of origins, read as strictly as requests: an origin may be hostile, or confused by what an agent sent it.

`feed` what arrived; `head`, `take_body()` and `complete` say how far the response is; `eof()` when the origin closed.
Interim responses (100, 103) are skipped, a bounded number of them; 101 is refused. Trailers are validated and
dropped. Bytes after the message are not parsed: they set `surplus`, and the connection is not `reusable`.
"""

from proxy.http.chunked import ChunkDecoder, ChunkError
from proxy.http.errors import ResponseRefused
from proxy.http.limits import HttpLimits
from proxy.http.response_head import ResponseHead, read_response_head

__all__ = ["ResponseHead", "ResponseParser"]

_START = b"HTTP/1."


class ResponseParser:
    """Reads one final response to one request."""

    __slots__ = (
        "_body",
        "_chunks",
        "_left",
        "_limits",
        "_method",
        "_pending",
        "_refusal",
        "_scanned",
        "buffered",
        "complete",
        "head",
        "interim",
        "surplus",
    )

    def __init__(self, request_method: str, limits: HttpLimits | None = None) -> None:
        self._limits = limits or HttpLimits()
        self._method = request_method
        self._pending = bytearray()
        self._scanned = 0
        self._left = 0
        self._chunks: ChunkDecoder | None = None
        self._body: list[bytes] = []
        self._refusal: ResponseRefused | None = None
        self.buffered = 0
        """Body bytes not yet taken."""
        self.head: ResponseHead | None = None
        self.complete = False
        self.interim = 0
        """Interim responses skipped."""
        self.surplus = False
        """Bytes arrived after the response: the next response on this connection would not be an answer to our
        request."""

    @property
    def reusable(self) -> bool:
        """True where the response is complete and the connection stands exactly at its end."""
        return self.complete and not self.surplus and self.head is not None and self.head.keep_alive

    def feed(self, data: bytes) -> None:
        """Take what arrived. Raises ResponseRefused; the caller must then abort the connection."""
        if self._refusal is not None:
            raise self._refusal
        try:
            if self.complete:
                self.surplus = self.surplus or bool(data)
            elif self.head is not None:
                self._feed_body(data, 0)
            else:
                self._feed_head(data)
        except ResponseRefused as refusal:
            self._refusal = refusal
            raise

    def eof(self, *, clean: bool = True) -> None:
        """The origin has closed. Completes a body that ends with the connection; raises ResponseRefused in mid-message.

        `clean` False: the close was not authenticated (TLS without close_notify, RFC 8446 section 6.1), so a body
        delimited by it may have been cut short by anybody on the path.
        """
        if self._refusal is not None:
            raise self._refusal
        if self.complete:
            return
        if self.head is not None and self.head.until_close and clean:
            self.complete = True
            return
        self._refusal = ResponseRefused("the connection ended before the response did")
        raise self._refusal

    def take_body(self) -> bytes:
        """The body bytes decoded since the last call."""
        if not self._body:
            return b""
        taken = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self.buffered = 0
        return taken

    def _feed_head(self, data: bytes) -> None:
        maximum = self._limits.max_response_header_bytes
        while data and self.head is None:
            if self._pending:
                self._pending += data
                end = self._pending.find(b"\r\n\r\n", max(0, self._scanned - 3))
            else:
                end = data.find(b"\r\n\r\n")
            if not 0 <= end <= maximum - 4:
                if not self._pending:
                    self._pending += data
                self._scanned = len(self._pending)
                self._judge_prefix(maximum)
                return
            if self._pending:
                data = bytes(self._pending)
                self._pending.clear()
            self._scanned = 0
            end += 4
            head = read_response_head(data[:end], self._method, self._limits.max_response_header_count)
            if head.status >= 200:
                self._start_body(head, data, end)
                return
            self.interim += 1
            if self.interim > self._limits.max_interim_responses:
                raise ResponseRefused("too many interim responses")
            data = data[end:]

    def _judge_prefix(self, maximum: int) -> None:
        """Refuse an incomplete head that no continuation can save."""
        if not _START.startswith(bytes(self._pending[:7])) and not self._pending.startswith(_START):
            raise ResponseRefused("the status line is not of HTTP/1.1")
        if len(self._pending) >= maximum:
            raise ResponseRefused("header section too large")

    def _start_body(self, head: ResponseHead, data: bytes, at: int) -> None:
        self.head = head
        if head.chunked:
            limits = self._limits
            self._chunks = ChunkDecoder(
                free_chunks=limits.free_response_chunks,
                max_extension_bytes=limits.max_chunk_extension_bytes,
                max_trailer_bytes=limits.max_trailer_bytes,
            )
        elif not head.bodyless and head.content_length is not None:
            self._left = head.content_length
        self._feed_body(data, at)

    def _feed_body(self, data: bytes, at: int) -> None:
        head = self.head
        if self._chunks is not None:
            already = len(self._body)
            try:
                at = self._chunks.feed(data, at, self._body, None)
            except ChunkError as error:
                raise ResponseRefused(error.detail) from None
            finally:
                self.buffered += sum(map(len, self._body[already:]))
            self.complete = self._chunks.done
        elif head is not None and head.until_close:
            at = self._keep(data[at:], len(data))
        elif self._left:
            piece = data[at : at + self._left]
            self._left -= len(piece)
            at = self._keep(piece, at + len(piece))
            self.complete = self._left == 0
        else:
            self.complete = True
        if at < len(data):
            self.surplus = True

    def _keep(self, piece: bytes, at: int) -> int:
        if piece:
            self._body.append(piece)
            self.buffered += len(piece)
        return at
