"""Processes are replaced while something else happens to them."""

import http.client
import os
import signal
import time
from collections import Counter

import pytest

from tests.worlds.fleet import fleet


def test_calls_of_replaced_workers_are_drained_and_recorded_like_all_others() -> None:
    with fleet({"free": "{concurrency: 100}"}) as here:
        agent = here.agent("free")
        wires = [here.twin(agent).wire() for _ in range(4)]
        streams: list[http.client.HTTPResponse] = []
        for wire in wires:
            wire.request("GET", "/stream")
            streams.append(wire.getresponse())
            assert streams[-1].read(9) == b"data: x\n\n"
        before = {worker["pid"] for worker in here.workers()}
        here.product.cli("workers", "replace").ok()
        here.wait(lambda: sum(one["serves"] and one["pid"] not in before for one in here.workers()) == 2)
        process = here.product.process
        assert process is not None
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
        assert 5 <= time.monotonic() - began < 15, "--drain is 5 s"
        assert here.product.log.read_text().endswith("stopped: 0 calls finished, 4 were cut\n")
        intents = {record["call"] for record in here.product.records("call.intent")}
        ends = Counter(record["call"] for record in here.product.records("call.outcome"))
        assert ends == dict.fromkeys(intents, 1)
        assert len(intents) == 4
        for stream in streams:
            stream.close()
        here.leave()


@pytest.mark.campaign
def test_a_worker_that_waits_to_be_started_again_is_replaced_by_one() -> None:
    """Its own restart, seconds away because it keeps dying, is none any more."""
    with fleet({"free": "{concurrency: 100}"}) as here:
        for pause in (0.05, 0.2, 0.5, 1.0, 2.0, 5.0):
            here.wait(here.whole)
            (pid,) = [worker["pid"] for worker in here.workers() if worker["slot"] == 0]
            os.kill(pid, signal.SIGKILL)
            here.wait(lambda last=pause: f"started again in {last:g} s" in here.product.log.read_text())
        here.product.cli("workers", "replace").ok()
        here.wait(lambda: here.product.log.read_text().count("takes the place of") == 2)
        time.sleep(6)
        here.wait(here.whole)
        assert sorted(worker["slot"] for worker in here.workers()) == [0, 1]
        runs = [one for one in here.processes().values() if one == b"control.fleet.worker"]
        assert len(runs) == 2
