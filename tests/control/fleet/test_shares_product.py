"""A share of limits while the shared counters are away, on real processes: never beyond a cap, whatever dies."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.worlds.fleet import Answer, Fleet, fleet

CAP = 40
ACCOUNTS = {
    "capped": f"{{spend: [{{meter: price, max: {CAP} USD, per: day}}]}}",
    "narrow": "{concurrency: 3}",
}


@pytest.fixture
def here() -> Iterator[Fleet]:
    with fleet(ACCOUNTS, whole="{when_unavailable: {local: 50%}}") as it:
        yield it
        it.leave()


def at_once(here: Fleet, account: str, calls: int) -> Counter[str | None]:
    """How so many calls at the same instant were answered, by code; they meet in all workers."""
    first = here.agent(account)
    agents = [here.twin(first) for _ in range(calls)]
    together = threading.Barrier(calls)
    answers: list[Answer] = []

    def one(number: int) -> None:
        together.wait()
        answers.append(agents[number].get("/v1/x"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(answer.code for answer in answers)


def granted(here: Fleet, account: str = "capped") -> None:
    """One call is let out, as soon as one is."""
    agent = here.agent(account)
    here.wait(lambda: agent.get("/v1/x").code is None, 40)


def test_half_of_what_is_left_is_granted_once_and_the_cap_holds_across_every_switch(here: Fleet) -> None:
    assert at_once(here, "capped", 8) == {None: 8}
    os.kill(here.server.pid, signal.SIGSTOP)
    here.wait(lambda: at_once(here, "capped", 1) == {"limits_unavailable": 1})
    granted(here)  # 9; half of the 32 that were left is 16
    assert here.product.cli("status").ok().out.count("50% of acme's limits is granted by control") == 1
    assert at_once(here, "capped", 24) == {None: 15, "spend_cap_reached": 9}

    # A control that dies takes what it had counted with it; the next one counts the ledger.
    os.kill(here.pid_of("control.fleet.control"), signal.SIGKILL)
    here.wait(here.whole)
    granted(here)  # 25; half of the 16 that were left is 8
    assert at_once(here, "capped", 16) == {None: 7, "spend_cap_reached": 9}

    # It was only out of reach, and comes back with what it had counted before somebody granted without it.
    os.kill(here.server.pid, signal.SIGCONT)
    granted(here)  # 33
    here.wait(lambda: "granted by control" not in here.product.cli("status").ok().out)
    assert at_once(here, "capped", 16) == {None: 7, "spend_cap_reached": 9}
    assert at_once(here, "capped", 4) == {"spend_cap_reached": 4}

    outcomes = here.product.records("call.outcome")
    assert sum(one["cost"]["micro"] for one in outcomes) == CAP * 1_000_000
    acts = [act["detail"] for act in here.product.records("operator.act") if act["act"] == "limits.local"]
    assert acts == [{"tenant": "acme", "share": "50%"}] * 2
    here.verified()


def test_slots_are_counted_together_with_those_of_before_and_given_back(here: Fleet) -> None:
    """Half of three is one. A stream from before has it; a worker that is lost gives it back."""
    agent = here.agent("narrow")
    before = agent.wire()
    before.request("GET", "/stream")
    assert before.getresponse().read(9) == b"data: x\n\n"
    here.server.kill()
    other = here.twin(agent)
    here.wait(lambda: other.get("/v1/x").code != "limits_unavailable")
    assert other.get("/v1/x").code == "concurrency_reached"
    before.close()
    here.wait(lambda: other.get("/v1/x").code is None)
    for worker in here.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    here.wait(here.whole)
    granted(here, "narrow")
    here.verified()
