"""Several workers as one gate: real processes, a real server of counters, and what becomes of them when killed."""

import http.client
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worlds.fleet import Fleet, Load, fleet

CAP = 40
ACCOUNTS = {
    "free": "{}",
    "capped": f"{{spend: [{{meter: price, max: {CAP} USD, per: day}}]}}",
    "spent": f"{{spend: [{{meter: price, max: {CAP} USD, per: day}}]}}",
    "counted": f"{{spend: [{{meter: price, max: {CAP} USD, per: day}}]}}",
    "narrow": "{concurrency: 3}",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Fleet]:
    with fleet(ACCOUNTS) as it:
        yield it


@pytest.fixture
def here(running: Fleet) -> Iterator[Fleet]:
    yield running
    running.leave()


def test_all_workers_serve_at_one_door_and_write_one_ledger(here: Fleet) -> None:
    first = here.agent("free")
    for _ in range(40):
        agent = here.twin(first)
        assert agent.get("/v1/x").status == 200
        agent.close()
    intents = here.product.records("call.intent")
    assert len(Counter(record["env"]["worker"] for record in intents)) >= 2
    assert len({record["call"] for record in intents}) == len(intents)
    here.verified()


def test_a_cap_is_one_for_all_workers(here: Fleet) -> None:
    first = here.agent("capped")
    agents = [first, *(here.twin(first) for _ in range(15))]
    with Load(agents) as load:
        here.wait(lambda: sum(answer.status == 403 for answer in load.answers) > 32)
    assert not load.broken
    assert Counter(answer.code for answer in load.answers).keys() == {None, "spend_cap_reached"}
    assert sum(answer.status == 200 for answer in load.answers) == CAP


def test_a_revocation_cuts_what_is_in_flight_in_every_worker(here: Fleet) -> None:
    first = here.agent("narrow")
    cut: list[float] = []

    def stream() -> None:
        agent = here.twin(first)
        wire = agent.wire()
        wire.request("GET", "/stream")
        answer = wire.getresponse()
        try:
            while answer.read1(100):
                pass
        except (OSError, http.client.HTTPException):
            pass
        cut.append(time.monotonic())

    threads = [threading.Thread(target=stream) for _ in range(3)]
    for thread in threads:
        thread.start()
    here.wait(lambda: len(here.product.status()["in_flight"]) == 3)
    assert here.twin(first).get("/v1/x").code == "concurrency_reached"
    done = here.product.cli("revoke", "account", "narrow", "--reason", "INC-1", "--json").ok().json
    assert (done["nodes"], done["nodes_answered"], done["cut"]) == (2, 2, 3)
    for thread in threads:
        thread.join(10)
    assert len(cut) == 3
    assert here.twin(first).get("/v1/x").code == "credential_revoked"
    here.product.cli("restore", "account", "narrow", "--reason", "closed").ok()
    again = here.agent("narrow")
    assert again.get("/v1/x").status == 200, "no lease was left behind"


def test_workers_are_replaced_without_a_failed_request(here: Fleet) -> None:
    before = {worker["worker"] for worker in here.workers()}
    first = here.agent("free")
    with Load([here.twin(first) for _ in range(6)]) as load:
        done = here.product.cli("workers", "replace", "--json").ok().json
        time.sleep(0.5)
    assert not before & {worker["worker"] for worker in done["workers"] if worker["serves"]} or len(done["workers"]) > 2
    here.wait(lambda: not before & {worker["worker"] for worker in here.workers()})
    assert not load.broken
    assert Counter(answer.code for answer in load.answers).keys() == {None}
    assert len(load.answers) > 50
    here.wait(here.whole)
    assert here.product.cli("workers", "show").ok().out.startswith("2 of 2 workers serve\n")
    acts = [record["act"] for record in here.product.records("operator.act")]
    assert "workers.replace" in acts


def test_everything_but_the_supervisor_is_replaced_without_a_failed_request(here: Fleet) -> None:
    modules = ("control.sequencing", "control.fleet.control")
    before = {here.pid_of(module) for module in modules} | {worker["pid"] for worker in here.workers()}
    first = here.agent("free")
    with Load([here.twin(first) for _ in range(6)]) as load:
        done = here.product.cli("workers", "replace", "--all").ok()
        time.sleep(0.5)
    assert done.out == "2 workers replaced; before them the sequencer and control\n"
    assert not load.broken
    assert Counter(answer.code for answer in load.answers).keys() == {None}
    assert len(load.answers) > 50
    here.wait(here.whole)
    here.wait(lambda: not before & {worker["pid"] for worker in here.workers()})
    assert not before & {here.pid_of(module) for module in modules}
    (act,) = [one for one in here.product.records("operator.act") if one["detail"].get("also")]
    assert act["detail"] == {"workers": "2", "also": "sequencer, control"}
    assert here.product.cli("workers", "show").ok().out.startswith("2 of 2 workers serve\n")


@pytest.mark.parametrize("what", ["worker", "sequencer", "control", "counters"])
def test_what_is_killed_comes_back_and_nothing_is_reset(here: Fleet, what: str) -> None:
    exhaust(here)
    first = here.agent("free")
    agents = [here.twin(first) for _ in range(4)]
    with Load(agents) as load:
        here.wait(lambda: len(load.answers) > 20)
        if what == "worker":
            os.kill(here.workers()[0]["pid"], signal.SIGKILL)
        elif what == "sequencer":
            os.kill(here.pid_of("control.sequencing"), signal.SIGKILL)
        elif what == "control":
            os.kill(here.pid_of("control.fleet.control"), signal.SIGKILL)
        else:
            here.server.kill()
            here.server.start()
        time.sleep(1)
        here.wait(here.whole)
        seen = len(load.answers)
        here.wait(lambda: sum(answer.status == 200 for answer in load.answers[seen:]) > 20)
    refused = {answer.code for answer in load.answers if answer.status != 200}
    assert refused <= {"ledger_unavailable", "limits_unavailable", "control_unavailable"}
    spent = here.agent("spent")
    here.wait(lambda: spent.get("/v1/x").code != "limits_unavailable")
    assert spent.get("/v1/x").code == "spend_cap_reached", "what was spent is spent"
    here.wait(lambda: len(here.product.status()["in_flight"]) == 0)


def test_an_operator_waits_for_a_control_that_is_being_started_again(here: Fleet) -> None:
    """And takes nothing from it: neither the state nor the ledger is somebody else's meanwhile."""
    os.kill(here.pid_of("control.fleet.control"), signal.SIGKILL)
    shown = here.product.cli("limits", "show", "--account", "spent", "--json").ok().json
    assert [(one["per"], one["max"]) for one in shown["budgets"]] == [("day", CAP * 1_000_000)]
    assert here.product.cli("spend", "--json").code == 0
    here.wait(here.whole)


def test_every_call_has_one_end(here: Fleet) -> None:
    here.wait(lambda: not here.product.status()["in_flight"])
    time.sleep(4)  # a killed worker's calls are closed after its grace
    intents = {record["call"]: record for record in here.product.records("call.intent")}
    ends = Counter(record["call"] for record in here.product.records("call.outcome"))
    assert set(ends) == set(intents)
    assert set(ends.values()) == {1}
    here.verified()


def test_counters_that_cannot_be_reached_deny_and_say_so(here: Fleet) -> None:
    """Once for all that noticed: control and both workers."""
    agent = here.agent("counted")
    assert agent.get("/v1/x").status == 200
    here.wait(lambda: not _open_episodes(here), 100)  # of other tests
    before = len(_episodes(here))
    here.server.kill()
    try:
        here.wait(lambda: agent.get("/v1/x").code == "limits_unavailable")
        here.wait(lambda: _degraded(here)["limits"] >= 3)
        assert here.product.status()["limits"] is None
        assert "exeat_limits_degraded 1" in _metrics(here)
        assert 'exeat_degraded{control="limits"} 1' in _metrics(here)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{here.product.health()}/readyz", timeout=10)
        assert str(here.server.port) in json.loads(refused.value.read())["degraded"]["limits"]
        here.wait(lambda: len(_episodes(here)) == before + 1)
    finally:
        here.server.start()
    here.wait(lambda: agent.get("/v1/x").status == 200)
    here.wait(lambda: not _open_episodes(here), 100)
    begin, end = _episodes(here)[before:]
    assert (begin["control"], begin["mode"], begin["episode"]) == ("limits", "closed", end["episode"])
    assert {name.partition(".")[0] for name in end["nodes"].split(", ")} == {"control", "w0", "w1"}
    assert 'exeat_degraded{control="limits"} 0' in _metrics(here)
    here.verified()


def test_without_its_supervisor_everything_ends_and_the_next_start_is_in_order(here: Fleet) -> None:
    exhaust(here)
    agent = here.agent("free")
    assert agent.get("/v1/x").status == 200
    others = here.processes()
    assert len(others) == 4
    process = here.product.process
    assert process is not None
    process.kill()
    process.wait()
    here.wait(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in others))
    here.product.start()
    here.wait(here.whole)
    assert here.agent("free").get("/v1/x").status == 200
    assert here.agent("spent").get("/v1/x").code == "spend_cap_reached"
    here.verified()


def exhaust(here: Fleet) -> None:
    """The account's day is spent, whichever tests came before."""
    agent = here.agent("spent")
    here.wait(lambda: agent.get("/v1/x").code == "spend_cap_reached")


def _degraded(here: Fleet) -> dict[str, int]:
    """How many say so, by control."""
    return Counter({one["control"]: len(one["nodes"]) for one in here.product.status()["degraded"]})


def _episodes(here: Fleet) -> list[dict[str, str]]:
    acts = here.product.records("operator.act")
    return [act["detail"] for act in acts if act["act"] in ("degraded.begin", "degraded.end")]


def _open_episodes(here: Fleet) -> set[str]:
    """Those without an end; what an earlier control began ended with it."""
    found: set[str] = set()
    for act in here.product.records("operator.act"):
        if act["act"] == "state.open":
            found.clear()
        elif act["act"] == "degraded.begin":
            found.add(act["detail"]["episode"])
        elif act["act"] == "degraded.end":
            found.discard(act["detail"]["episode"])
    return found


def _metrics(here: Fleet) -> str:
    with urllib.request.urlopen(f"{here.product.health()}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
