"""Frames between the workers and the sequencer: a length, and a JSON object of a closed set of members.

    -> {"hello": 1, "role": "worker", "name": …, "proof": …, "open": [seq, …], "withdrawn": [[call, attempt], …]}
    <- {"welcome": 1, "log": …, "key": …, "root": …, "genesis": …, "rung": …, "head": […], "closed": [seq, …]}
    -> {"submit": [[n, type, tenant, content], …]}
    -> {"again": [[n, tenant, content, after], …]}       outcomes whose answer was lost; recorded behind `after`
    <- {"head": […], "groups": [[batch, [[n, seq], …]], …], "failed": [[n, kind, code, detail], …]}
    <- {"bye": n}                                        of what was submitted, nothing after n was taken
    -> {"bye": 1}                                        nothing more will come, and nothing is held
    <- {"refused": why}                                  and the connection ends

`n` counts a connection's submissions upwards. What many calls submit at once travels in one frame, and so do the
answers of one group commit. Both ends are the same program on the same machine; what does not have these shapes ends
that connection.
"""

import base64
import os
from dataclasses import dataclass, field
from hashlib import sha256
from struct import Struct
from typing import Any, Final

import orjson

from ledger import Batch, Head, LedgerError, LedgerUnavailable, RecordRefused
from ledger.note import Verifier
from ledger.schema import MAX_RECORD_BYTES

VERSION: Final = 1
MAX_FRAME: Final = 1024 * 1024
"""A hello with 10,000 open intents and as many withdrawn ones is half of it, the answers of a full group a tenth."""
FRAME_FILL: Final = MAX_RECORD_BYTES
"""A frame with submissions is sent once it holds so much: the sequencer turns to others between frames."""
MAX_UNANSWERED: Final = 4096
"""Submissions of one connection that wait for the disk; one more is refused, as the ledger itself refuses them."""
SOCKET_NAME: Final = "ledger.sock"
WORKER: Final = "worker"
CONTROL: Final = "control"

_LENGTH: Final = Struct(">I")


class FrameBad(Exception):
    """The other end does not speak this protocol; the connection cannot go on."""


def frame(message: dict[str, Any]) -> bytes:
    """The message as it travels."""
    return framed(orjson.dumps(message))


def framed(body: bytes) -> bytes:
    """A message that has been encoded, as it travels."""
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes as they come, cut into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that these bytes complete. Raises `FrameBad`."""
        buffer = self._buffer
        buffer += data
        messages: list[dict[str, Any]] = []
        position, size = 0, len(buffer)
        while size - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if not 0 < length <= MAX_FRAME:
                raise FrameBad(f"a frame of {length} bytes")
            end = position + _LENGTH.size + length
            if end > size:
                break
            try:
                message = orjson.loads(buffer[position + _LENGTH.size : end])
            except ValueError as error:
                raise FrameBad("a frame that is no JSON") from error
            if type(message) is not dict:
                raise FrameBad("a frame that is no object")
            messages.append(message)
            position = end
        if position:
            del buffer[:position]
        return messages


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process is to the sequencer: a name that records carry, and what proves that the name is its own.

    The name ends in a digest of the proof, so whoever reads names in the ledger cannot bear one, and the sequencer has
    nothing to remember over a restart. A process that is started again is another one.
    """

    name: str
    proof: str = field(repr=False)

    @classmethod
    def make(cls, label: str) -> "Identity":
        """A new one: `w0` becomes `w0.5f1d…`."""
        proof = os.urandom(16).hex()
        return cls(_named(label, proof), proof)


def _named(label: str, proof: str) -> str:
    digest = sha256(f"exeat-worker/v1\0{label}\0{proof}".encode()).hexdigest()
    return f"{label}.{digest[:24]}"


def proven(name: str, proof: str) -> bool:
    """True when the name was made from this proof."""
    return name == _named(name.rpartition(".")[0], proof)


# --- heads, groups, failures ---


def head_values(head: Head) -> list[object]:
    """A head as it travels; the log's name is known."""
    return [
        head.size,
        head.root.hex(),
        head.checkpoint_size,
        head.lag_records,
        head.lag_seconds,
        head.open_intents,
        head.reserve,
        head.halted,
    ]


def head_of(log: str, values: list[Any]) -> Head:
    """The head that travelled. Raises ValueError or TypeError."""
    size, root, *rest = values
    return Head(log, size, bytes.fromhex(root), *rest)


def batch_values(batch: Batch, ts: str) -> list[object]:
    """A group's statement, its leaves and its time as they travel."""
    encode = base64.b64encode
    return [
        batch.first,
        batch.last,
        batch.root.hex(),
        encode(b"".join(batch.leaves)).decode("ascii"),
        encode(batch.signature).decode("ascii"),
        ts,
    ]


def batch_of(log: str, key: Verifier, values: list[Any]) -> tuple[Batch, str]:
    """The group that travelled, and its time. Raises ValueError or TypeError."""
    first, last, root, leaves, signature, ts = values
    data = base64.b64decode(leaves)
    cut = tuple([data[at : at + 32] for at in range(0, len(data), 32)])
    return Batch(key, log, first, last, bytes.fromhex(root), cut, base64.b64decode(signature)), ts


def failure_values(number: int, error: LedgerError) -> list[object]:
    """Why a submission is no record."""
    if isinstance(error, RecordRefused):
        return [number, "refused", error.code, error.detail]
    return [number, "unavailable", "", str(error)]


def failure_of(kind: str, code: str, detail: str) -> RecordRefused | LedgerUnavailable:
    """The error that travelled."""
    return RecordRefused(code, detail) if kind == "refused" else LedgerUnavailable(detail)
