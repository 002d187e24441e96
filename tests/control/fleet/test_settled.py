"""Counters that were lost are loaded from the ledger only when it has every call that was let out before."""

import os
import signal
import threading
import time
from collections import Counter

from control.fleet.shared_limits import SETTLED_SECONDS
from proxy.config import Timeouts
from tests.worlds.fleet import Answer, fleet

CAP = 20


def test_they_are_loaded_only_after_the_pipelines_own_timeouts() -> None:
    timeouts = Timeouts()
    assert timeouts.reserve + timeouts.commit < SETTLED_SECONDS


def test_calls_that_wait_for_the_ledger_while_counters_are_lost_are_counted() -> None:
    """The sequencer hangs for nearly as long as a call waits for it, and the server forgets everything meanwhile."""
    with fleet({"capped": f"{{spend: [{{meter: price, max: {CAP} USD, per: day}}]}}"}) as here:
        first = here.agent("capped")
        agents = [here.twin(first) for _ in range(8)]
        assert {agent.get("/v1/x").code for agent in agents} == {None}
        sequencer = here.pid_of("control.sequencing")
        os.kill(sequencer, signal.SIGSTOP)
        began = time.monotonic()
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda it=it: answers.append(it.get("/v1/x"))) for it in agents]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        here.server.kill()
        here.server.start()
        time.sleep(began + 4.8 - time.monotonic())
        os.kill(sequencer, signal.SIGCONT)
        for thread in threads:
            thread.join()
        here.wait(lambda: first.get("/v1/x").code in (None, "spend_cap_reached"))
        for _ in range(CAP):
            first.get("/v1/x")
        spent = sum(outcome["cost"]["micro"] for outcome in here.product.records("call.outcome"))
        codes = Counter(answer.code for answer in answers)
        assert codes.keys() <= {None, "ledger_unavailable"}
        assert codes[None] > 0, "else nothing was tried"
        assert spent == CAP * 1_000_000
        here.leave()
