"""Opening after anything: what was acknowledged is there, what was torn is set aside, what is wrong is refused."""

import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from ledger import Ledger, LedgerRefused, MemoryLockStore, read_records, verify
from ledger.segment import frame_at


class Crashed:
    """A copy of a ledger's directory and of its lock store at one instant: what a killed process leaves behind."""

    def __init__(self, ledger: Ledger, store: MemoryLockStore, keys: Path, to: Path) -> None:
        self.trust = ledger.trust()
        self.keys = keys
        self.note = store.value
        self.origin = to
        shutil.copytree(ledger.directory, to)

    @property
    def segment(self) -> Path:
        return sorted((self.origin / "segments").iterdir())[-1]

    def open(self, limits, note: bytes | None = None, *, keep_open: bool = False) -> Ledger:
        store = MemoryLockStore(self.note if note is None else note)
        return Ledger.open(self.origin, keys=self.keys, lock_store=store, limits=limits, keep_open=keep_open)

    def names(self) -> list[str]:
        return [finding.name for finding in verify(self.origin, self.trust).findings]


@pytest.fixture
def crashed(world, records, store, tmp_path):
    """A ledger killed with one call ended and one open."""
    ledger = world()
    ledger.submit(*records.activate()).result(10)
    one = ledger.submit(*records.intent("c_1")).result(10)
    ledger.submit(*records.outcome("c_1", one.seq)).result(10)
    ledger.submit(*records.intent("c_2", cost=records.cost(777))).result(10)
    made = Crashed(ledger, store, tmp_path / "keys", tmp_path / "crashed")
    ledger.close()
    return made


def test_open_intents_are_closed_as_indeterminate_at_their_maximum(crashed, limits, records):
    """A crash between intent and outcome: never success, never free."""
    crashed.open(limits).close()
    found = list(read_records(crashed.origin))
    outcomes = [record.body for record in found if record.type == "call.outcome"]
    assert [outcome["call"] for outcome in outcomes] == ["c_1", "c_2"]
    assert outcomes[1]["result"]["status"] == "indeterminate"
    assert outcomes[1]["cost"] == records.cost(777)
    start, recover = (next(r for r in reversed(found) if r.type == t) for t in ("ledger.start", "ledger.recover"))
    assert start.body["clean"] is False
    assert recover.seq == start.seq + 1
    assert recover.body["open"] == 1
    report = verify(crashed.origin, crashed.trust)
    assert report.exit_code == 0
    assert report.indeterminate_calls == (f"c_2 #{recover.seq + 1}",)
    assert len(report.recoveries) == 1


def test_open_intents_of_workers_that_live_are_kept_and_said_to_be(crashed, limits, records):
    """They end in the next run, by their own outcome; the verifier is told why they outlived the recovery."""
    ledger = crashed.open(limits, keep_open=True)
    ((seq, kept),) = ledger.open_intents().items()
    assert (kept.call, kept.worker) == ("c_2", records.env["worker"])
    assert verify(crashed.origin, crashed.trust).findings == ()
    ledger.submit(*records.outcome("c_2", seq, cost=records.cost(700))).result(10)
    ledger.close()
    report = verify(crashed.origin, crashed.trust)
    assert report.findings == ()
    assert report.indeterminate_calls == ()
    assert [(recovery["open"], recovery["kept"]) for recovery in report.recoveries] == [(1, True)]


def test_a_write_torn_anywhere_is_set_aside_and_the_log_goes_on(crashed, limits, records, tmp_path):
    """A cut inside the last group recovers; what was committed stays; the verifier accounts for the bytes."""
    data = crashed.segment.read_bytes()
    ends = _commit_ends(data)
    before = len(list(read_records(crashed.origin)))
    for cut in range(ends[-2] + 1, ends[-1], 23):
        copy = tmp_path / f"cut{cut}"
        shutil.copytree(crashed.origin, copy)
        (copy / "segments" / crashed.segment.name).write_bytes(data[:cut])
        assert [f.name for f in verify(copy, crashed.trust).findings] == ["tail_torn"]
        ledger = Ledger.open(copy, keys=crashed.keys, lock_store=MemoryLockStore(crashed.note), limits=limits)
        ledger.submit(*records.intent("c_9")).result(10)
        ledger.close()
        report = verify(copy, crashed.trust)
        assert report.findings == ()
        assert report.recoveries[0]["bytes"] == cut - ends[-2]
        assert report.recoveries[0]["last"] == before - 2


def test_a_cut_below_the_lock_stores_checkpoint_is_refused(crashed, limits):
    """Records that a checkpoint covers can only be lost, not torn."""
    data = crashed.segment.read_bytes()
    crashed.segment.write_bytes(data[: _commit_ends(data)[0]])
    with pytest.raises(LedgerRefused, match="records were lost"):
        crashed.open(limits)


def test_damage_with_valid_data_behind_it_is_refused(crashed, limits):
    """A torn write damages the end; damage in the middle is corruption and nothing is dropped for it."""
    data = bytearray(crashed.segment.read_bytes())
    data[_commit_ends(bytes(data))[-2] + 30] ^= 1
    crashed.segment.write_bytes(bytes(data))
    with pytest.raises(LedgerRefused, match="valid data follows"):
        crashed.open(limits)


def test_a_restored_backup_is_refused(world, records, store, limits, tmp_path):
    """The lock store has seen more than the directory holds."""
    ledger = world()
    backup = Crashed(ledger, store, tmp_path / "keys", tmp_path / "backup")
    ledger.close()
    world().close()
    with pytest.raises(LedgerRefused, match="records were lost"):
        backup.open(limits, store.value)


def test_a_fork_is_refused(world, records, store, limits, tmp_path):
    """A cloned machine: same size, other records."""
    ledger = world()
    clone = Crashed(ledger, store, tmp_path / "keys", tmp_path / "clone")
    ledger.close()
    other = MemoryLockStore(clone.note)
    Ledger.open(clone.origin, keys=clone.keys, lock_store=other, limits=limits).close()
    with pytest.raises(LedgerRefused, match=r"fork|records were lost"):
        clone.open(limits, store.value)


def test_a_lost_lock_store_is_refused(crashed, limits):
    with pytest.raises(LedgerRefused, match="lock store is empty"):
        Ledger.open(crashed.origin, keys=crashed.keys, lock_store=MemoryLockStore(), limits=limits)


def test_a_recovery_that_was_itself_cut_short_is_recorded_by_the_next(crashed, limits):
    """The torn bytes are in quarantine and off the segment, but no record names them yet."""
    data = crashed.segment.read_bytes()
    crashed.segment.write_bytes(data[:-5])
    before = crashed.origin.with_name("before")
    shutil.copytree(crashed.origin, before)
    crashed.open(limits).close()
    torn = next((crashed.origin / "quarantine").iterdir())
    shutil.copy(torn, before / "quarantine" / torn.name)
    (before / "segments" / crashed.segment.name).unlink(missing_ok=True)
    first = sorted((before / "segments").iterdir())[0]
    first.write_bytes((crashed.origin / "segments" / first.name).read_bytes())
    ledger = Ledger.open(before, keys=crashed.keys, lock_store=MemoryLockStore(crashed.note), limits=limits)
    ledger.close()
    report = verify(before, crashed.trust)
    assert report.findings == ()
    assert report.recoveries[0]["bytes"] == torn.stat().st_size


def test_a_torn_end_of_a_new_segment_removes_the_segment(crashed, limits, tmp_path):
    """A crash while the first group of a segment was written leaves a file that holds nothing committed."""
    store = MemoryLockStore(crashed.note)
    arguments = {"keys": crashed.keys, "limits": limits}
    Ledger.open(crashed.origin, lock_store=store, **arguments).close()
    copy, note = tmp_path / "copy", store.value
    shutil.copytree(crashed.origin, copy)
    Ledger.open(crashed.origin, lock_store=store, **arguments).close()
    (copy / "segments" / crashed.segment.name).write_bytes(crashed.segment.read_bytes()[:50])
    Ledger.open(copy, lock_store=MemoryLockStore(note), **arguments).close()
    report = verify(copy, crashed.trust)
    assert report.findings == ()
    assert report.recoveries[-1]["offset"] == 0
    assert report.recoveries[-1]["bytes"] == 50


def test_what_a_killed_recovery_left_is_incomplete_not_tampered_and_gone_after_the_next(crashed, limits):
    """Files written aside and never renamed; bytes set aside and not recorded yet."""
    last = len(list(read_records(crashed.origin))) - 1
    name = crashed.segment.name
    (crashed.origin / "segments" / f"{name}.tmp").write_bytes(b"half")
    (crashed.origin / "checkpoints" / f"{9:020d}.note.tmp").write_bytes(b"")
    torn = crashed.origin / "quarantine" / f"{last:020d}-{0:020d}-99-{sha256(b'torn').hexdigest()[:16]}.torn"
    torn.write_bytes(b"torn")
    torn.with_name(torn.name + ".tmp").write_bytes(b"to")
    report = verify(crashed.origin, crashed.trust)
    assert {finding.name for finding in report.findings} == {"recovery_unfinished"}
    assert report.exit_code == 4
    crashed.open(limits).close()
    assert crashed.names() == []


def test_another_hot_key_is_refused(crashed, limits, tmp_path):
    keys = tmp_path / "other"
    Ledger.create(
        tmp_path / "l2", keys=keys, lock_store=MemoryLockStore(), origin="exeat.test/log", limits=limits
    ).close()
    crashed.keys = keys
    with pytest.raises(LedgerRefused, match="hot key"):
        crashed.open(limits)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700])
def test_a_key_file_that_others_can_use_is_refused(crashed, limits, mode):
    (crashed.keys / "ledger-hot.pem").chmod(mode)
    with pytest.raises(LedgerRefused, match="chmod 600"):
        crashed.open(limits)


def test_a_key_file_that_is_a_link_is_refused(crashed, limits, tmp_path):
    real = crashed.keys / "ledger-hot.pem"
    moved = tmp_path / "moved.pem"
    real.rename(moved)
    real.symlink_to(moved)
    with pytest.raises(LedgerRefused, match="key file"):
        crashed.open(limits)


def test_the_root_key_is_not_needed_to_run(crashed, limits):
    """An operator may take it to another machine after genesis."""
    (crashed.keys / "ledger-root.pem").unlink()
    crashed.open(limits).close()
    assert crashed.names() == []


def test_an_interrupted_creation_is_started_over(tmp_path, limits):
    """Without its description nobody has been told of that log."""
    arguments = {"keys": tmp_path / "k", "lock_store": MemoryLockStore(), "origin": "exeat.test/log", "limits": limits}
    Ledger.create(tmp_path / "l", **{**arguments, "lock_store": MemoryLockStore()}).close()
    (tmp_path / "l" / "LEDGER.json").unlink()
    with Ledger.create(tmp_path / "l", **arguments) as ledger:
        trust = ledger.trust()
    assert verify(tmp_path / "l", trust).exit_code == 0


def test_a_ledger_is_never_created_over_another(world, store, tmp_path, limits):
    world().close()
    with pytest.raises(LedgerRefused, match="already holds"):
        Ledger.create(tmp_path / "ledger", keys=tmp_path / "keys", lock_store=store, origin="x", limits=limits)
    with pytest.raises(LedgerRefused, match="lock store knows"):
        Ledger.create(tmp_path / "new", keys=tmp_path / "keys", lock_store=store, origin="x", limits=limits)


def _commit_ends(data: bytes) -> list[int]:
    offset, ends = 8, []
    while offset < len(data):
        type_, _, _, offset = frame_at(data, offset)
        if type_ == 3:
            ends.append(offset)
    return ends
