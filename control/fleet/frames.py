"""Messages between control and workers over a Unix socket: a kind, a body in JSON, and bytes beside it.

    4 bytes   length of what follows, big-endian
    4 bytes   length of the head
    head      JSON: {"kind": ..., "body": {...}, "blobs": [lengths]}
    blobs     one behind the other

Secrets travel as blobs alone: nothing that is JSON, and so might be logged or shown, ever holds one.
"""

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import Any, Final

VERSION: Final = 3
MAX_BYTES: Final = 128 * 1024 * 1024
"""A policy of 100,000 rules is a tenth of it."""
_LENGTHS: Final = struct.Struct(">II")


class FrameInvalid(Exception):
    """What came is no message. The connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    kind: str
    body: dict[str, Any] = field(default_factory=dict)
    blobs: tuple[bytes, ...] = field(default=(), repr=False)

    def encoded(self) -> bytes:
        """The frame."""
        head = json.dumps(
            {"kind": self.kind, "body": self.body, "blobs": [len(blob) for blob in self.blobs]}, separators=(",", ":")
        ).encode()
        total = 4 + len(head) + sum(map(len, self.blobs))
        if total > MAX_BYTES:
            raise FrameInvalid(f"a message of {total} bytes is longer than {MAX_BYTES}")
        return b"".join((_LENGTHS.pack(total, len(head)), head, *self.blobs))


def decoded(head_length: int, rest: bytes) -> Message:
    """The message of a frame behind its lengths. Raises `FrameInvalid`."""
    if head_length > len(rest):
        raise FrameInvalid("the head is longer than the message")
    try:
        head = json.loads(rest[:head_length])
        kind, body, lengths = head["kind"], head["body"], head["blobs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FrameInvalid("the head is not what it should be") from None
    if (
        not isinstance(kind, str)
        or not isinstance(body, dict)
        or not isinstance(lengths, list)
        or any(type(length) is not int or length < 0 for length in lengths)
        or sum(lengths) != len(rest) - head_length
    ):
        raise FrameInvalid("head and message do not agree")
    blobs, at = [], head_length
    for length in lengths:
        blobs.append(rest[at : at + length])
        at += length
    return Message(kind, body, tuple(blobs))


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None when the other end is gone. Raises `FrameInvalid`."""
    try:
        total, head_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        if not 4 <= total <= MAX_BYTES:
            raise FrameInvalid(f"a message says it has {total} bytes")
        return decoded(head_length, await reader.readexactly(total - 4))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
