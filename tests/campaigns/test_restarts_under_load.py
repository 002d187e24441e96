"""Restarts under load: every call that was let out ends whole or has its outcome written, and agents come back.

There is one process, so while it restarts nobody listens. How long that is, is printed and not judged: a restart
without a gap needs several workers.
"""

import os
import signal
import socket
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import Self

import pytest

from tests.campaigns.judges import (
    Book,
    every_arrival_has_its_own_intent,
    every_intent_is_closed_before_the_next_start_serves,
    what_agents_were_told_is_what_is_written,
)
from tests.campaigns.load import Told
from tests.campaigns.world import BUSY, CAPPED, campaign, what_only_the_state_knows

CALLS_A_SECOND = 100
CALL_SECONDS = 0.02
"""What a call of this load takes by itself: the origin lets every fourth wait 30 ms."""
CAP = 100_000


@dataclass
class Knocker:
    """Somebody who tries the door every few milliseconds and notes for how long it was shut."""

    address: tuple[str, int]
    gaps_seconds: list[float] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._knock, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _knock(self) -> None:
        shut_since: float | None = None
        while not self._stopping.wait(0.002):
            now = time.monotonic()
            try:
                socket.create_connection(self.address, 1).close()
            except OSError:
                shut_since = now if shut_since is None else shut_since
                continue
            if shut_since is not None:
                self.gaps_seconds.append(now - shut_since)
                shut_since = None


def run_campaign(restarts: int) -> str:
    """The whole of it; what was found, for people."""
    pause = (BUSY + CAPPED) / CALLS_A_SECOND - CALL_SECONDS
    with campaign(CAP, pause_seconds=pause) as town:
        door = town.product.door()
        began = time.monotonic()
        down = 0.0
        with Knocker(door) as knocker:
            for _ in range(restarts):
                call = town.long_call()
                town.wait_for_answers(CALLS_A_SECOND // 2)
                stopping = time.monotonic()
                assert town.product.stop(signal.SIGTERM) == 0
                assert call.whole(), "a stream in flight was not ended but cut"
                town.product.start()
                down += time.monotonic() - stopping
            town.wait_for_answers(CALLS_A_SECOND // 2)
        took = time.monotonic() - began - down
        town.comes_to_rest()
        product = town.product
        assert product.stop() == 0
        records = product.records()
        key, _ = what_only_the_state_knows(product)
        product.start()
    book = Book.of(records)
    assert every_intent_is_closed_before_the_next_start_serves(records) == 0, "recovery had to close an intent"
    matched = every_arrival_has_its_own_intent(town.witness, book, key)
    confirmed = what_agents_were_told_is_what_is_written(town.load.told, matched, book)
    assert len(knocker.gaps_seconds) == restarts
    gaps = sorted(knocker.gaps_seconds)
    return (
        f"{restarts} restarts at {len(town.load.told) / took:.0f} requests a second between them: "
        f"{len(book.intents)} intents, each with its outcome; {confirmed} answers 200, all confirmed; "
        f"{_cut(town.load.told)} requests met a connection that had just been closed; "
        f"no connection was taken for {statistics.median(gaps) * 1000:.0f} ms "
        f"(median; {gaps[0] * 1000:.0f} to {gaps[-1] * 1000:.0f})"
    )


def _cut(told: list[Told]) -> int:
    return sum(one.status is None for one in told)


def test_a_few_restarts_under_load_leave_no_call_without_its_outcome() -> None:
    print(run_campaign(restarts=2))


@pytest.mark.campaign
def test_twenty_restarts_under_load_leave_no_call_without_its_outcome() -> None:
    print(os.linesep + run_campaign(restarts=20))
