"""Opening from a resume point: the same log as by reading everything, and never more trusted than that."""

import random
import shutil
from pathlib import Path

import pytest

from ledger import FileResumeStore, Ledger, LedgerRefused, Limits, MemoryLockStore, PosixFiles, RecordRefused, verify
from ledger.directory import Description, segment_files
from ledger.keys import HOT_FILE, load_key
from ledger.resume import ResumePoint
from ledger.scan import scan

SMALL = Limits(
    reserve_bytes=0, ballast_bytes=4096, seal_active_seconds=3600, seal_idle_seconds=3600, segment_bytes=6_000
)


class Reads(PosixFiles):
    """The disk, and which segments were read from it."""

    def __init__(self) -> None:
        self.segments: list[str] = []

    def read(self, path: Path) -> bytes:
        if path.suffix == ".seg":
            self.segments.append(path.name)
        return super().read(path)


class Point:
    """A resume store in memory."""

    def __init__(self) -> None:
        self.value: bytes | None = None

    def load(self) -> bytes | None:
        return self.value

    def save(self, point: bytes) -> None:
        self.value = point


@pytest.fixture
def point():
    return Point()


@pytest.fixture
def log(world, records, point):
    """Opens the log; with each opening some calls are made in it."""
    numbers = iter(range(10**6))

    def opened(calls: int = 30, **changes):
        ledger = world(limits=SMALL, resume=point, **changes)
        if calls:
            ledger.submit(*records.activate()).result(10)
        for _ in range(calls):
            call, tenant = f"c_{next(numbers)}", random.Random(calls).choice(("acme", "beta"))
            intent = ledger.submit(*records.intent(call, tenant)).result(10)
            if calls % 3:
                ledger.submit(*records.outcome(call, intent.seq, tenant)).result(10)
        return ledger

    return opened


def _resumed(directory: Path, keys: Path, point: Point):
    description = Description.parse((directory / "LEDGER.json").read_bytes())
    hot = load_key(keys / HOT_FILE, description.origin)
    found = ResumePoint.parse(point.value or b"", hot.verifier, description.origin, description.blinding)
    return description, hot, found


def test_only_what_follows_the_point_is_read(log, point, tmp_path):
    log().close()
    log().close()
    every = len(segment_files(tmp_path / "ledger"))
    reads = Reads()
    log(0, files=reads).close()
    assert every > 10
    assert len(set(reads.segments)) <= 2


def test_it_is_the_same_state_as_by_reading_everything(log, point, tmp_path):
    """Chain, trees, tenants, open and ended calls, policies, keys, time."""
    for calls in (20, 31, 45, 7):
        log(calls).close()
        directory = tmp_path / "ledger"
        description, hot, found = _resumed(directory, tmp_path / "keys", point)
        assert found is not None
        assert found.fits(segment_files(directory))
        whole = scan(directory, description, PosixFiles(), frozenset())
        short = scan(directory, description, PosixFiles(), frozenset(), found)
        assert short.begun > 0
        told = [ResumePoint.of(scanned.state).encode(directory, hot) for scanned in (whole, short)]
        assert told[0] == told[1]
        assert (short.stopped, short.tail, short.state.last_us) == (whole.stopped, whole.tail, whole.state.last_us)


def test_a_call_that_ended_before_the_point_has_ended(log, point, records):
    ledger = log()
    ledger.submit(*records.denied("c_over")).result(10)
    ledger.close()
    log(40).close()
    again = log(0)
    with pytest.raises(RecordRefused, match="denied"):
        again.submit(*records.intent("c_over")).result(10)


def test_what_goes_on_from_a_point_verifies(log, point, tmp_path):
    for calls in (20, 33, 15):
        ledger = log(calls)
        trust = ledger.trust()
        ledger.close()
    assert verify(tmp_path / "ledger", trust).findings == ()


@pytest.mark.parametrize("damage", ["gone", "flipped", "another key", "cut", "nonsense", "another log"])
def test_a_point_that_is_not_the_logs_own_costs_time_alone(log, point, tmp_path, damage):
    log().close()
    log().close()
    kept = point.value
    if damage == "gone":
        point.value = None
    elif damage == "flipped":
        point.value = kept.replace(b'"policy":"sha256:ab', b'"policy":"sha256:ac')
    elif damage == "cut":
        point.value = kept[:-20]
    elif damage == "nonsense":
        point.value = b"\xff\n\n"
    else:
        other, store = Point(), MemoryLockStore()
        name = "exeat.test/log" if damage == "another key" else "exeat.test/other"
        arguments = {"keys": tmp_path / "k2", "lock_store": store, "limits": SMALL, "resume": other}
        Ledger.create(tmp_path / "l2", origin=name, **arguments).close()
        Ledger.open(tmp_path / "l2", **arguments).close()
        point.value = other.value
    assert point.value != kept
    reads = Reads()
    log(0, files=reads).close()
    assert len(set(reads.segments)) > 10


def test_an_older_point_leads_to_the_same(log, point):
    log().close()
    older = point.value
    log(33).close()
    assert point.value != older
    point.value = older
    reads = Reads()
    log(20, files=reads).close()
    assert len(set(reads.segments)) > 2
    log(0).close()


@pytest.mark.parametrize("how", ["removed", "cut short", "a link"])
def test_an_earlier_segment_that_is_not_as_it_was_is_refused(log, point, tmp_path, how):
    log().close()
    log().close()
    _, path = segment_files(tmp_path / "ledger")[1]
    if how == "removed":
        path.unlink()
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        moved = path.rename(tmp_path / "elsewhere")
        path.symlink_to(moved)
    with pytest.raises(LedgerRefused, match=r"damaged|does not continue|is a link"):
        log(0)


def test_a_point_beyond_the_newest_checkpoint_is_not_used(log, point, tmp_path, store):
    """The lock store's root can only be compared where its record is read."""
    ledger = log(3)
    early = store.value
    for name in ("first", "second"):
        shutil.copytree(tmp_path / "ledger", tmp_path / name)
    ledger.close()
    log(40).close()
    store.value = early
    reads = Reads()
    with pytest.raises(LedgerRefused, match="newer checkpoint than the lock store"):
        log(0, files=reads)
    assert len(set(reads.segments)) > 10


def test_a_fork_is_refused_from_a_point_too(log, point, tmp_path, store):
    log().close()
    shutil.copytree(tmp_path / "ledger", tmp_path / "clone")
    other, theirs = MemoryLockStore(store.value), Point()
    theirs.value = point.value
    arguments = {"keys": tmp_path / "keys", "limits": SMALL}
    Ledger.open(tmp_path / "clone", lock_store=other, resume=theirs, **arguments).close()
    log(0).close()
    with pytest.raises(LedgerRefused, match=r"fork|records were lost"):
        Ledger.open(tmp_path / "clone", lock_store=store, resume=point, **arguments)


def test_a_store_that_fails_stops_nothing(world, records, tmp_path):
    """A folder that is not there: neither read nor written, and the log goes on."""

    class Failing(FileResumeStore):
        def load(self):
            raise PermissionError

    resume = Failing(tmp_path / "nowhere" / "resume", PosixFiles())
    ledger = world(limits=SMALL, resume=resume)
    ledger.submit(*records.activate()).result(10)
    for number in range(30):
        ledger.submit(*records.denied(f"c_{number}")).result(10)
    ledger.close()
    assert world(limits=SMALL, resume=resume).head().halted is None


def test_a_file_keeps_the_newest(tmp_path):
    store = FileResumeStore(tmp_path / "resume", PosixFiles())
    assert store.load() is None
    store.save(b"one")
    store.save(b"two")
    assert store.load() == b"two"
    assert (tmp_path / "resume").stat().st_mode & 0o777 == 0o600
