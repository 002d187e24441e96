"""The benchmark measures what it says: every reply is checked, a wrong one ends the run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import measure, wire
from benchmarks.load import LoadFailed
from benchmarks.machine import describe
from benchmarks.measure import Memory, Reading
from benchmarks.peers import PEERS
from benchmarks.peers.direct import Direct
from benchmarks.peers.peer import Running
from benchmarks.place import Place
from benchmarks.report import Found, noise, tables, write_json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    import os

    cores = os.sched_getaffinity(0)
    made = Place(tmp_path_factory.mktemp("bench") / "run")
    try:
        yield made
    finally:
        made.close()
        os.sched_setaffinity(0, cores)


@pytest.fixture
def direct(place: Place) -> Running:
    return Direct().start(place)


def test_the_wire_has_the_sizes_that_the_table_claims() -> None:
    assert (len(wire.REQUEST_BODY), len(wire.REPLY_BODY)) == (300, 446)
    json.loads(wire.REQUEST_BODY)
    json.loads(wire.REPLY_BODY)


def test_a_reading_counts_calls_over_open_connections_and_over_new_ones(direct: Running) -> None:
    kept = measure.calls(direct, 4, 0.1)
    opened = measure.tunnels(direct, 0.1)
    assert kept.rate > 0
    assert opened.rate > 0
    assert kept.p50_ms <= kept.p99_ms


def test_a_reply_other_than_the_expected_one_ends_the_run(direct: Running) -> None:
    """The origin answers 401 without the secret: a proxy that drops it is not measured as a fast one."""
    without_secret = Running(direct.child, replace(direct.target, request_headers=b""))
    with pytest.raises(LoadFailed, match="401"):
        measure.calls(without_secret, 1, 0.1)


def test_an_issuer_that_the_client_does_not_know_ends_the_run(direct: Running, tmp_path: Path) -> None:
    from benchmarks.place import Authority

    other = tmp_path / "other.pem"
    other.write_bytes(Authority.create("someone else").pem())
    with pytest.raises(OSError, match="certificate verify failed"):
        measure.calls(Running(direct.child, replace(direct.target, ca_file=str(other))), 1, 0.1)


def test_the_report_leads_with_ratios_to_mitmdump(tmp_path: Path) -> None:
    slow = Found(
        "mitmdump", "base", "1", {"c=16": [Reading(100, 1, 2, 9), Reading(300, 1, 2, 12), Reading(200, 1, 2, 13)]}
    )
    fast = Found("exeat", "us", "1", {"c=16": [Reading(1000, 1, 2, 3)]}, Memory(2**20, 1024))
    lines = tables([slow, fast]).splitlines()
    assert "| 5.0 | 3 | 4.0 |" in " ".join(next(line for line in lines if line.startswith("| us")).split())
    assert "mitmdump, c=16" in noise([slow, fast])
    kept = tmp_path / "kept.json"
    write_json(kept, describe(tmp_path, 2), {"rounds": 3}, [slow, fast])
    assert [len(peer["readings"]["c=16"]) for peer in json.loads(kept.read_text())["peers"]] == [3, 1]


def test_every_peer_is_listed_once() -> None:
    files = {path.stem for path in Path(measure.__file__).parent.joinpath("peers").glob("*.py")} - {"__init__", "peer"}
    assert {type(peer).__module__.rpartition(".")[2] for peer in PEERS} == files
    assert len({peer.name for peer in PEERS}) == len(PEERS)
