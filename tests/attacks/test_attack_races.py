"""Bursts at the last unit of a cap, and calls that race their own revocation."""

import asyncio
import contextlib
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from tests.worlds.origin import Peer, Request, reply
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio

GONE = (OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError, ValueError)
"""What an agent sees that misbehaves, or whose wire was cut."""
PRICE = 250_000
"""Micro-units, of the town's connection."""


async def test_a_burst_at_the_last_unit_of_a_cap(tmp_path: Path) -> None:
    """USD 5 at 0.25 are twenty calls, whoever asks, however many connections, pipelined, and when agents leave."""
    at_once: list[int] = [0, 0]

    async def script(_: Request, peer: Peer) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0.01)
        at_once[0] -= 1
        await peer.send(reply())

    async def agent(here: Town, number: int) -> None:
        with contextlib.suppress(*GONE):
            async with here.agent() as one:
                for _ in range(3):
                    await one.send("GET", "/things/1")
                if number % 3:
                    for _ in range(3):
                        await one.read_answer("GET")

    limits = "concurrency: 3, spend: [{meter: price, max: 5 USD, per: day}]"
    async with town(tmp_path, script, limits=limits) as here:
        for _ in range(8):
            await asyncio.gather(*(agent(here, number) for number in range(20)))
        outcomes = await here.gate.records("call.outcome")
        (budget,) = here.gate.reservations.budgets()
        assert budget.spent_micros <= 20 * PRICE
        assert budget.spent_micros == sum(record.body["cost"]["micro"] for record in outcomes)
        assert 15 <= len(here.origin.requests) <= 20
        assert at_once[1] <= 3


async def test_calls_that_race_their_revocation(tmp_path: Path) -> None:
    """Once a cut has been answered, no request of an older credential reaches the origin, ever."""
    chance = random.Random(3)
    target, actor = Target(TargetKind.ACCOUNT, "acme", "agent"), Actor("uid", "0", "root")
    epochs: list[int] = []
    over = asyncio.Event()

    async def script(request: Request, peer: Peer) -> None:
        epochs.append(int(request.header("x-epoch") or 0))
        await peer.send(reply())

    async def agent(here: Town) -> None:
        while not over.is_set():
            with contextlib.suppress(*GONE):
                epoch = here.gate.world.revocations.epoch
                async with here.agent() as one:
                    while not over.is_set():
                        answer = await one.request("GET", "/things/1", headers={"X-Epoch": str(epoch)})
                        if answer.status != 200:
                            break

    async with town(tmp_path, script) as here:
        world = here.gate.world
        agents = [asyncio.create_task(agent(here)) for _ in range(4)]
        for _ in range(80):
            await asyncio.sleep(chance.random() * 0.05)
            world.revocations = world.revocations.revoke(target, datetime.now(UTC), "race", actor)
            await asyncio.to_thread(here.gate.gate.cut, target)
            await asyncio.sleep(0.01)  # what had left before the cut is read by the origin
            epochs.clear()
            await asyncio.sleep(0.02)
            assert [epoch for epoch in epochs if epoch < world.revocations.epoch] == []
        over.set()
        await asyncio.gather(*agents)
        assert here.gate.reservations.held == 0
        assert len(await here.gate.records("call.outcome")) == len(await here.gate.records("call.intent")) > 50
