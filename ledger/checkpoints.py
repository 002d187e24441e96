"""Checkpoints: signed heads, each put into the lock store before anybody may see it.

"A log MUST NOT sign any checkpoint inconsistent with one it previously signed" (c2sp.org/tlog-checkpoint): trees are
recomputed from the records, the store holds the newest checkpoint of all, and it moves by compare-and-swap only.
"""

from pathlib import Path

from ledger.directory import CHECKPOINTS, note_name
from ledger.errors import LedgerRefused
from ledger.files import Files
from ledger.locks import LockStore
from ledger.note import Checkpoint, NoteInvalid, Signer, Verifier, open_note


class Checkpointer:
    """Signs heads and keeps their notes. One at a time; not thread-safe."""

    def __init__(
        self,
        directory: Path,
        *,
        signer: Signer,
        store: LockStore,
        files: Files,
        newest: bytes | None,
        last: tuple[Checkpoint, bool] | None,
    ) -> None:
        self.signer = signer
        self.last = last
        """The newest checkpoint and whether its note is kept for good."""
        self._folder = directory / CHECKPOINTS
        self._store = store
        self._files = files
        self._newest = newest

    def publish(self, origin: str, size: int, root: bytes, *, keep: bool) -> None:
        """The head is signed, in the lock store and on disk. Raises OSError or `LedgerRefused`; then stop for good."""
        checkpoint = Checkpoint(origin, size, root)
        note = self.signer.sign_note(checkpoint.text)
        if not self._store.compare_and_swap(self._newest, note):
            raise LedgerRefused("the lock store holds another checkpoint: a second sequencer is at work")
        self._newest = note
        before = self.last
        self._files.replace(self._folder / note_name(size), note)
        self.last = (checkpoint, keep)
        if before is not None and not before[1] and before[0].size != size:
            self._files.remove(self._folder / note_name(before[0].size))


def parse_note(note: bytes, keys: list[Verifier], origin: str) -> Checkpoint:
    """The checkpoint of a note that one of the log's keys signed; raises `NoteInvalid`."""
    text, _ = open_note(note, keys)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != origin:
        raise NoteInvalid("a checkpoint of another log")
    return checkpoint
