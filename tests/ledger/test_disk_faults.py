"""When the disk fails: nothing unrecorded is acknowledged, a failed sync is final, calls in flight can end."""

import errno
import os
import time
from pathlib import Path

import pytest

from ledger import Ledger, LedgerUnavailable, Limits, MemoryLockStore, PosixFiles, read_records, verify

ROOMY = 1 << 40


class FaultyFiles(PosixFiles):
    """The real file layer, failing where a test says. Counts what is asked after a failure."""

    def __init__(self) -> None:
        self.faults: dict[str, list[int]] = {}
        self.free = ROOMY
        self.calls: list[str] = []

    def fail(self, operation: str, *errors: int) -> None:
        """The next calls of the operation fail with these errors, 0 meaning success."""
        self.faults[operation] = list(errors)

    def _meet(self, operation: str) -> None:
        self.calls.append(operation)
        errors = self.faults.get(operation)
        if errors:
            number = errors.pop(0)
            if number:
                raise OSError(number, os.strerror(number))

    def write(self, descriptor: int, data: bytes) -> None:
        if (self.faults.get("write") or [0])[0]:
            super().write(descriptor, data[: len(data) // 2])  # some of it may have reached the disk
        self._meet("write")
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._meet("sync")
        super().sync(descriptor)

    def replace(self, path: Path, data: bytes) -> None:
        self._meet("replace")
        super().replace(path, data)

    def create(self, path: Path) -> int:
        self._meet("create")
        return super().create(path)

    def free_bytes(self, directory: Path) -> int:
        return self.free


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def faulty(world, files, limits) -> Ledger:
    return world(files=files, limits=limits)


@pytest.mark.parametrize(("operation", "number"), [("write", errno.EIO), ("sync", errno.EIO), ("sync", errno.ENOSPC)])
def test_a_failed_write_or_sync_stops_the_log_for_good(
    faulty, files, records, world, limits, tmp_path, operation, number
):
    """Who waits is told, every later submission is refused, and the descriptor is never touched again."""
    faulty.submit(*records.activate()).result(10)
    kept = faulty.submit(*records.intent("c_1")).result(10)
    files.fail(operation, number)
    with pytest.raises(LedgerUnavailable):
        faulty.submit(*records.intent("c_2")).result(10)
    files.calls.clear()
    for _ in range(3):
        with pytest.raises(LedgerUnavailable):
            faulty.submit(*records.outcome("c_1", kept.seq)).result(10)
    assert files.calls == []
    assert faulty.head().halted is not None
    with pytest.raises(LedgerUnavailable):
        faulty.close()
    trust = faulty.trust()
    world().close()
    assert verify(tmp_path / "ledger", trust).findings == ()
    assert any(record.seq == kept.seq and record.leaf == kept.leaf for record in read_records(tmp_path / "ledger"))


def test_a_full_disk_gives_back_the_ballast_and_outcomes_still_fit(faulty, files, records, tmp_path):
    """ENOSPC once: what was being written is written, intents are refused, what is in flight can end."""
    faulty.submit(*records.activate()).result(10)
    files.fail("write", errno.ENOSPC)
    intent = faulty.submit(*records.intent("c_1")).result(10)
    with pytest.raises(LedgerUnavailable, match="reserve"):
        faulty.submit(*records.intent("c_2")).result(10)
    with pytest.raises(LedgerUnavailable, match="reserve"):
        faulty.submit(*records.denied("d_1")).result(10)
    faulty.submit(*records.outcome("c_1", intent.seq)).result(10)
    assert not (tmp_path / "ledger" / "BALLAST").exists()
    assert faulty.head().reserve
    faulty.close()
    report = verify(tmp_path / "ledger", faulty.trust())
    assert report.findings == ()
    assert [halt["phase"] for halt in report.halts] == ["begin"]


def test_a_disk_that_stays_full_stops_the_log(faulty, files, records):
    faulty.submit(*records.activate()).result(10)
    files.fail("write", errno.ENOSPC, errno.ENOSPC)
    with pytest.raises(LedgerUnavailable):
        faulty.submit(*records.intent("c_1")).result(10)
    with pytest.raises(LedgerUnavailable):
        faulty.submit(*records.denied("d_1"))


def test_below_the_reserve_intents_wait_until_there_is_room(world, files, records, tmp_path):
    """The halt and its end are records; nothing is refused before the reserve is reached."""
    limits = Limits(reserve_bytes=1000, ballast_bytes=4096, seal_active_seconds=3600, space_check_seconds=0)
    ledger = world(files=files, limits=limits)
    ledger.submit(*records.activate()).result(10)
    intent = ledger.submit(*records.intent("c_1")).result(10)
    files.free = 999
    with pytest.raises(LedgerUnavailable, match="reserve"):
        ledger.submit(*records.intent("c_2")).result(10)
    ledger.submit(*records.outcome("c_1", intent.seq)).result(10)
    files.free = 1300  # not yet room for reserve and ballast
    with pytest.raises(LedgerUnavailable, match="reserve"):
        ledger.submit(*records.intent("c_2")).result(10)
    files.free = ROOMY
    ledger.submit(*records.intent("c_2")).result(10)
    ledger.close()
    report = verify(tmp_path / "ledger", ledger.trust())
    assert report.findings == ()
    assert [halt["phase"] for halt in report.halts] == ["begin", "end"]


def test_a_head_that_cannot_be_published_stops_the_log(world, files, records, tmp_path):
    """A checkpoint note that cannot be written, or a lock store that another sequencer moved, ends this run."""
    limits = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=0)
    ledger = world(files=files, limits=limits)
    files.fail("replace", errno.EIO)
    _submit_until_refused(ledger, records)
    with pytest.raises(LedgerUnavailable):
        ledger.close()


def test_a_second_sequencer_that_moved_the_lock_store_stops_this_one(world, store, records):
    ledger = world(limits=Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=0))
    store.value = b"somebody else's"
    _submit_until_refused(ledger, records)
    with pytest.raises(LedgerUnavailable, match="second sequencer"):
        ledger.close()


def test_bytes_that_read_back_differently_stop_the_log(world, records, tmp_path):
    """A bit that flips between memory and disk is noticed before a head is signed over it."""
    ledger = world(limits=Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600))
    ledger.submit(*records.activate()).result(10)
    segment = sorted((tmp_path / "ledger" / "segments").iterdir())[-1]
    data = bytearray(segment.read_bytes())
    data[-200] ^= 1
    segment.write_bytes(bytes(data))
    with pytest.raises(LedgerUnavailable, match=r"reads? back"):
        ledger.close()


def test_more_submissions_than_the_disk_can_take_are_refused(tmp_path, records):
    """The queue is bounded: a hung disk costs bounded memory and every further call is denied."""
    files = FaultyFiles()
    gate = _Gate(files)
    ledger = Ledger.create(
        tmp_path / "l",
        keys=tmp_path / "k",
        lock_store=MemoryLockStore(),
        origin="exeat.test/log",
        files=gate,
        limits=Limits(reserve_bytes=0, ballast_bytes=0, max_pending=10, seal_active_seconds=3600),
    )
    gate.closed.acquire()
    futures = []
    with pytest.raises(LedgerUnavailable, match="wait for the disk"):
        futures.extend(ledger.submit(*records.denied(f"d_{n}")) for n in range(30))
    assert ledger.head().lag_records >= 10
    gate.closed.release()
    assert all(future.result(10) for future in futures)
    ledger.close()


class _Gate:
    """A file layer whose sync waits while the gate is closed: a disk that hangs."""

    def __init__(self, inner: FaultyFiles) -> None:
        import threading

        self._inner = inner
        self.closed = threading.Lock()

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def sync(self, descriptor: int) -> None:
        with self.closed:
            self._inner.sync(descriptor)


SHORT = pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])


@SHORT
def test_a_checkpoint_waits_for_a_descriptor_and_stops_nothing(world, files, records, tmp_path, number):
    """Whoever opens all the files this process may have delays heads; the log goes on and the heads follow."""
    ledger = world(files=files, limits=Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=0))
    files.fail("replace", number, number, number)
    size = 0
    for n in range(10_000):
        size = ledger.submit(*records.denied(f"d_{n}")).result(10).seq
        if not files.faults["replace"]:
            break
        time.sleep(0.001)
    assert files.faults["replace"] == []
    assert ledger.head().halted is None
    ledger.close()
    assert ledger.head().checkpoint_size > size
    assert verify(tmp_path / "ledger", ledger.trust()).findings == ()


def test_a_checkpoint_that_never_gets_a_descriptor_ends_with_the_run(world, files, records, monkeypatch):
    """Bounded: a stop does not wait for ever for what others hold open."""
    monkeypatch.setattr("ledger.checkpoints._LAST_ATTEMPTS", 2)
    ledger = world(files=files, limits=Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600))
    ledger.submit(*records.activate()).result(10)
    files.fail("replace", *[errno.EMFILE] * 1000)
    with pytest.raises(LedgerUnavailable):
        ledger.close()
    files.faults.clear()
    world().close()


@SHORT
def test_a_group_that_finds_no_descriptor_for_its_segment_is_refused_and_the_next_one_tries(
    world, files, records, tmp_path, number
):
    """Nothing was numbered, so nothing is missing afterwards; seals wait as well."""
    limits = Limits(reserve_bytes=0, ballast_bytes=0, segment_bytes=1, seal_active_seconds=0)  # one segment a group
    ledger = world(files=files, limits=limits)
    ledger.submit(*records.activate()).result(10)
    files.fail("create", *[number] * 6)
    refusals: set[str] = set()
    for n in range(1000):
        try:
            ledger.submit(*records.denied(f"d_{n}")).result(10)
        except LedgerUnavailable as error:
            refusals.add(str(error))
        if not files.faults["create"]:
            break
    assert refusals == {"too many files are open"}
    assert ledger.head().halted is None
    kept = ledger.submit(*records.denied("d_last")).result(10)
    ledger.close()
    assert verify(tmp_path / "ledger", ledger.trust()).findings == ()
    assert any(record.leaf == kept.leaf for record in read_records(tmp_path / "ledger"))


def test_a_segment_whose_name_cannot_be_synced_for_want_of_a_descriptor_is_begun_again(tmp_path, monkeypatch):
    """The file was made, its directory could not be opened: the name is free for the next attempt."""
    real = os.open

    def short(path, flags, *more, **named):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "too many")
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short)
        with pytest.raises(OSError, match="too many"):
            PosixFiles().create(tmp_path / "x.seg")
    os.close(PosixFiles().create(tmp_path / "x.seg"))


def _submit_until_refused(ledger: Ledger, records) -> None:
    """Heads are published by their own thread, so the refusal comes within a bounded number of submissions."""
    for n in range(10_000):
        try:
            ledger.submit(*records.denied(f"d_{n}")).result(10)
        except LedgerUnavailable:
            return
    raise AssertionError("the log went on")
