"""Several processes at the last unit of each kind of cap, and processes that die."""

import asyncio
import contextlib
import json
import pickle
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rules.claims import Claim, LeaseClaim, OnceClaim, RateClaim, Refused, Reserved, SpendClaim
from tests.control.stores.subjects import Shared, granted

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[4]
BURST = 256


class Worker:
    """Another process with a store of its own."""

    def __init__(self, shared: Shared, name: str, lease_seconds: float = 30) -> None:
        command = [sys.executable, "-m", "tests.control.stores.redis.worker"]
        self.process = subprocess.Popen(
            [*command, shared.server.url, name, str(lease_seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    async def hear(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, "the process ended"
        return json.loads(line)  # type: ignore[no-any-return]

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@contextlib.asynccontextmanager
async def workers(shared: Shared, *names: str, lease_seconds: float = 30) -> AsyncIterator[list[Worker]]:
    started = [Worker(shared, name, lease_seconds) for name in names]
    try:
        for worker in started:
            assert await worker.hear() == {"ready": "closed"}
        yield started
    finally:
        for worker in started:
            worker.close()


def claims_of_burst(kind: str, number: int, left: int) -> tuple[Claim, ...]:
    """A fresh cap of which `left` units are left."""
    key = ("acme", f"burst-{number}", kind)
    rate = RateClaim(key, 10_000_000_000, left, "so many at once")
    lease = LeaseClaim(key, left)
    spend = SpendClaim(key, "2026-11-20", left * 1_000_000, 1_000_000, "USD", 4_000_000_000)
    once = OnceClaim(key, "digest")
    kinds = {"rate": (rate,), "lease": (lease,), "spend": (spend,), "once": (once,), "all": (rate, lease, spend)}
    return kinds[kind]


async def bursts(shared: Shared, count: int) -> dict[str, tuple[int, int]]:
    """By kind of cap: how many units were given out above it, and how many below."""
    found: dict[str, tuple[int, int]] = {}
    async with workers(shared, "w1", "w2") as pair:
        for number in range(count):
            kind = ("rate", "lease", "spend", "once", "all")[number % 5]
            left = 1 if kind == "once" or number % 2 else 100
            claims = claims_of_burst(kind, number, left)
            for worker in pair:
                worker.tell(f"burst {BURST // 2} {pickle.dumps(claims).hex()}")
            given = sum([int(str((await worker.hear())["granted"])) for worker in pair])
            over, under = found.get(kind, (0, 0))
            found[kind] = over + max(0, given - left), under + max(0, left - given)
            for worker in pair:
                worker.tell(f"end {'settle' if number % 3 else 'release'}")
            for worker in pair:
                assert await worker.hear() == {"settled": True}
    return found


NONE = dict.fromkeys(("rate", "lease", "spend", "once", "all"), (0, 0))


async def test_bursts_of_two_processes_at_the_last_units(shared: Shared) -> None:
    assert await bursts(shared, 30) == NONE
    assert await shared.held() == 0


@pytest.mark.campaign
async def test_a_thousand_bursts(shared: Shared) -> None:
    assert await bursts(shared, 1000) == NONE
    assert await shared.held() == 0


async def test_a_killed_process_leaks_nothing(shared: Shared) -> None:
    """Its slots are free after the time to live, its amounts are spent at their maximum and listed."""
    lease = LeaseClaim(("acme", "agent", "concurrency"), 20)
    spend = SpendClaim(("acme", "agent", "USD", "day"), "2026-11-20", 100, 2, "USD", 4_000_000_000)
    async with workers(shared, "w-dies", lease_seconds=1) as (worker,):
        worker.tell(f"burst 20 {pickle.dumps((lease, spend)).hex()}")
        assert await worker.hear() == {"granted": 20}
        assert isinstance(await shared.store.reserve("c_1", (lease,)), Refused)
        await asyncio.sleep(1.5)  # it lives, so it keeps them beyond a time to live
        assert {holder.worker for holder in await shared.store.holders("acme")} == {"w-dies"}
        assert len(await shared.store.holders("acme")) == 20
        worker.kill()
        async with asyncio.timeout(20):
            while isinstance(answer := await shared.store.reserve("c_1", (lease,)), Refused):
                await asyncio.sleep(0.05)
        shared.store.release(granted(answer))
        await shared.settled()
        granted(await shared.store.reserve("c_2", (lease,) * 20))
    assert await shared.books() == {"acme/agent/USD/day": ("2026-11-20", 40, 0)}
    assert len(await shared.store.corrections("acme")) == 20


async def abort(shared: Shared, count: int) -> None:
    """Calls that end at any instant, in groups: cancelled before, while or after they were granted."""
    chance = random.Random(5)
    lease = LeaseClaim(("acme", "agent", "concurrency"), 64)
    spend = SpendClaim(("acme", "agent", "USD", "day"), "2026-11-20", 10**12, 1, "USD", 4_000_000_000)

    async def call(number: int) -> None:
        answer = await shared.store.reserve(f"c_{number}", (lease, spend))
        if isinstance(answer, Reserved):
            try:
                await asyncio.sleep(chance.random() * 0.004)
            finally:
                shared.store.release(answer)

    for start in range(0, count, 100):
        tasks = [asyncio.create_task(call(start + one)) for one in range(100)]
        for task in chance.sample(tasks, 100):
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.001)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await shared.settled()
    assert shared.store.held == 0
    assert await shared.held() == 0
    assert (await shared.books()).get("acme/agent/USD/day", ("2026-11-20", 0, 0)) == ("2026-11-20", 0, 0)
    granted(await shared.store.reserve("c_last", (lease,) * 64))


async def test_calls_that_are_aborted_leak_nothing(shared: Shared) -> None:
    await abort(shared, 500)


@pytest.mark.campaign
async def test_ten_thousand_aborted_calls_leak_nothing(shared: Shared) -> None:
    await abort(shared, 10_000)
