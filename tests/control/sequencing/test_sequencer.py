"""The sequencer's service, by real sockets: who may write what, what is closed when, and what an answer proves."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from control.sequencing import CONTROL, Identity, RemoteLedger, as_control
from control.state import State, StateInvalid
from credentials.actor import Actor
from ledger import Ledger, LedgerError, LedgerRefused, LedgerUnavailable, Receipt, RecordRefused, receipt_holds
from ledger.reading import read_records
from tests.control.sequencing.house import (
    ROOT,
    TENANT,
    Sequencer,
    assert_verifies,
    await_that,
    denied,
    intent,
    outcome,
    outcomes,
    prepared,
    records,
    remote,
)

SECONDS = 30

FOREIGN: tuple[tuple[str, dict[str, object]], ...] = (
    ("operator.act", {"act": "x", "actor": {"kind": "system", "id": "0", "name": "x"}, "detail": {}}),
    ("call.intent", intent("w0", "c_1")),
    ("call.denied", denied("w1.0123456789abcdef01234567", "c_1")),
    ("call.outcome", outcome("c_1", 3)),
    ("call.outcome", {"call": "c_1"}),
    ("call.rejected", {"env": {"worker": "w9"}}),
    ("ledger.stop", {"reason": "x"}),
    ("call.intent", {"call": "x" * 70_000}),
    ("call.intent", {"call": float}),
    ("no.type", {}),
)


def done(future: "Future[Receipt]") -> Receipt:
    return future.result(SECONDS)


class TestAWorker:
    def test_has_its_records_with_receipts_as_good_as_the_ledgers_own(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        first = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        both = [
            worker.submit("call.outcome", TENANT, outcome("c_1", first.seq)),
            worker.submit("call.denied", TENANT, denied(worker.worker, "c_2")),
        ]
        receipts = [first, *(done(one) for one in both)]
        leaves = {record.seq: record.leaf for record in read_records(folder / "ledger")}
        key = receipts[0].batch.verifier
        for receipt in receipts:
            assert receipt.leaf == leaves[receipt.seq]
            assert receipt_holds(receipt.proof(), key)
        assert [(receipt.type, receipt.call) for receipt in receipts] == [
            ("call.intent", "c_1"),
            ("call.outcome", "c_1"),
            ("call.denied", "c_2"),
        ]
        assert worker.head().size > max(receipt.seq for receipt in receipts)
        assert worker.origin == worker.trust().origin == receipts[0].log
        assert worker.trust_text() == (folder / "trust.policy").read_text()
        worker.close()
        assert sequencer.stop() == 0
        assert_verifies(folder)

    def test_writes_of_its_own_calls_alone(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        for type_, content in FOREIGN:
            with pytest.raises(RecordRefused):
                done(worker.submit(type_, TENANT, content))
        done(worker.submit("call.denied", TENANT, denied(worker.worker, "c_after")))
        worker.close()
        assert len(records(folder, "call.intent", "call.denied", "call.rejected", "call.outcome")) == 1

    def test_cannot_end_the_call_of_another(self, folder: Path, sequencer: Sequencer) -> None:
        one, other = remote(folder, "w0"), remote(folder, "w1")
        receipt = done(one.submit("call.intent", TENANT, intent(one.worker, "c_1")))
        with pytest.raises(RecordRefused, match="another worker"):
            done(other.submit("call.outcome", TENANT, outcome("c_1", receipt.seq)))
        done(one.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=204)))
        with pytest.raises(RecordRefused, match="no open intent"):
            done(other.submit("call.outcome", TENANT, outcome("c_1", receipt.seq)))
        one.close()
        other.close()
        assert [body["result"]["http"] for body in records(folder, "call.outcome")] == [204]

    def test_cannot_bear_a_name_that_it_read_in_the_ledger(self, folder: Path, sequencer: Sequencer) -> None:
        one = remote(folder)
        with pytest.raises(LedgerRefused, match="not proven"):
            RemoteLedger.open(folder, Identity(one.worker, "00" * 16))
        done(one.submit("call.denied", TENANT, denied(one.worker, "c_1")))
        one.close()

    def test_is_not_the_control_side(self, folder: Path, sequencer: Sequencer) -> None:
        """Who holds the folder's lock is another process than this one."""
        (folder / "LOCK").write_text("1\n")
        with pytest.raises(LedgerRefused, match="holds the state folder"):
            remote(folder, role=CONTROL)

    def test_whose_loop_left_has_its_orphans_told(self, folder: Path, sequencer: Sequencer) -> None:
        """As with the ledger itself: a cancelled wait cancels no record, and somebody hears of it."""

        async def cancelled() -> Receipt | LedgerError:
            worker = await RemoteLedger.join(folder, Identity.make("w0"))
            loop = asyncio.get_running_loop()
            told: asyncio.Future[Receipt | LedgerError] = loop.create_future()
            waiting = worker.submit_async(loop, "call.intent", TENANT, intent(worker.worker, "c_1"), told.set_result)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # it has been sent
            waiting.cancel()
            what = await asyncio.wait_for(told, SECONDS)
            assert isinstance(what, Receipt)
            await worker.submit_async(loop, "call.outcome", TENANT, outcome("c_1", what.seq))
            await worker.aclose()
            return what

        assert isinstance(asyncio.run(cancelled()), Receipt)

    def test_that_says_good_bye_leaves_nothing_open(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1", micros=777)))
        worker.close()
        await_that(lambda: ("c_1", 1) in outcomes(folder))
        ((one,),) = outcomes(folder).values()
        assert (one["result"]["status"], one["cost"]["micro"]) == ("indeterminate", 777)


class TestASequencerThatComesBack:
    def test_takes_an_outcome_of_a_call_that_went_on(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        receipt = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        sequencer.kill()
        waiting = worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=201))
        sequencer.start()
        done(waiting)
        worker.close()
        assert sequencer.stop() == 0
        assert [body["result"]["http"] for body in records(folder, "call.outcome")] == [201]
        assert_verifies(folder)

    def test_closes_the_calls_of_workers_that_do_not(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1", micros=777)))
        sequencer.kill()
        # A worker that dies in this moment: its client does not come back.
        worker._loop.call_soon_threadsafe(worker._task.cancel)  # type: ignore[union-attr]
        sequencer.start()
        await_that(lambda: ("c_1", 1) in outcomes(folder))
        ((one,),) = outcomes(folder).values()
        assert (one["result"]["err"], one["cost"]["micro"]) == ("worker_lost", 777)
        worker.close()
        assert sequencer.stop() == 0
        assert_verifies(folder)

    def test_in_order_loses_no_submission(self, folder: Path, sequencer: Sequencer) -> None:
        """A rolling restart: what the old one did not take waits for the new one, and no call is denied."""
        worker = remote(folder)
        waiting = [worker.submit("call.intent", TENANT, intent(worker.worker, f"c_{number}")) for number in range(3000)]
        assert sequencer.process is not None
        sequencer.process.terminate()
        later = [worker.submit("call.denied", TENANT, denied(worker.worker, f"d_{number}")) for number in range(1000)]
        assert sequencer.process.wait(SECONDS) == 0
        sequencer.start()
        for one in (*waiting, *later):
            done(one)
        worker.close()
        assert len(records(folder, "call.intent", "call.denied")) == 4000

    @pytest.mark.parametrize("killed", [False, True], ids=["the connection broke", "it was killed"])
    def test_knows_an_outcome_whose_answer_was_lost(self, folder: Path, sequencer: Sequencer, killed: bool) -> None:
        """Recorded, but nobody heard: submitted again it is the same record, with the receipt that was lost."""
        worker = remote(folder)
        receipt = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        line = worker._line
        assert line is not None
        worker._loop.call_soon_threadsafe(line.transport.pause_reading)
        waiting = worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=203))
        await_that(lambda: ("c_1", 1) in outcomes(folder))
        if killed:
            sequencer.kill()
        worker._loop.call_soon_threadsafe(line.transport.abort)
        if killed:
            sequencer.start()
        again = done(waiting)
        ((one,),) = outcomes(folder).values()
        leaves = {record.seq: record.leaf for record in read_records(folder / "ledger")}
        assert (again.seq, again.leaf, again.ts) == (one["seq"], leaves[one["seq"]], one["ts"])
        assert receipt_holds(again.proof(), again.batch.verifier)
        # Another outcome of the same intent is not taken for it.
        with pytest.raises(RecordRefused):
            done(worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=500)))
        worker.close()
        assert sequencer.stop() == 0
        assert_verifies(folder)

    def test_is_told_of_withdrawn_intents(self, folder: Path, sequencer: Sequencer) -> None:
        """An intent whose answer was lost: its call was denied, so it is closed as not sent, at no cost."""
        worker = remote(folder)
        assert sequencer.process is not None
        sequencer.process.send_signal(signal.SIGSTOP)
        waiting = [worker.submit("call.intent", TENANT, intent(worker.worker, f"c_{n}")) for n in range(50)]
        await_that(lambda: len(worker._submissions.sent) == 50)
        sequencer.process.send_signal(signal.SIGCONT)
        await_that(lambda: any(body["call"] == "c_0" for body in records(folder, "call.intent")))
        sequencer.kill()
        lost = [one for one in waiting if isinstance(one.exception(SECONDS), LedgerUnavailable)]
        sequencer.start()
        done(worker.submit("call.denied", TENANT, denied(worker.worker, "d_1")))
        found = outcomes(folder)
        recorded = {body["call"] for body in records(folder, "call.intent")}
        assert len(found) == len(recorded) - (50 - len(lost))
        for (one,) in found.values():
            assert (one["result"]["status"], one["result"]["sent"], one["cost"]["micro"]) == ("aborted", False, 0)
        worker.close()


class TestWithoutASequencer:
    def test_nothing_is_accepted_and_an_outcome_is_kept(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder, patience_seconds=0.3)
        receipt = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        sequencer.kill()
        await_that(lambda: worker.head().halted is not None)
        with pytest.raises(LedgerUnavailable):
            worker.submit("call.intent", TENANT, intent(worker.worker, "c_2"))
        with pytest.raises(LedgerUnavailable):
            worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=202))
        sequencer.start()
        await_that(lambda: ("c_1", 1) in outcomes(folder))
        assert worker.head().halted is None
        ((one,),) = outcomes(folder).values()
        assert one["result"]["http"] == 202
        worker.close()

    def test_an_end_waits_for_it_with_what_it_has(self, folder: Path, sequencer: Sequencer) -> None:
        """A worker that is told to stop while the sequencer starts again does not take the truth with it."""
        worker = remote(folder, patience_seconds=SECONDS)
        receipt = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        sequencer.kill()
        waiting = worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq, http=205))
        closing = threading.Thread(target=worker.close)
        closing.start()
        sequencer.start()
        done(waiting)
        closing.join()
        assert [body["result"]["http"] for body in records(folder, "call.outcome")] == [205]

    def test_it_is_said_within_the_patience(self, folder: Path) -> None:
        with pytest.raises(LedgerUnavailable, match="cannot be reached"):
            remote(folder, patience_seconds=0.2)


class TestTheControlSide:
    def test_opens_its_state_over_the_sequencer(self, folder: Path, sequencer: Sequencer) -> None:
        worker = remote(folder)
        receipt = done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        with State.open(folder, create=False, join=as_control) as state:
            act = state.record_act(Actor("uid", "0", "root"), "look", {})
            assert act.seq > receipt.seq
            with pytest.raises(LedgerError):
                done(state.ledger.submit("call.outcome", TENANT, outcome("c_1", receipt.seq)))
        # It went and came back, and the call goes on all the while.
        State.open(folder, create=False, join=as_control).close()
        done(worker.submit("call.outcome", TENANT, outcome("c_1", receipt.seq)))
        worker.close()
        assert sequencer.stop() == 0
        assert_verifies(folder)

    def test_saves_no_counters_that_did_not_see_the_workers_calls(self, folder: Path, sequencer: Sequencer) -> None:
        """The snapshot of a run without workers stays, so the next such run counts what workers did."""
        before = (folder / "exeat.sqlite", _snapshot_size(folder))
        State.open(folder, create=False, join=as_control).close()
        assert _snapshot_size(folder) == before[1]

    def test_of_another_state_is_refused(self, folder: Path, sequencer: Sequencer, tmp_path: Path) -> None:
        other = prepared(tmp_path / "o")
        with pytest.raises(StateInvalid, match="belongs to"):
            State.open(other, create=False, join=lambda _: remote(folder))


class TestTheProcess:
    def test_alone_writes(self, folder: Path, sequencer: Sequencer) -> None:
        with pytest.raises(StateInvalid):
            State.open(folder, create=False)
        second = subprocess.run(
            [sys.executable, "-m", "control.sequencing", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert second.returncode == 3
        assert "could not run" in second.stderr

    def test_is_reached_by_its_owner_alone(self, folder: Path, sequencer: Sequencer) -> None:
        assert stat.S_IMODE((folder / "ledger.sock").lstat().st_mode) == 0o600

    def test_survives_the_terminals_signals_and_ends_with_its_starter(self, folder: Path) -> None:
        alive, held = os.pipe()
        ready, told = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "control.sequencing", folder, "--ready-fd", str(told), "--lifeline-fd", str(alive)],
            pass_fds=(told, alive),
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        os.close(told)
        os.close(alive)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        worker = remote(folder)
        done(worker.submit("call.denied", TENANT, denied(worker.worker, "c_1")))
        worker.close()
        os.close(held)
        assert process.wait(SECONDS) == 0
        assert not (folder / "ledger.sock").exists()
        assert_verifies(folder)

    def test_hides_its_memory(self, folder: Path, sequencer: Sequencer) -> None:
        """A process that is not dumpable has its files in /proc owned by root."""
        assert sequencer.process is not None
        status = Path(f"/proc/{sequencer.process.pid}/environ")
        if os.geteuid() == 0:
            assert "Max core file size        0" in Path(f"/proc/{sequencer.process.pid}/limits").read_text()
        else:
            assert status.stat().st_uid == 0

    def test_leaves_a_ledger_that_one_process_opens_again(self, folder: Path, sequencer: Sequencer) -> None:
        """Back to one process: what was left open is closed then."""
        worker = remote(folder)
        done(worker.submit("call.intent", TENANT, intent(worker.worker, "c_1")))
        sequencer.kill()
        State.open(folder, create=False).close()
        ((one,),) = outcomes(folder).values()
        assert one["result"]["err"] == "recovered"
        worker.close()
        assert_verifies(folder)


def _snapshot_size(folder: Path) -> int:
    from control.stores.limits_replay import LimitsStore
    from control.stores.sqlite import Database

    database = Database.open(folder / "exeat.sqlite")
    snapshot = LimitsStore(database).load()
    database.close()
    assert snapshot is not None
    return snapshot.size


def test_both_ledgers_have_the_surface_that_the_state_needs() -> None:
    from control.state.ledger_port import LedgerPort

    wanted = {name for name in vars(LedgerPort) if not name.startswith("_")}
    assert wanted - {"directory", "origin"} <= set(vars(Ledger))
    assert wanted - {"directory"} <= set(vars(RemoteLedger))
