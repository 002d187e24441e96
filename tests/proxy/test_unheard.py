"""A gate that does not hear what is revoked serves nobody; one whose place is taken fails no request."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.worlds.origin import Peer, Request
from tests.worlds.towns import town

pytestmark = pytest.mark.anyio


async def test_who_does_not_hear_lets_nothing_out(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/1")).status == 200
        here.gate.world.heard_until = time.monotonic() - 0.001
        answer = await agent.request("GET", "/things/2")
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "control_unavailable")
        assert len(here.origin.requests) == 1


async def test_who_hears_again_serves_again(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        here.gate.world.heard_until = time.monotonic() - 0.001
        async with here.agent() as agent:
            assert (await agent.request("GET", "/things/1")).status == 503
        here.gate.world.heard_until = time.monotonic() + 60
        async with here.agent() as agent:
            assert (await agent.request("GET", "/things/1")).status == 200


async def test_what_is_in_flight_when_nothing_is_heard_any_more_is_cut(tmp_path: Path) -> None:
    async def stream(request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(600):
            await peer.send(b"9\r\ndata: x\n\n\r\n")
            await asyncio.sleep(0.02)

    async with town(tmp_path, stream) as here, here.agent() as agent:
        agent.writer.write(b"GET /things/1 HTTP/1.1\r\nHost: saas.test\r\n\r\n")
        await agent.reader.readuntil(b"data: x")
        here.gate.world.heard_until = time.monotonic()
        async with asyncio.timeout(10):
            while True:
                try:
                    if not await agent.reader.read(65536):
                        break
                except ConnectionError:
                    break
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "aborted"
        assert outcome.body["result"]["code"] == "control_unavailable"


async def test_who_retires_answers_everybody_once_more(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as one, here.agent() as two:
        for agent in (one, two):
            assert (await agent.request("GET", "/things/1")).status == 200
        retiring = asyncio.create_task(here.gate.gate.retire(20))
        await asyncio.sleep(0.1)
        for agent in (one, two):
            answer = await agent.request("GET", "/things/2")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with asyncio.timeout(10):
            await retiring
