"""Calls of a suspended account are refused, say why and how that ends, and go on with the same credential after it."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.actor import SYSTEM
from credentials.suspension import Suspension, Suspensions
from tests.worlds.origin import Peer, Request
from tests.worlds.towns import town

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def suspended(account: str | None = "agent", tenant: str = "acme") -> Suspensions:
    return Suspensions.of([Suspension(tenant, account, AT, "9 USD of price this hour, usual is 1 USD", SYSTEM)])


@pytest.mark.parametrize("account", ["agent", None])
async def test_nothing_is_let_out_until_it_is_resumed(tmp_path: Path, account: str | None) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/1")).status == 200
        here.gate.world.suspensions = suspended(account)
        answer = await agent.request("GET", "/things/2")
        told = json.loads(answer.body)
        assert (answer.status, told["code"], told["category"]) == (403, "account_suspended", "governance")
        assert "is suspended since 2026-11-20T12:00:00Z: 9 USD of price this hour" in told["detail"]
        assert "exeat resume" in told["how_to_proceed"]
        assert len(here.origin.requests) == 1
        (record,) = await here.gate.records("call.denied")
        assert record.body["decision"]["reasons"][0]["code"] == "account_suspended"
        assert record.body["agent"]["id"] == "agent"
        here.gate.world.suspensions = Suspensions()
        assert (await agent.request("GET", "/things/3")).status == 200


async def test_others_go_on(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        for other in (suspended("somebody"), suspended("agent", "globex"), suspended(None, "globex")):
            here.gate.world.suspensions = other
            assert (await agent.request("GET", "/things/1")).status == 200


async def test_what_is_in_flight_ends_as_it_would(tmp_path: Path) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(request: Request, peer: Peer) -> None:
        begun.set()
        await go_on.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with town(tmp_path, script=slow) as here, here.agent() as agent:
        asked = asyncio.create_task(agent.request("GET", "/things/1"))
        await begun.wait()
        here.gate.world.suspensions = suspended()
        go_on.set()
        assert (await asked).status == 200


async def test_what_was_decided_before_and_not_sent_yet_is_not_sent(tmp_path: Path) -> None:
    async with town(tmp_path, limits="concurrency: 1") as here, here.agent() as agent:
        head = "POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nab"
        agent.writer.write(head.encode())
        while [call.phase for call in await asyncio.to_thread(here.gate.gate.in_flight)] != ["body"]:
            await asyncio.sleep(0.01)
        here.gate.world.suspensions = suspended()
        agent.writer.write(b"cd")
        answer = await agent.read_answer("POST")
        assert (answer.status, json.loads(answer.body)["code"]) == (403, "account_suspended")
        assert here.origin.requests == []
        assert await here.gate.records("call.intent") == []
        here.gate.world.suspensions = Suspensions()
        async with here.agent() as again:
            assert (await again.request("GET", "/things/2")).status == 200, "its slot was given back"


async def test_nothing_is_read_of_it_first(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        here.gate.world.suspensions = suspended()
        agent.writer.write(b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 4\r\n\r\nab")
        async with asyncio.timeout(5):
            assert (await agent.read_answer("POST")).status == 403
