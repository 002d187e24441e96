"""kill -9 of the sequencer and of workers under load: what was acknowledged is there, and every call ends once."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledger import read_records
from tests.control.sequencing.house import ROOT, Sequencer, assert_verifies, await_that, outcomes, records

CALLER = Path(__file__).with_name("caller.py")


@dataclass
class Caller:
    """A worker's process, and what it told."""

    folder: Path
    label: str
    file: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        arguments = [sys.executable, str(CALLER), str(self.folder), self.label, str(self.file)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE)

    def lines(self, word: str) -> list[list[str]]:
        if not self.file.exists():
            return []
        return [line.split() for line in self.file.read_text().splitlines() if line.split(" ", 1)[0] == word]

    def await_work(self, more: int = 20) -> None:
        """It has gone on by so many acknowledged calls."""
        before = len(self.lines("acknowledged"))
        await_that(lambda: len(self.lines("acknowledged")) >= before + more or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.complaint()

    def complaint(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """It ends by itself, with nothing open."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.complaint()
        assert self.lines("done")


def assert_lived_through(folder: Path, caller: Caller) -> None:
    """Of a worker that was never killed: each sent call has the outcome that it really had, once; no other was sent."""
    found = outcomes(folder)
    intents = {body["call"]: body["seq"] for body in records(folder, "call.intent")}
    leaves = {record.seq: record.leaf.hex() for record in read_records(folder / "ledger")}
    assert caller.lines("failed") == []
    acknowledged = {call: (int(http), int(seq), leaf) for _, call, http, seq, leaf in caller.lines("acknowledged")}
    sent = {call: int(seq) for _, call, seq in caller.lines("sent")}
    assert acknowledged.keys() == sent.keys()
    for call, seq in sent.items():
        assert intents[call] == seq
        (one,) = found[call, 1]
        http, last, leaf = acknowledged[call]
        assert (one["result"]["status"], one["result"]["http"], one["seq"]) == ("confirmed", http, last)
        assert leaves[last] == leaf
    for _, call in caller.lines("denied"):
        for one in found.get((call, 1), []):
            assert (one["result"]["status"], one["result"]["sent"], one["cost"]["micro"]) == ("aborted", False, 0)


def assert_died(folder: Path, caller: Caller) -> None:
    """Of a worker that was killed: what was acknowledged is there; the rest is indeterminate, or what it had said."""
    found = outcomes(folder)
    sent = {call: int(seq) for _, call, seq in caller.lines("sent")}
    acknowledged = {call: int(http) for _, call, http, *_ in caller.lines("acknowledged")}
    assert acknowledged.keys() < sent.keys() or acknowledged.keys() == sent.keys()
    for call in sent:
        (one,) = found[call, 1]
        if call in acknowledged:
            assert one["result"]["http"] == acknowledged[call]
        else:
            assert one["result"]["status"] in ("indeterminate", "confirmed")


def live(folder: Path, sequencer: Sequencer, tmp_path: Path, kills: int, seed: int) -> None:
    """The sequencer is killed again and again under two workers; then one worker is."""
    chance = random.Random(seed)
    callers = [Caller(folder, f"w{number}", tmp_path / f"w{number}") for number in range(2)]
    try:
        for caller in callers:
            caller.await_work()
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.2))
            sequencer.kill()
            time.sleep(chance.uniform(0, 0.5))
            sequencer.start()
            for caller in callers:
                caller.await_work()
        doomed, survivor = callers
        doomed.kill()
        survivor.await_work()
        assert sequencer.stop() == 0
        sequencer.start()
        survivor.await_work()
        survivor.stop()
        # The dead worker is given its grace by the newest sequencer.
        workers = {body["env"]["worker"] for body in records(folder, "call.intent")}
        assert len(workers) == 2
        await_that(lambda: len(outcomes(folder)) == len(records(folder, "call.intent")))
        assert sequencer.stop() == 0
    finally:
        for caller in callers:
            if caller.process.poll() is None:
                caller.kill()
            assert caller.process.stderr is not None
            caller.process.stderr.close()
    assert_lived_through(folder, survivor)
    assert_died(folder, doomed)
    assert all(len(ends) == 1 for ends in outcomes(folder).values())
    assert_verifies(folder)


def test_a_sequencer_that_is_killed_loses_nothing_of_workers_that_live(
    folder: Path, sequencer: Sequencer, tmp_path: Path
) -> None:
    """No call of theirs becomes indeterminate, none is denied after it was sent, and no outcome is there twice."""
    live(folder, sequencer, tmp_path, kills=3, seed=20261125)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(10))
def test_a_sequencer_killed_many_times(folder: Path, sequencer: Sequencer, tmp_path: Path, seed: int) -> None:
    live(folder, sequencer, tmp_path, kills=30, seed=seed)
