"""Disconnects at every instant, bursts at the last unit of a cap, calls that race their own revocation."""

import asyncio
import contextlib
import logging
import random
from pathlib import Path

import pytest

from tests.worlds.origin import Peer, Request, reply
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio

GONE = (OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError, ValueError)
"""What an agent sees that misbehaves, or whose wire was cut."""
PRICE = 250_000
"""Micro-units, of the town's connection."""


async def test_disconnects_at_every_instant_leak_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hostile on both sides: afterwards no lease, no budget, no connection is held, and the books are closed."""
    chance = random.Random(1)
    unhandled: list[object] = []
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

    async def script(_: Request, peer: Peer) -> None:
        match chance.randrange(8):
            case 0:
                peer.abort()
            case 1:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
                await asyncio.sleep(chance.random() * 0.01)
                await peer.send(b"x" * 50_000)
            case 2:
                await peer.send(chunked)
                await asyncio.sleep(chance.random() * 0.01)
                await peer.send(b"0\r\n\r\n")
            case 3:
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
                peer.close()
            case 4:
                await peer.send(b"garbage\r\n\r\n")
            case 5:
                await peer.send(reply() + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
            case _:
                await asyncio.sleep(chance.random() * 0.01)
                await peer.send(reply())

    async def agent(here: Town) -> None:
        for _ in range(25):
            one = here.agent()
            with contextlib.suppress(*GONE):
                await one.connect()
                await one.start_tls()
                method = chance.choice(["GET", "POST", "PUT", "HEAD"])
                match chance.randrange(5):
                    case 0:
                        one.writer.write(b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 1000\r\n\r\nx")
                        await asyncio.sleep(chance.random() * 0.005)
                    case 1:
                        await one.send(method, "/things/1")
                        await asyncio.sleep(chance.random() * chance.choice([0.001, 0.005, 0.02]))
                    case 2:
                        await one.send("GET", "/things/1")
                        one.writer.write(b"GET /things/2 HTTP/1.1\r\nHost: saas.test\r\n\r\n" * 3)
                        await asyncio.wait_for(one.read_answer("GET"), 3)
                    case 3:
                        await one.send(method, "/things/1")
                        await asyncio.wait_for(one.read_head(), 3)
                    case _:
                        await asyncio.wait_for(one.request("POST", "/things/1", b"x" * 5000), 3)
            one.writer.transport.abort()

    limits = "concurrency: 4, spend: [{meter: price, max: 100000 USD, per: day}]"
    async with town(tmp_path, script, limits=limits) as here:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        await asyncio.gather(*(agent(here) for _ in range(8)))
        intents = await here.gate.records("call.intent")
        while len(outcomes := await here.gate.records("call.outcome")) < len(intents):
            await asyncio.sleep(0.05)
            intents = await here.gate.records("call.intent")
        assert {record.seq for record in intents} == {record.body["intent"] for record in outcomes}
        assert len(here.origin.requests) <= sum(record.body["result"]["sent"] for record in outcomes)
        assert here.gate.reservations.held == 0
        (budget,) = here.gate.reservations.budgets()
        assert budget.reserved_micros == 0
        assert budget.spent_micros == sum((record.body["cost"] or {"micro": 0})["micro"] for record in outcomes)
        async with here.agent() as last:  # the concurrency of 4 is free again
            await asyncio.wait_for(last.send("GET", "/things/9"), 3)
        assert unhandled == []
        assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR] == []
