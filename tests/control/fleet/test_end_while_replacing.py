"""The whole installation is told to end while workers that were replaced still have calls in flight."""

import http.client
import os
import signal
import time
from collections import Counter

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
