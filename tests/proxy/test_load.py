"""However a call ends, no turn, held byte or connection stays behind; slow bodies and full memory end early."""

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from proxy.config import GateConfig, Timeouts
from tests.proxy import test_bodies as bodies
from tests.proxy.test_connections import closed, until
from tests.worlds.origin import Action, answers, reply
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio
KIB = 1024


def nothing_is_left(here: Town) -> bool:
    gate = here.gate.gate
    idle = (len(gate._live), len(gate._connections), gate._turns.held, gate._turns.waiting, gate._held.total)
    return not any(idle)


def bounds(timeouts: Timeouts | None = None, **numbers: int) -> GateConfig:
    return GateConfig(listen=(("127.0.0.1", 0),), timeouts=timeouts or Timeouts(), **numbers)


async def allowed(here: Town) -> None:
    async with here.agent() as agent:
        assert (await agent.request("GET", "/things/1")).status == 200


async def denied(here: Town) -> None:
    async with here.agent() as agent:
        assert (await agent.request("GET", "/things/secret/1")).status == 403


async def refused_as_too_large(here: Town) -> None:
    async with here.agent() as agent:
        await agent.send("POST", "/things/1", headers={"Content-Length": str(1 << 30)})
        assert (await agent.read_answer("POST")).code == "body_too_large"


async def hung_up_in_the_body(here: Town) -> None:
    async with here.agent() as agent:
        await agent.send("POST", "/things/1", headers={"Content-Length": "100000"})
        agent.writer.write(b"x" * 50_000)
        await until(lambda: here.gate.gate._held.total == 50_000)


async def hung_up_while_the_origin_thinks(here: Town) -> None:
    here.origin.script = answers(Action.HANG)
    async with here.agent() as agent:
        await agent.send("POST", "/things/1", b"x" * 1000)
        await until(lambda: len(here.origin.requests) == 1)
        assert here.gate.gate._turns.held == 0, "a turn is kept while an origin is waited for"


async def cut_by_the_origin(here: Town) -> None:
    here.origin.script = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + b"x" * 100_000, Action.ABORT)
    async with here.agent() as agent:
        await agent.send("GET", "/things/1")
        assert await closed(agent.reader)


async def left_in_the_tls_handshake(here: Town) -> None:
    agent = here.agent()
    assert (await agent.connect()).status == 200
    agent.writer.write(b"\x16\x03\x01\x00\xff")
    await agent.writer.drain()
    agent.writer.transport.abort()


async def no_tls_at_all(here: Town) -> None:
    agent = here.agent()
    assert (await agent.connect()).status == 200
    agent.writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await closed(agent.reader)
    agent.writer.close()


async def an_unknown_credential(here: Town) -> None:
    agent = here.agent("e30.e30.AAAA")
    assert (await agent.connect()).status in {400, 401, 407}
    agent.writer.close()


async def timed_out_in_the_body(here: Town) -> None:
    async with here.agent() as agent:
        await agent.send("POST", "/things/1", headers={"Content-Length": "100000"})
        assert (await agent.read_answer("POST")).code == "request_timeout"


ENDINGS = (
    allowed,
    denied,
    refused_as_too_large,
    hung_up_in_the_body,
    hung_up_while_the_origin_thinks,
    cut_by_the_origin,
    left_in_the_tls_handshake,
    no_tls_at_all,
    an_unknown_credential,
    timed_out_in_the_body,
)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_whatever_way_it_ends_nothing_is_left(tmp_path: Path, ending) -> None:
    config = bounds(Timeouts(body_idle=0.5))
    async with town(tmp_path, config=config) as here:
        await ending(here)
        await until(lambda: nothing_is_left(here))


async def test_an_upload_cut_short_leaves_nothing(tmp_path: Path) -> None:
    async with bodies.town(tmp_path, answers(reply(b"no", status="413 Content Too Large")), before_body=True) as here:
        async with here.agent() as agent:
            await agent.send("POST", "/files/1", headers={"Content-Length": str(3 << 20)})
            assert (await agent.read_answer("POST")).status == 413
        await until(lambda: nothing_is_left(here))


# Bytes held


async def test_bodies_that_find_no_room_are_refused_at_once_and_others_are_not(tmp_path: Path) -> None:
    async with (
        town(tmp_path, config=bounds(max_held_bytes=200 * KIB, max_held_bytes_per_account=100 * KIB)) as here,
        here.agent() as first,
    ):
        await first.send("POST", "/things/1", headers={"Content-Length": str(100 * KIB)})
        first.writer.write(b"x" * 90 * KIB)
        await until(lambda: here.gate.gate._held.total == 90 * KIB)
        async with here.agent() as second:
            await second.send("POST", "/things/2", headers={"Content-Length": str(200 * KIB)})
            second.writer.write(b"x" * 60 * KIB)
            answer = await second.read_answer("POST")
            assert (answer.status, answer.code) == (503, "overloaded")
        first.writer.write(b"x" * 10 * KIB)
        assert (await first.read_answer("POST")).status == 200
        await until(lambda: here.gate.gate._held.total == 0)
        async with here.agent() as third:
            assert (await third.request("POST", "/things/3", b"x" * 90 * KIB)).status == 200


async def test_a_bomb_has_to_find_room_for_what_it_may_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bodies.town(tmp_path) as here, here.agent() as agent:
        monkeypatch.setattr(here.gate.gate._held, "_per_account", 64 * KIB)
        body = gzip.compress(b"0" * 100)
        answer = await agent.request("POST", "/read/1", body, {"Content-Encoding": "gzip"})
        assert (answer.status, answer.code) == (503, "overloaded")
        assert not here.origin.requests


# Slow


async def test_a_body_that_trickles_ends_by_its_deadline(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(Timeouts(body_idle=0.5))) as here, here.agent() as agent:
        await agent.send("POST", "/things/1", headers={"Content-Length": "100000"})
        answer = asyncio.ensure_future(agent.read_answer("POST"))
        async with asyncio.timeout(10):
            while not answer.done():
                agent.writer.write(b"x")
                await asyncio.sleep(0.1)
        assert answer.result().code == "request_timeout"
        assert not here.origin.requests


async def test_an_upload_that_trickles_ends_however_steadily_it_does(tmp_path: Path) -> None:
    async with bodies.town(tmp_path, body_idle=0.5) as here, here.agent() as agent:
        await agent.send("POST", "/files/1", headers={"Content-Length": str(3 << 20)})
        agent.writer.write(os.urandom(100))
        over = asyncio.ensure_future(closed(agent.reader))
        async with asyncio.timeout(10):
            while not over.done():
                agent.writer.write(b"x")
                await asyncio.sleep(0.1)
