"""Chunked transfer coding, decoded to the byte where the message ends (RFC 9112 section 7.1).

llhttp decodes chunks too, but its binding neither tells where in the data a message ended nor can be stopped there,
and a proxy that answers one request at a time has to know. So this is ours; a test holds it against llhttp.
"""

import re
from typing import Final

from proxy.http.headers import FIELD_VALUE, FRAMING, TOKEN

# At most 15 digits keep a size below 2^60. No white space around the size: RFC 9112 gives none, and readers differ.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t\x20-\x7e]*)?")

_LINE, _DATA, _DATA_END, _TRAILER = range(4)


class ChunkError(Exception):
    """The coding is broken. `framing` is True for what smells of smuggling rather than of a slip."""

    def __init__(self, detail: str, *, framing: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.framing = framing


class ChunkDecoder:
    """Decodes one body. After `done` the decoder takes no further byte."""

    __slots__ = (
        "_chunks",
        "_free_chunks",
        "_left",
        "_line",
        "_max_extension",
        "_max_trailers",
        "_state",
        "_trailers",
        "body_bytes",
        "done",
    )

    def __init__(self, *, free_chunks: int, max_extension_bytes: int, max_trailer_bytes: int) -> None:
        """`max_extension_bytes` 0 refuses chunk extensions, `max_trailer_bytes` 0 refuses trailers."""
        self._free_chunks = free_chunks
        self._max_extension = max_extension_bytes
        self._max_trailers = max_trailer_bytes
        self._state = _LINE
        self._line = b""
        self._left = 0
        self._chunks = 0
        self._trailers = 0
        self.body_bytes = 0
        self.done = False

    def feed(self, data: bytes, at: int, out: list[bytes], max_body: int | None) -> int:
        """Decode from `data[at:]` into `out`; returns the offset after the last byte taken. Raises ChunkError.

        Stops at the message's end, and as soon as `body_bytes` exceeds `max_body`, without taking the excess.
        """
        end = len(data)
        while at < end and not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                out.append(piece)
                if self._left == 0:
                    self._state = _DATA_END
                continue
            stop = data.find(b"\n", at)
            line = self._line + (data[at:] if stop < 0 else data[at : stop + 1])
            self._check_line_length(line)
            if stop < 0:
                self._line = line
                return end
            self._line = b""
            at = stop + 1
            # RFC 9112 section 2.2 lets a recipient take a bare LF for a line end. We do not: section 11.2, smuggling.
            if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
                raise ChunkError("bare CR or LF in chunked framing", framing=True)
            self._take_line(line[:-2])
            if max_body is not None and self.body_bytes > max_body:
                return at
        return at

    def _check_line_length(self, line: bytes) -> None:
        if self._state == _LINE:
            if len(line) > 17 + self._max_extension:
                raise ChunkError("chunk size line too long", framing=True)
        elif self._state == _DATA_END:
            if line not in (b"\r", b"\r\n"):
                raise ChunkError("chunk data not followed by CRLF", framing=True)
        elif self._max_trailers == 0:
            if line not in (b"\r", b"\r\n"):
                raise ChunkError("trailers are not carried", framing=True)
        elif self._trailers + len(line) > self._max_trailers:
            raise ChunkError("trailer section too large")

    def _take_line(self, line: bytes) -> None:
        if self._state == _LINE:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise ChunkError("chunk size is not hexadecimal", framing=True)
            # RFC 9112 section 7.1.1: extensions mean nothing beyond one hop; refused or ignored, never passed on.
            if match[2] is not None and self._max_extension == 0:
                raise ChunkError("chunk extensions are not carried", framing=True)
            self._left = int(match[1], 16)
            if self._left == 0:
                self._state = _TRAILER
                return
            self._chunks += 1
            self.body_bytes += self._left
            if self._chunks > self._free_chunks + self.body_bytes // 16:
                raise ChunkError("too many small chunks")
            self._state = _DATA
        elif self._state == _DATA_END:
            self._state = _LINE
        elif not line:
            self.done = True
        else:
            self._trailers += len(line) + 2
            name, colon, value = line.partition(b":")
            if not colon or TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value.strip(b" \t")) is None:
                raise ChunkError("malformed trailer field")
            # RFC 9110 section 6.5.1: no field that describes framing; a reader that merges trailers would obey it.
            if name.lower() in FRAMING:
                raise ChunkError("a framing field among the trailers", framing=True)
