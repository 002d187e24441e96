"""Creating a ledger's directory, and opening one: genesis, recovery, and what is refused.

Opening follows these steps, and the code carries their numbers:

(1) take the directory's lock; another holder is refused;
(2) read the lock store and the checkpoints on disk; a store that is newer than the records, or of the same size with
    another root, is refused: the directory is a restored backup or a fork;
(3) read all segments, the last one with signatures; those before a resume point (`ledger.resume`) are passed over;
(4) a torn end (nothing valid behind it) is copied to quarantine/ and cut off by rewriting the segment; a bad frame with
    a valid one behind it is corruption and refused;
(5) after anything but an orderly stop the last segment is rewritten through a new file before it is built upon: what a
    failed sync left in the page cache is never trusted;
(6) ledger.start, then ledger.recover if the last run did not stop in order, then an `indeterminate` outcome for every
    open intent, at its maximum cost; with `keep_open` no outcome: their makers may live, and the caller sees to them;
(7) a seal and a checkpoint, which the caller triggers.
"""

import fcntl
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ledger.checkpoints import Checkpointer, ReadBack, parse_note
from ledger.clock import Clock
from ledger.directory import (
    BALLAST,
    CHECKPOINTS,
    DESCRIPTION,
    LOCK,
    QUARANTINE,
    SEGMENTS,
    Description,
    note_files,
    note_name,
    segment_files,
    torn_name,
)
from ledger.errors import LedgerError, LedgerHeld, LedgerRefused
from ledger.files import Files, sync_directory
from ledger.genesis import genesis_content
from ledger.keys import HOT_FILE, ROOT_FILE, load_key, load_or_create_key, root_name
from ledger.locks import LockStore
from ledger.note import Checkpoint, NoteInvalid, Signer, is_name, unsafe_checkpoint_text
from ledger.resume import ResumePoint, ResumeStore
from ledger.scan import Scanned, scan
from ledger.schema import NO_TENANT
from ledger.sequencer import Limits, Sequencer, Submission
from ledger.sources import is_regular
from ledger.state import LogState

SOFTWARE = "exeat/0.1.0"
MAX_RECOVERY_GROUP = 512


@dataclass(frozen=True, slots=True)
class Opened:
    """A directory that is ours to write, with everything a writer needs."""

    directory: Path
    description: Description
    sequencer: Sequencer
    checkpointer: Checkpointer
    lock: int
    """Descriptor that holds the directory's lock."""


def take_lock(directory: Path) -> int:
    """(1) The descriptor that holds the directory's lock; raises `LedgerRefused` when another process does."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise LedgerHeld(f"another process writes {directory}") from None
    return descriptor


def create_directory(
    directory: Path,
    *,
    keys: Path,
    store: LockStore,
    origin: str,
    files: Files,
    clock: Clock,
    limits: Limits,
    resume: ResumeStore | None = None,
) -> Opened:
    """A new log with its genesis record. Raises `LedgerRefused` when there is one already.

    The description file is written last: a creation that was interrupted before it is started over, for nobody has
    been told of that log.
    """
    if not is_name(origin):
        raise LedgerRefused(f"{origin[:128]!r} is no log name: letters, digits, . _ / : - and no `ledger-` in front")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = take_lock(directory)
    try:
        if (directory / DESCRIPTION).exists():
            raise LedgerRefused(f"{directory} already holds a ledger")
        if store.load() is not None:
            raise LedgerRefused("the lock store knows a ledger already; its directory must not be replaced")
        for name in (SEGMENTS, CHECKPOINTS, QUARANTINE):
            if (directory / name).exists():
                shutil.rmtree(directory / name)
            (directory / name).mkdir(mode=0o700)
        sync_directory(directory)
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = load_or_create_key(keys / ROOT_FILE, root_name(origin))
        hot = load_or_create_key(keys / HOT_FILE, origin)
        blinding = os.urandom(32)
        state = LogState(origin, blinding)
        read_back = ReadBack(directory, state.frontier)
        sequencer = Sequencer(directory, state, hot, files=files, clock=clock, limits=limits, points=resume is not None)
        files.allocate(directory / BALLAST, limits.ballast_bytes)
        genesis, _ = _own(
            sequencer,
            [
                ("genesis", NO_TENANT, genesis_content(origin, root, hot.verifier, blinding, SOFTWARE)),
                ("ledger.start", NO_TENANT, {"software": SOFTWARE, "clean": True, "previous": None}),
            ],
        )
        description = Description(origin, root.verifier, genesis, blinding)
        files.replace(directory / DESCRIPTION, description.encode())
        checkpointer = Checkpointer(
            directory,
            signer=hot,
            store=store,
            files=files,
            newest=None,
            last=None,
            read_back=read_back,
            resume=resume,
        )
    except BaseException:
        os.close(lock)
        raise
    return Opened(directory, description, sequencer, checkpointer, lock)


def open_directory(
    directory: Path,
    *,
    keys: Path,
    store: LockStore,
    files: Files,
    clock: Clock,
    limits: Limits,
    keep_open: bool = False,
    resume: ResumeStore | None = None,
) -> Opened:
    """The log of a directory, recovered. Raises `LedgerRefused` with what an operator has to look at."""
    if not directory.is_dir():
        raise LedgerRefused(f"{directory} is no directory")
    lock = take_lock(directory)
    try:
        return _open_locked(
            directory,
            keys=keys,
            store=store,
            files=files,
            clock=clock,
            limits=limits,
            lock=lock,
            keep_open=keep_open,
            resume=resume,
        )
    except BaseException:
        os.close(lock)
        raise


def _open_locked(
    directory: Path,
    *,
    keys: Path,
    store: LockStore,
    files: Files,
    clock: Clock,
    limits: Limits,
    lock: int,
    keep_open: bool,
    resume: ResumeStore | None,
) -> Opened:
    for path in (directory / DESCRIPTION, *(path for _, path in note_files(directory))):
        if not is_regular(path):
            raise LedgerRefused(f"{path.name} is a link or no file: a ledger holds its own bytes")
    for name in (SEGMENTS, CHECKPOINTS, QUARANTINE):
        if (directory / name).is_symlink():
            raise LedgerRefused(f"{name} is a link: a ledger holds its own bytes")
    try:
        description = Description.parse(files.read(directory / DESCRIPTION))
    except FileNotFoundError:
        raise LedgerRefused(f"{directory} holds no ledger, or its creation did not finish") from None
    except ValueError as error:
        raise LedgerRefused(f"{DESCRIPTION}: {error}") from None
    hot = load_key(keys / HOT_FILE, description.origin)
    for leftover in (SEGMENTS, CHECKPOINTS, QUARANTINE):
        for path in (directory / leftover).glob("*.tmp"):
            path.unlink()
    for name in (CHECKPOINTS, QUARANTINE):
        (directory / name).mkdir(mode=0o700, exist_ok=True)

    # (2) and (3)
    newest = store.load()
    notes = note_files(directory)
    claimed = _newest_claim(newest)
    sizes = frozenset({size for size, _ in notes} | ({claimed} if claimed is not None else set()))
    scanned = _scanned(
        directory, description, files, sizes, _resume_point(directory, description, hot, resume, claimed)
    )
    if scanned.keys[-1].public != hot.verifier.public:
        raise LedgerRefused("the hot key file does not hold the log's current key")
    last = _check_heads(scanned, newest, notes, files)

    # (4) and (5)
    torn = _set_aside(directory, scanned, files)
    files.allocate(directory / BALLAST, limits.ballast_bytes)
    state = scanned.state
    before = state.size - 1
    read_back = ReadBack(directory, state.frontier)
    sequencer = Sequencer(directory, state, hot, files=files, clock=clock, limits=limits, points=resume is not None)

    # (6)
    clean = scanned.stopped and not torn
    first: list[Submission] = [
        (
            "ledger.start",
            NO_TENANT,
            {"software": SOFTWARE, "clean": clean, "previous": before},
        )
    ]
    open_intents = list(state.calls.open.values())
    if not clean:
        first.extend(
            (
                "ledger.recover",
                NO_TENANT,
                {
                    "segment": segment,
                    "offset": offset,
                    "bytes": len(data),
                    "sha256": sha256(data).hexdigest(),
                    "last": before,
                    "open": len(open_intents),
                    **({"kept": True} if keep_open else {}),
                },
            )
            for segment, offset, data in torn or [(0, 0, b"")]
        )
    _own(sequencer, first)
    if not keep_open:
        for start in range(0, len(open_intents), MAX_RECOVERY_GROUP):
            closing: list[Submission] = [
                ("call.outcome", intent.tenant, intent.ended_unseen("indeterminate", "recovered"))
                for intent in open_intents[start : start + MAX_RECOVERY_GROUP]
            ]
            _own(sequencer, closing)
    if newest is not None and last is not None:
        files.replace(directory / CHECKPOINTS / note_name(last.size), newest)
    kept = (last, True) if last is not None else None
    checkpointer = Checkpointer(
        directory, signer=hot, store=store, files=files, newest=newest, last=kept, read_back=read_back, resume=resume
    )
    return Opened(directory, description, sequencer, checkpointer, lock)


def _resume_point(
    directory: Path, description: Description, hot: Signer, resume: ResumeStore | None, claimed: int | None
) -> ResumePoint | None:
    """Where reading begins; None: at the log's beginning, for whatever is odd about a point."""
    try:
        data = None if resume is None else resume.load()
    except OSError:
        return None
    if data is None or claimed is None:
        return None
    point = ResumePoint.parse(data, hot.verifier, description.origin, description.blinding)
    # The newest checkpoint has to be compared with the root at its size, which only what is read says.
    if point is None or point.first > claimed or not point.fits(segment_files(directory)):
        return None
    return point


def _scanned(
    directory: Path, description: Description, files: Files, sizes: frozenset[int], point: ResumePoint | None
) -> Scanned:
    """(3) What a resume point does not lead to, reading from the beginning decides."""
    if point is not None:
        try:
            return scan(directory, description, files, sizes, point)
        except LedgerRefused:
            pass
    return scan(directory, description, files, sizes)


def _own(sequencer: Sequencer, submissions: list[Submission]) -> list[bytes]:
    """The leaves of our own records, all durable; a refusal of any is a defect and raised."""
    leaves: list[bytes] = []
    for result in sequencer.append_batch(submissions):
        if isinstance(result, LedgerError):
            raise result
        leaves.append(result.leaf)
    return leaves


def _newest_claim(note: bytes | None) -> int | None:
    """The size that the lock store's note claims, before it is known who signed it."""
    if note is None:
        return None
    try:
        return unsafe_checkpoint_text(note).size
    except NoteInvalid as error:
        raise LedgerRefused(f"the lock store holds no checkpoint: {error}") from None


def _check_heads(
    scanned: Scanned, newest: bytes | None, notes: list[tuple[int, Path]], files: Files
) -> Checkpoint | None:
    """(2) Every checkpoint agrees with the records; returns the newest one."""
    state = scanned.state

    def agrees(note: bytes, whose: str) -> Checkpoint:
        try:
            checkpoint = parse_note(note, scanned.keys, state.origin)
        except NoteInvalid as error:
            raise LedgerRefused(f"{whose}: {error}") from None
        if checkpoint.size > state.size:
            raise LedgerRefused(
                f"{whose} covers {checkpoint.size} records, the directory has {state.size}: records were lost, or "
                "this is an old copy"
            )
        if scanned.roots.get(checkpoint.size) != checkpoint.root:
            raise LedgerRefused(f"{whose} has another root at {checkpoint.size} records: this directory is a fork")
        return checkpoint

    for size, path in notes:
        if size < scanned.begun:
            continue  # before what was read: compared when its records were
        on_disk = agrees(files.read(path), f"checkpoint {path.name}")
        if on_disk.size != size:
            raise LedgerRefused(f"checkpoint {path.name} is of another size than its name says")
    if newest is None:
        if notes:
            raise LedgerRefused("the lock store is empty, but the directory has checkpoints: the store was lost")
        return None
    last = agrees(newest, "the lock store's checkpoint")
    if notes and notes[-1][0] > last.size:
        raise LedgerRefused("the directory has a newer checkpoint than the lock store: the store was restored")
    return last


def _set_aside(directory: Path, scanned: Scanned, files: Files) -> list[tuple[int, int, bytes]]:
    """(4), (5) The last segment ends with its last committed group, on fresh pages.

    Returns (segment, offset, bytes) of every torn end that no record names yet: also of a recovery that was
    cut short after setting bytes aside. Its copy carries the number of the log's last record; nothing has followed it.
    """
    last = scanned.state.size - 1
    tail = scanned.tail
    if tail is not None:
        if tail.data:
            files.replace(directory / QUARANTINE / torn_name(last, tail.first, tail.offset, tail.data), tail.data)
        if tail.offset == 0:
            files.remove(tail.path)
        else:
            files.replace(tail.path, files.read(tail.path)[: tail.offset])
    elif not scanned.stopped:
        path = segment_files(directory)[-1][1]
        files.replace(path, files.read(path))
    torn: list[tuple[int, int, bytes]] = []
    for path in sorted((directory / QUARANTINE).glob(f"{last:020d}-*.torn")):
        _, segment, offset, _ = path.name.removesuffix(".torn").split("-")
        torn.append((int(segment), int(offset), files.read(path)))
    return torn
