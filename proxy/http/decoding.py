"""Content codings, decoded strictly and within bounds, for bodies that a rule reads.

A body is accepted only if every decoder there is would read the same from it: one coding of the list, all members or
frames of it to the last byte, nothing behind them, checksums right. What is decoded never exceeds the bound, and memory
does not either, whatever the ratio: decoders are asked for at most what is left.

Not accepted although some readers would: `deflate` without its zlib header (RFC 9110 section 8.4.1.2 wants it, and
readers that guess differ), several codings on top of each other, Brotli's large windows.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

import brotli

from proxy.http.errors import RequestRefused
from rules.codes import Code

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_MEMBERS: Final = 256
"""gzip members or zstd frames. Log shippers send one a flush; each costs a decoder, and an empty one has 20 bytes."""
MAX_WINDOW_LOG: Final = 23
"""RFC 9659 section 3: a zstd window on the web is at most 8 MiB."""
_PIECE: Final = 16 * 1024


class _Decompressor(Protocol):
    """What zlib's and zstd's have in common: one member or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def decode_content(coding: bytes | None, data: bytes, max_bytes: int) -> bytes:
    """The content that `data` stands for under one Content-Encoding; without one, `data` itself.

    Raises RequestRefused: `encoding_refused` for what cannot be decoded in exactly one way, `body_too_large` for more
    than `max_bytes`.
    """
    if coding is None:
        return data
    decoder = _DECODERS.get(coding.lower())
    if decoder is None:
        kind = "several codings on top of each other" if b"," in coding else "this coding"
        _refuse(f"{kind} cannot be read here")
    try:
        return decoder(data, max_bytes)
    except (zlib.error, brotli.error, zstd.ZstdError, EOFError):
        _refuse("the body does not follow its Content-Encoding")


def _members(new: Callable[[], _Decompressor], data: bytes, max_bytes: int, most: int) -> bytes:
    """All members, one decoder for each. Fed in pieces: what a decoder leaves over is copied, and must stay small."""
    out: list[bytes] = []
    left, at, members = max_bytes, 0, 0
    while at < len(data):
        members += 1
        if members > most:
            _refuse("too many members or frames" if most > 1 else "bytes after the end of the encoded body")
        decoder = new()
        while not decoder.eof:
            if at >= len(data):
                raise EOFError
            piece = data[at : at + _PIECE]
            at += len(piece)
            left = _drain(decoder, piece, out, left)
        at -= len(decoder.unused_data)
    if not members:
        raise EOFError
    return b"".join(out)


def _drain(decoder: _Decompressor, piece: bytes, out: list[bytes], left: int) -> int:
    """Everything that `piece` yields is in `out`; the bytes that are left of the bound."""
    while True:
        got = decoder.decompress(piece, left + 1)
        left -= len(got)
        if left < 0:
            raise RequestRefused(Code.BODY_TOO_LARGE, "the decoded body is longer than what can be inspected")
        out.append(got)
        piece = getattr(decoder, "unconsumed_tail", b"")
        if decoder.eof or (not piece and not got):
            return left


def _gzip(data: bytes, max_bytes: int) -> bytes:
    """RFC 1952 section 2.2: a file is a series of members. Many readers stop after the first; none of it is skipped."""
    return _members(lambda: zlib.decompressobj(wbits=31), data, max_bytes, MAX_MEMBERS)


def _deflate(data: bytes, max_bytes: int) -> bytes:
    """RFC 9110 section 8.4.1.2: the zlib format of RFC 1950."""
    return _members(lambda: zlib.decompressobj(wbits=15), data, max_bytes, 1)


def _zstd(data: bytes, max_bytes: int) -> bytes:
    """RFC 8878 section 3: one or more frames."""
    options = {int(zstd.DecompressionParameter.window_log_max): MAX_WINDOW_LOG}
    return _members(lambda: zstd.ZstdDecompressor(options=options), data, max_bytes, MAX_MEMBERS)


def _brotli(data: bytes, max_bytes: int) -> bytes:
    """RFC 7932: one stream, which says itself where it ends."""
    decoder = brotli.Decompressor()
    out: list[bytes] = []
    left, at = max_bytes, 0
    while not decoder.is_finished():
        piece = b""
        if decoder.can_accept_more_data():
            piece = data[at : at + _PIECE]
            at += len(piece)
        got = decoder.process(piece, output_buffer_limit=min(left + 1, _PIECE * 4))
        left -= len(got)
        if left < 0:
            raise RequestRefused(Code.BODY_TOO_LARGE, "the decoded body is longer than what can be inspected")
        out.append(got)
        if not got and not piece and at >= len(data):
            if decoder.is_finished():
                break
            raise EOFError
    if at < len(data):
        _refuse("bytes after the end of the encoded body")
    return b"".join(out)


_DECODERS: Final[dict[bytes, Callable[[bytes, int], bytes]]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,  # RFC 9110 section 8.4.1.3: the same as gzip
    b"deflate": _deflate,
    b"br": _brotli,
    b"zstd": _zstd,
}


def _refuse(detail: str) -> NoReturn:
    raise RequestRefused(Code.ENCODING_REFUSED, detail, close=False)
