"""Batch statements and receipts: what a caller holds from the moment its record is durable.

A batch statement is a promise like a certificate log's SCT: "these records are in the log". It is made once for a group
of records, separately from checkpoints, so that an abandoned group can never make the log contradict a checkpoint.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.note import NoteInvalid, Verifier, open_note, signed_note
from ledger.tree import path_of, root_from_path

STATEMENT: Final = "ledger-batch/v1"


def statement(origin: str, first: int, last: int, root: bytes, last_leaf: bytes) -> str:
    """The text that the log's key signs for a group of records.

    Its first line can be no origin (origins do not start with `ledger-`), so it is never taken for a checkpoint.
    """
    b64 = base64.b64encode
    return f"{STATEMENT}\n{origin}\n{first}\n{last}\n{b64(root).decode('ascii')}\n{b64(last_leaf).decode('ascii')}\n"


@dataclass(frozen=True, slots=True)
class Batch:
    """One durable group of records with its signature."""

    verifier: Verifier
    origin: str
    first: int
    last: int
    root: bytes
    leaves: tuple[bytes, ...]
    signature: bytes

    def note(self) -> bytes:
        """The signed statement."""
        text = statement(self.origin, self.first, self.last, self.root, self.leaves[-1])
        return signed_note(text, self.verifier, self.signature)


class Receipt(NamedTuple):
    """The record is durable, and this proves that the log said so."""

    log: str
    seq: int
    leaf: bytes
    ts: str
    type: str
    call: str
    """Empty for records of no call."""
    batch: Batch

    def path(self) -> tuple[bytes, ...]:
        """The audit path from the leaf to the batch's root, nearest sibling first."""
        return path_of(self.seq - self.batch.first, self.batch.leaves)

    def proof(self) -> dict[str, object]:
        """The receipt as plain values, to be kept by its caller and checked by `receipt_holds`."""
        return {
            "log": self.log,
            "seq": self.seq,
            "leaf": self.leaf.hex(),
            "path": [node.hex() for node in self.path()],
            "batch": self.batch.note().decode("utf-8"),
        }


def receipt_holds(proof: Mapping[str, object], verifier: Verifier) -> bool:
    """True when a kept proof carries this key's promise that the leaf is record `seq` of the log."""
    try:
        text, _ = open_note(str(proof["batch"]).encode("utf-8"), [verifier])
        header, origin, first, last, root, _, end = text.split("\n")
        seq = proof["seq"]
        path = proof["path"]
        if header != STATEMENT or end or origin != proof["log"] or type(seq) is not int or not isinstance(path, list):
            return False
        size = int(last) - int(first) + 1
        computed = root_from_path(
            bytes.fromhex(str(proof["leaf"])), seq - int(first), size, [bytes.fromhex(node) for node in path]
        )
        return computed is not None and base64.b64encode(computed).decode("ascii") == root
    except (NoteInvalid, ValueError, KeyError, TypeError):
        return False
