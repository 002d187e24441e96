"""The sequencer: the one place where records get their place in the log.

`append_batch` takes a group of submissions through (a) check, (b) encode, (c) chain and trees, (d) one signature,
(e) one write, (f) one sync. It is synchronous and single-threaded; `Ledger` gives it a thread. When (e) or (f) fails,
the object is unusable for good: its trees already hold what the disk may not.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from zlib import crc32

from ledger import canonical
from ledger.batch import Batch, Receipt, statement
from ledger.clock import Clock, Stamps
from ledger.directory import BALLAST, SEGMENTS
from ledger.errors import LedgerUnavailable, NoDescriptor, RecordRefused
from ledger.files import Files, no_descriptor
from ledger.lifecycle import LifecycleBroken
from ledger.note import Checkpoint, Signer
from ledger.resume import ResumePoint
from ledger.schema import MAX_RECORD_BYTES, NO_TENANT, RESERVE_TYPES, VERSION, check_content
from ledger.segment import _CHECKED, COMMIT, COMMIT_PAYLOAD, HEADER, MAGIC, RECORD, Header, encode_frame, file_name
from ledger.state import LogState
from ledger.tenants import TenantTree, heads_root, state_digest
from ledger.tree import root_of

STEP_US: Final = 1_000_000
"""A wall clock that left the monotonic one by more than this was moved; a clock.step record says so."""

_FIRST_TYPES: Final = frozenset({"genesis", "ledger.start"})
"""With these a process begins; time is measured from there, so no step can have been seen yet."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

type Submission = tuple[str, str, Mapping[str, object]]
"""(type, tenant, content)"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one ledger. The defaults suit one machine."""

    segment_bytes: int = 16 * 1024 * 1024
    """An opening reads the last one, or two: some 20,000 records each."""
    segment_seconds: float = 3600
    max_batch: int = 1024
    max_pending: int = 16_384
    """Submissions that wait; one more is refused. At 700 bytes each it is 12 MB."""
    seal_active_seconds: float = 1
    seal_idle_seconds: float = 60
    keep_seconds: float = 3600
    """One checkpoint note is kept for good each such interval and at every segment's start; else only the newest."""
    reserve_bytes: int = 64 * 1024 * 1024
    """Free space below which intents are refused."""
    ballast_bytes: int = 8 * 1024 * 1024
    """Given back to the file system when it is full, so that outcomes of calls in flight still fit."""
    space_check_seconds: float = 0.1


def seal_reference(last: tuple[Checkpoint, bool] | None) -> dict[str, object]:
    """What a seal quotes: the newest checkpoint signed before it, and whether its note is kept for good."""
    if last is None:
        return {"checkpoint": None}
    checkpoint, kept = last
    return {"checkpoint": {"size": checkpoint.size, "root": checkpoint.root.hex(), "kept": kept}}


class Halted(LedgerUnavailable):
    """A write or sync failed, or an invariant broke: this process writes nothing more."""


class Sequencer:
    """Assigns seq, time, chain and trees; makes groups of records durable. Not thread-safe."""

    def __init__(
        self,
        directory: Path,
        state: LogState,
        signer: Signer,
        *,
        files: Files,
        clock: Clock,
        limits: Limits,
        points: bool = False,
    ) -> None:
        """`points`: whether resume points are wanted."""
        self.state = state
        self.signer = signer
        self.in_reserve = False
        """True while only what ends or stops something is written."""
        self._directory = directory
        self._files = files
        self._clock = clock
        self._limits = limits
        self._stamps = Stamps()
        self._boot = os.urandom(8).hex()
        self._offset_us = max(clock.wall_us(), state.last_us) - clock.monotonic_us()
        self._behind = False
        self._descriptor: int | None = None
        self._fresh = True
        """True until the current segment has its header: it may be open already."""
        self._segment_bytes = 0
        self._segment_opened_us = 0
        self._prepare_header()
        self.segment_started = False
        """Set when a new segment was begun; whoever keeps checkpoints clears it."""
        self._points = points
        self._next_point: ResumePoint | None = None
        self.point: ResumePoint | None = None
        """The log before the current segment, if it is wanted; whoever keeps it clears it."""

    def append_batch(self, submissions: Sequence[Submission]) -> list[Receipt | RecordRefused | LedgerUnavailable]:
        """One result for each submission, in order; receipts are for records that are durable.

        Types of the log itself are admitted: whoever takes submissions from outside keeps them out (`Ledger` does).
        Raises `Halted` when the group could not be made durable: then none of it may be assumed recorded.
        """
        state = self.state
        if self._fresh:
            self._prepare_header()
            # Before anything is numbered: a group that finds no file to go to has changed nothing.
            if not self._can_open(state.size):
                return [NoDescriptor("too many files are open")] * len(submissions)
            self._next_point = ResumePoint.of(state) if self._points and state.size else None
        wall, mono, moved = self._now(submissions[0][0] in _FIRST_TYPES)
        if moved is not None:
            submissions = [("clock.step", NO_TENANT, moved), *submissions]
        ts = self._stamps.text(wall)
        origin, boot, first = state.origin, self._boot, state.size
        nonces = os.urandom(16 * len(submissions)).hex()
        results: list[RecordRefused | LedgerUnavailable | int] = []
        leaves: list[bytes] = []
        parts: list[bytes] = []
        for index, (type_, tenant, content) in enumerate(submissions):
            if self.in_reserve and type_ not in RESERVE_TYPES:
                results.append(LedgerUnavailable("the disk is below its reserve"))
                continue
            seq = first + len(leaves)
            if type_ == "seal":
                content = self._seal_content(content)  # noqa: PLW2901
            try:
                check_content(type_, tenant, content)
                tree = state.tenants.get(tenant) or TenantTree(tenant, state.blinding)
                data = canonical.encode(
                    {
                        **content,
                        "v": VERSION,
                        "type": type_,
                        "log": origin,
                        "seq": seq,
                        "prev": state.prev,
                        "nonce": nonces[32 * index : 32 * index + 32],
                        "ts": ts,
                        "boot": boot,
                        "mono_us": mono,
                        "tenant": tenant,
                        "tseq": tree.frontier.size,
                        "tprev": tree.last,
                    }
                )
                length = len(data)
                if length > MAX_RECORD_BYTES:
                    raise RecordRefused("too_long", f"{length} bytes; a record has at most {MAX_RECORD_BYTES}")
                state.admit(type_, seq, tenant, content)  # type: ignore[arg-type]
            except RecordRefused as refused:
                results.append(refused)
                continue
            except canonical.NotCanonical as error:
                results.append(RecordRefused("encoding", str(error)))
                continue
            except LifecycleBroken as error:
                results.append(RecordRefused("lifecycle", str(error)))
                continue
            leaf = sha256(b"\x00" + data).digest()
            if not tree.frontier.size:
                state.tenants[tenant] = tree
            state.extend(tree, leaf, leaf.hex())
            leaves.append(leaf)
            checked = _CHECKED.pack(length, RECORD, seq)
            parts.append(checked + crc32(data, crc32(checked)).to_bytes(4, "big"))
            parts.append(data)
            results.append(len(leaves) - 1)
        if not leaves:
            return [result for result in results if not isinstance(result, int)]
        batch = self._commit(first, leaves, parts, wall)
        receipts: list[Receipt | RecordRefused | LedgerUnavailable] = []
        for (type_, _, content), result in zip(submissions, results, strict=True):
            if isinstance(result, int):
                call = content.get("call", "")
                receipts.append(Receipt(origin, first + result, leaves[result], ts, type_, call, batch))  # type: ignore[arg-type]
            else:
                receipts.append(result)
        return receipts if moved is None else receipts[1:]

    def _seal_content(self, reference: Mapping[str, object]) -> dict[str, object]:
        """What a seal says of the log before it, which is known only at its place in the group."""
        state = self.state
        return {
            **reference,
            "size": state.size,
            "open": len(state.calls.open),
            "policy": state.policy,
            "key_id": self.signer.verifier.key_id.hex(),
            "tenants": len(state.tenants),
            "heads": heads_root(state.tenants.values()).hex(),
            "rootlog": None,
        }

    def _commit(self, first: int, leaves: list[bytes], parts: list[bytes], wall: int) -> Batch:
        """The group is signed and durable; raises `Halted`."""
        root = root_of(leaves)
        last = first + len(leaves) - 1
        verifier = self.signer.verifier
        text = statement(self.state.origin, first, last, root, leaves[-1])
        signature = self.signer.sign(text.encode("ascii"))
        parts.append(encode_frame(COMMIT, last, COMMIT_PAYLOAD.pack(first, verifier.key_id, signature)))
        data = b"".join(parts)
        try:
            self._write(data, first, wall)
        except OSError as error:
            raise Halted(f"writing records failed: {error.strerror or error}") from error
        self.state.last_us = wall
        return Batch(verifier, self.state.origin, first, last, root, tuple(leaves), signature)

    def _write(self, data: bytes, first: int, wall: int) -> None:
        """(e) and (f). Only a full disk is survived, once, by giving back the ballast; a failed sync never is."""
        if self._fresh:
            self._segment_opened_us = wall
            self._segment_bytes = 0
            data = MAGIC + encode_frame(HEADER, first, self._header.encode()) + data
            self.segment_started = True
            self.point, self._next_point = self._next_point, None
        try:
            descriptor = self._open_segment(first)
            self._files.write(descriptor, data)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.in_reserve = True
            if self._descriptor is not None:
                self._files.truncate(self._descriptor, self._segment_bytes)
            self._files.remove(self._directory / BALLAST)
            descriptor = self._open_segment(first)
            self._files.write(descriptor, data)
        self._files.sync(descriptor)
        self._fresh = False
        self._segment_bytes += len(data)
        limits = self._limits
        age_us = wall - self._segment_opened_us
        if self._segment_bytes >= limits.segment_bytes or age_us >= limits.segment_seconds * 1_000_000:
            self.close_segment()

    def _open_segment(self, first: int) -> int:
        if self._descriptor is None:
            self._descriptor = self._files.create(self._directory / SEGMENTS / file_name(first))
        return self._descriptor

    def _can_open(self, first: int) -> bool:
        """False when too many files are open. A full disk is met again, and dealt with, when the group is written."""
        try:
            self._open_segment(first)
        except OSError as error:
            if no_descriptor(error):
                return False
            if error.errno not in _FULL:
                raise Halted(f"a segment cannot be begun: {error.strerror or error}") from error
        return True

    def close_segment(self) -> None:
        """The current file is complete; the next group starts a new one."""
        self._fresh = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _prepare_header(self) -> None:
        """What the log is before the group that starts a new segment."""
        state = self.state
        digest = state_digest(state.tenants, state.calls.open)
        self._header = Header(state.origin, state.size, state.prev, tuple(state.frontier.nodes), digest)

    def _now(self, first_of_boot: bool) -> tuple[int, int, dict[str, object] | None]:
        """(time of the next record, monotonic time, content of a clock.step record or None).

        Records' times never go back. After a step backwards they continue from the last one at the monotonic pace.
        """
        wall, mono = self._clock.wall_us(), self._clock.monotonic_us()
        last = self.state.last_us
        if first_of_boot:
            self._offset_us = max(wall, last) - mono
        step = wall - (mono + self._offset_us)
        if step > 0:
            self._offset_us += step
        moved = step > STEP_US or (step < -STEP_US and not self._behind)
        self._behind = step < -STEP_US
        if first_of_boot:
            self._behind = False
            moved = False
        now = max(mono + self._offset_us, last)
        return now, mono, {"delta_us": step, "wall": self._stamps.text(wall)} if moved else None
