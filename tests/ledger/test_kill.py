"""kill -9 at any instant: whatever was acknowledged is there, and the log goes on."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger import Trust, read_records, verify

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("killed_writer.py")


def _cycle(base: Path, number: int, seconds: float) -> tuple[dict[int, str], str]:
    """One life of a writer; the receipts it told, and its complaint if it died by itself."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(base), str(number)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(seconds)
    process.kill()
    told, complaint = process.communicate()
    lines = told.decode().split("\n")[:-1]
    return {int(seq): leaf for seq, leaf in (line.split() for line in lines)}, complaint.decode()


def _live(base: Path, cycles: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[int, str] = {}
    for number in range(cycles):
        # Importing takes some 0.2 s; the range covers recovery, the first groups and steady writing.
        told, complaint = _cycle(base, number, chance.uniform(0.2, 1.2))
        assert complaint == ""
        assert not told.keys() & acknowledged.keys()
        acknowledged.update(told)
    _, complaint = _cycle(base, cycles, 3.0)
    assert complaint == ""
    assert acknowledged
    trust = Trust.parse((base / "trust").read_text())
    report = verify(base / "ledger", trust)
    assert {finding.name for finding in report.findings} <= {"tail_torn", "recovery_unfinished"}
    found = {record.seq: record.leaf.hex() for record in read_records(base / "ledger")}
    missing = {seq for seq, leaf in acknowledged.items() if found.get(seq) != leaf}
    assert missing == set()
    assert report.starts >= 2
    assert len(report.recoveries) >= report.starts - 1


def test_a_writer_killed_at_random_instants_loses_nothing_it_acknowledged(tmp_path):
    """Also killed while it recovers or creates. The verifier accounts for every byte that was torn."""
    _live(tmp_path, cycles=15, seed=20261120)


@pytest.mark.campaign
def test_a_writer_killed_a_thousand_times(tmp_path):
    for seed in range(20):
        base = tmp_path / str(seed)
        base.mkdir()
        _live(base, cycles=50, seed=seed)
