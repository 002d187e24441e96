"""`multipart/form-data` (RFC 7578), read in exactly one way.

Only the form that every client library writes is accepted: a boundary of token characters, nothing before the first
delimiter and nothing behind the last, each part with one Content-Disposition of `form-data` and a name in quotes, no
transfer encodings, no `filename*`, no name twice. What is more liberal than that is read differently by different
servers, and that is how a file's bytes become a field.
"""

import re
from dataclasses import dataclass
from typing import Final

from rules.content.refused import ContentRefused

MAX_PARTS: Final = 256
MAX_HEAD: Final = 4096
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'+_.-]{1,70}")
_DISPOSITION: Final = re.compile(rb'form-data;[ ]?name="([^"\\\r\n]+)"(?:;[ ]?filename="([^"\\\r\n]*)")?')
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
"""Blanks around the value are taken off afterwards: in the pattern, a thousand of them could be shared out in a billion
ways, and a thread that looks for one stops all others."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the form."""

    name: str
    filename: str | None
    content_type: bytes | None
    """As written; None when there is none."""
    content: bytes


def read_multipart(data: bytes, boundary: str | None) -> tuple[Part, ...]:
    """The parts, in their order. Raises `ContentRefused`."""
    if boundary is None or _BOUNDARY.fullmatch(boundary) is None:
        raise ContentRefused("multipart/form-data has no boundary, or one with unusual characters")
    delimiter = b"\r\n--" + boundary.encode("ascii")
    pieces = (b"\r\n" + data).split(delimiter)
    first, *middle, last = pieces if len(pieces) > 1 else (b"?", b"")
    if first or last not in (b"--", b"--\r\n"):
        raise ContentRefused("the multipart body does not begin and end with its boundary")
    bare = (b"\r" + delimiter[2:], b"\n" + delimiter[2:])
    if any(mark in piece for piece in pieces for mark in bare):
        raise ContentRefused(
            "the multipart body has its boundary behind half a line end, which some readers take for one"
        )
    if not middle:
        raise ContentRefused("the multipart body has no part")
    if len(middle) > MAX_PARTS:
        raise ContentRefused(f"the multipart body has more than {MAX_PARTS} parts")
    parts = tuple(_part(piece) for piece in middle)
    if len({part.name.casefold() for part in parts}) != len(parts):
        raise ContentRefused("the multipart body has a name twice, perhaps with other capitals")
    return parts


def _part(piece: bytes) -> Part:
    if not piece.startswith(b"\r\n"):
        raise ContentRefused("the multipart body has something behind a boundary on its line")
    head, mark, content = piece[2:].partition(b"\r\n\r\n")
    if not mark or len(head) > MAX_HEAD:
        raise ContentRefused("a part of the multipart body has no end of its header, or a very long one")
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        match = _FIELD.fullmatch(line)
        if match is None or match[1].lower() in fields:
            raise ContentRefused("a part of the multipart body has a malformed header, or a field twice")
        fields[match[1].lower()] = match[2].strip(b" \t")
    if fields.keys() - {b"content-disposition", b"content-type", b"content-length"}:
        raise ContentRefused("a part of the multipart body has a header field that is not read here")
    if fields.get(b"content-length", length := b"%d" % len(content)) != length:
        raise ContentRefused("a part of the multipart body has another length than it says")
    if fields.get(b"content-type", b"").lower().startswith((b"multipart/", b"message/")):
        raise ContentRefused(
            "a part of the multipart body has parts itself, which some readers take for fields or files"
        )
    match = _DISPOSITION.fullmatch(fields.get(b"content-disposition", b""))
    if match is None:
        raise ContentRefused("a part of the multipart body has no plain form-data name")
    try:
        name = match[1].decode("utf-8")
        filename = None if match[2] is None else match[2].decode("utf-8")
    except UnicodeDecodeError:
        raise ContentRefused("a part of the multipart body has a name that is not UTF-8") from None
    return Part(name, filename, fields.get(b"content-type"), content)
