"""Checkpoints: signed heads, each put into the lock store before anybody may see it.

"A log MUST NOT sign any checkpoint inconsistent with one it previously signed" (c2sp.org/tlog-checkpoint): the root is
recomputed from the bytes on disk, the store holds the newest checkpoint of all, and it moves by compare-and-swap only.
"""

import contextlib
import mmap
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, cast

from ledger.directory import CHECKPOINTS, note_name, segment_files
from ledger.errors import LedgerRefused
from ledger.files import Files, no_descriptor
from ledger.locks import LockStore
from ledger.note import Checkpoint, NoteInvalid, Signer, Verifier, open_note
from ledger.resume import ResumePoint, ResumeStore
from ledger.segment import MAGIC, RECORD, FrameBad, frame_at
from ledger.tree import Frontier, leaf_hash

_YIELD_EVERY: Final = 64
"""Records re-read before the interpreter is offered to others: some 200 us."""

_LAST_ATTEMPTS: Final = 20
"""At the end of a run, a tenth of a second each: what the others hold open is not waited for any longer."""

type Head = tuple[int, bytes, bool]
"""(size, root, whether the note is kept for good)"""


class ReadBack:
    """Recomputes the log's root from what lies on disk: the guard against bits that flipped between memory and disk."""

    def __init__(self, directory: Path, frontier: Frontier) -> None:
        self._directory = directory
        self._frontier = frontier.copy()
        self._path: Path | None = None
        self._offset = 0

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` records, which are durable. Raises `LedgerRefused` when unreadable."""
        while self._frontier.size < size:
            before = self._frontier.size
            chosen = self._path is None
            if self._path is None:
                self._path = self._segment_of(before)
                self._offset = len(MAGIC)
            with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._read(cast("bytes", data), size)
            if self._frontier.size < size:
                if chosen and self._frontier.size == before:
                    raise LedgerRefused(f"record {before} cannot be read back")
                self._path = None  # the file is read to its end: the next one goes on
        return self._frontier.root()

    def _read(self, data: bytes, size: int) -> None:
        frontier = self._frontier
        end = len(data)
        try:
            while self._offset < end and frontier.size < size:
                type_, seq, payload, after = frame_at(data, self._offset)
                if type_ == RECORD:
                    if seq == frontier.size:
                        frontier.append(leaf_hash(payload))
                    if not seq % _YIELD_EVERY:
                        time.sleep(0)
                self._offset = after
        except FrameBad as bad:
            raise LedgerRefused(f"what was written reads back damaged: {bad}") from None

    def _segment_of(self, seq: int) -> Path:
        earlier = [path for first, path in segment_files(self._directory) if first <= seq]
        if not earlier:
            raise LedgerRefused(f"the segment of record {seq} is gone")
        return earlier[-1]


class Checkpointer:
    """Signs heads and keeps their notes: in the caller's thread, or after `start` in its own, newest head first."""

    def __init__(
        self,
        directory: Path,
        *,
        signer: Signer,
        store: LockStore,
        files: Files,
        newest: bytes | None,
        last: tuple[Checkpoint, bool] | None,
        read_back: ReadBack,
        resume: ResumeStore | None = None,
    ) -> None:
        self.signer = signer
        self.last = last
        """The newest checkpoint and whether its note is kept for good."""
        self._folder = directory / CHECKPOINTS
        self._store = store
        self._files = files
        self._newest = newest
        self._read_back = read_back
        self._resume = resume
        self.point: ResumePoint | None = None
        """Kept as soon as a checkpoint covers it: an opening from there has to find the newest checkpoint's root."""
        self._heads: SimpleQueue[Head | None] = SimpleQueue()
        self._thread: Thread | None = None

    def publish(self, size: int, root: bytes, *, keep: bool) -> None:
        """The head is signed, in the lock store and on disk. Raises OSError or `LedgerRefused`; then stop for good.

        Only for want of a file descriptor may it be called again, with this head or a later one: each step that was
        done then is done once more, to the same effect.
        """
        if self._read_back.root_at(size) != root:
            raise LedgerRefused(f"the first {size} records read back differently from what was written")
        checkpoint = Checkpoint(self.signer.verifier.name, size, root)
        note = self.signer.sign_note(checkpoint.text)
        if not self._store.compare_and_swap(self._newest, note):
            raise LedgerRefused("the lock store holds another checkpoint: a second sequencer is at work")
        self._newest = note
        before = self.last
        self._files.replace(self._folder / note_name(size), note)
        self.last = (checkpoint, keep)
        if before is not None and not before[1] and before[0].size != size:
            self._files.remove(self._folder / note_name(before[0].size))
        self._keep_point(size)

    def _keep_point(self, size: int) -> None:
        point = self.point
        if point is None or self._resume is None or point.first > size:
            return
        with contextlib.suppress(OSError):  # only the next opening would be the quicker for it; tried again then
            self._resume.save(point.encode(self._folder.parent, self.signer))
            if self.point is point:
                self.point = None

    def start(self, failed: Callable[[BaseException], None]) -> None:
        """From now on `request`ed heads are published by an own thread; `failed` hears of its one failure."""
        self._thread = Thread(target=self._run, args=(failed,), name="ledger-checkpoints", daemon=True)
        self._thread.start()

    def request(self, size: int, root: bytes, *, keep: bool) -> None:
        """A checkpoint of this head, soon; older ones that still wait are left out."""
        self._heads.put((size, root, keep))

    def finish(self) -> None:
        """What was requested is published, unless publishing has failed; the thread has ended."""
        if self._thread is not None:
            self._heads.put(None)
            self._thread.join()

    def _run(self, failed: Callable[[BaseException], None]) -> None:
        try:
            while (head := self._heads.get()) is not None:
                self._publish_newest(head)
        except BaseException as error:  # noqa: BLE001
            failed(error)  # whatever it is: a log whose heads cannot be published must not go on

    def _publish_newest(self, head: Head) -> None:
        """The newest head that waits is published, as soon as there is a descriptor to do it with."""
        size, root, keep = head
        ending, attempts = False, 0
        while True:
            while not ending and not self._heads.empty():
                later = self._heads.get()
                if later is None:
                    self._heads.put(None)
                    ending, attempts = True, 0
                else:
                    size, root, keep = later[0], later[1], keep or later[2]
            try:
                self.publish(size, root, keep=keep)
            except OSError as error:
                attempts += 1
                if not no_descriptor(error) or (ending and attempts >= _LAST_ATTEMPTS):
                    raise
                time.sleep(0.1)
            else:
                return


def parse_note(note: bytes, keys: list[Verifier], origin: str) -> Checkpoint:
    """The checkpoint of a note that one of the log's keys signed; raises `NoteInvalid`."""
    text, _ = open_note(note, keys)
    checkpoint = Checkpoint.parse(text)
    if checkpoint.origin != origin:
        raise NoteInvalid("a checkpoint of another log")
    return checkpoint
