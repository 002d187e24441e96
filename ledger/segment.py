"""Segment files: frames after a magic, every byte accounted for (docs/formats/ledger-segment.md).

    file   = magic header-frame group+        group = record-frame+ commit-frame
    frame  = len u32 | type u8 | seq u64 | crc32 u32 | payload      big-endian; the crc covers len, type, seq, payload

The crc only tells torn from tampered. What proves content is the chain, the trees and the signatures.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from ledger import canonical
from ledger.checks import Object, list_of, natural, pattern
from ledger.schema import MAX_RECORD_BYTES
from ledger.tree import Frontier

MAGIC: Final = b"EXLEDG1\n"
HEADER: Final = 1
RECORD: Final = 2
COMMIT: Final = 3

FRAME: Final = struct.Struct(">IBQI")
"""len, type, seq, crc32."""
_CHECKED = struct.Struct(">IBQ")
COMMIT_PAYLOAD: Final = struct.Struct(">Q4s64s")
"""First seq of the group, key id, signature of the batch statement."""

_hash = pattern(r"[0-9a-f]{64}")
_HEADER_SCHEMA = Object(
    {
        "format": lambda value: value == "ledger-segment/v1",
        "origin": pattern(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}"),
        "first": natural,
        "prev": _hash,
        "frontier": list_of(_hash, 64),
        "state": _hash,
    }
)


class FrameBad(ValueError):
    """The bytes at an offset are no valid frame."""

    def __init__(self, offset: int, detail: str, *, order: bool = False) -> None:
        super().__init__(f"offset {offset}: {detail}")
        self.offset = offset
        self.order = order
        """True when the frame itself is whole but stands in a wrong place."""
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment continues: the state of the log before its first record."""

    origin: str
    first: int
    prev: str
    frontier: tuple[bytes, ...]
    state: bytes

    def encode(self) -> bytes:
        """The payload of the header frame."""
        return canonical.encode(
            {
                "format": "ledger-segment/v1",
                "origin": self.origin,
                "first": self.first,
                "prev": self.prev,
                "frontier": [node.hex() for node in self.frontier],
                "state": self.state.hex(),
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> "Header":
        """The header of a payload; raises ValueError."""
        value = canonical.parse_typed(payload)
        if not isinstance(value, dict) or not _HEADER_SCHEMA(value):
            raise ValueError("not a segment header")
        frontier = tuple(bytes.fromhex(node) for node in value["frontier"])
        Frontier(value["first"], frontier)
        return cls(value["origin"], value["first"], value["prev"], frontier, bytes.fromhex(value["state"]))


def file_name(first: int) -> str:
    """The name of the segment that starts at a seq."""
    return f"{first:020d}.seg"


def encode_frame(type_: int, seq: int, payload: bytes) -> bytes:
    """One frame."""
    checked = _CHECKED.pack(len(payload), type_, seq)
    return checked + crc32(payload, crc32(checked)).to_bytes(4, "big") + payload


def frame_at(data: bytes, offset: int) -> tuple[int, int, bytes, int]:
    """(type, seq, payload, next offset) of the frame at an offset; raises `FrameBad`."""
    start = offset + FRAME.size
    head = data[offset:start]
    if len(head) < FRAME.size:
        raise FrameBad(offset, "the file ends inside a frame's head")
    length, type_, seq, crc = FRAME.unpack(head)
    if length > MAX_RECORD_BYTES:
        raise FrameBad(offset, "the frame's length is impossible")
    payload = data[start : start + length]
    if len(payload) < length:
        raise FrameBad(offset, "the file ends inside a frame")
    if crc32(payload, crc32(head[:13])) != crc:
        raise FrameBad(offset, "the frame's crc does not match")
    if type_ not in (HEADER, RECORD, COMMIT):
        raise FrameBad(offset, "unknown frame type")
    return type_, seq, payload, start + length


def read_header(data: bytes) -> tuple[Header, int]:
    """(header, offset of the first group) of a segment; raises `FrameBad`."""
    if data[: len(MAGIC)] != MAGIC:
        raise FrameBad(0, "not a segment of this format")
    type_, seq, payload, offset = frame_at(data, len(MAGIC))
    if type_ != HEADER:
        raise FrameBad(len(MAGIC), "a segment starts with its header")
    try:
        header = Header.parse(payload)
    except ValueError as error:
        raise FrameBad(len(MAGIC), str(error)) from None
    if header.first != seq:
        raise FrameBad(len(MAGIC), "the header's frame and text name different records")
    return header, offset


@dataclass(frozen=True, slots=True)
class Group:
    """One committed batch as it lies in a file."""

    offset: int
    end: int
    first: int
    last: int
    records: tuple[bytes, ...]
    key_id: bytes
    signature: bytes


def groups(data: bytes, offset: int) -> Iterator[Group]:
    """The committed groups from an offset on; raises `FrameBad` at the offset of the first group that is not whole."""
    size = len(data)
    while offset < size:
        start = offset
        records: list[bytes] = []
        first = last = -1
        while True:
            if offset >= size:
                raise FrameBad(start, "the file ends inside a group")
            type_, seq, payload, after = frame_at(data, offset)
            if type_ == RECORD:
                if first < 0:
                    first = seq
                elif seq != last + 1:
                    raise FrameBad(offset, "a record's frame is out of order", order=True)
                last = seq
                records.append(payload)
                offset = after
                continue
            break
        if type_ != COMMIT or not records or seq != last or len(payload) != COMMIT_PAYLOAD.size:
            raise FrameBad(offset, "not the commit of this group", order=True)
        claimed, key_id, signature = COMMIT_PAYLOAD.unpack(payload)
        if claimed != first:
            raise FrameBad(offset, "the commit names another first record", order=True)
        offset = after
        yield Group(start, offset, first, last, tuple(records), key_id, signature)


def any_frame_after(data: bytes, offset: int) -> int | None:
    """The offset of a valid frame anywhere beyond a bad one at `offset`, or None.

    Torn writes leave a damaged end; damage with something valid behind it is corruption. Walks by length where it can
    and byte by byte where it cannot; candidates are told by type and length before a crc is computed.
    """
    size = len(data)
    position = offset + 1
    while position + FRAME.size <= size:
        # The length's first two bytes are zero up to 60 KiB frames, which skips nearly everything cheaply.
        position = data.find(b"\x00\x00", position)
        if position < 0 or position + FRAME.size > size:
            return None
        if data[position + 4] in (HEADER, RECORD, COMMIT):
            try:
                frame_at(data, position)
            except FrameBad:
                pass
            else:
                return position
        position += 1
    return None
