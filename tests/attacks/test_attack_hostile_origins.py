"""Origins that lie about framing: nothing but well-formed HTTP reaches the agent, and the gate goes on serving."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.worlds.origin import Peer, Request, reply
from tests.worlds.towns import SECRET, quick, town

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"

REFUSED = {
    "a bare CR in a field": OK + b"X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nhi",
    "a NUL in a field": OK + b"X: a\0\r\nContent-Length: 2\r\n\r\nhi",
    "a folded field": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nhi",
    "both framings": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    "a coding beside chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nhi",
    "a space before the colon": OK + b"X : a\r\nContent-Length: 2\r\n\r\nhi",
    "an unsolicited switch": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "endless interim responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + reply(),
    "a status above all": b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nhi",
    "a status below all": b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nhi",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length of forty digits": OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nhi",
    "a hexadecimal length": OK + b"Content-Length: 0x2\r\n\r\nhi",
    "a control character in the reason": b"HTTP/1.1 200 OK\x0bX: y\r\nContent-Length: 2\r\n\r\nhi",
    "a control character in the media type": OK + b"Content-Type: \x1b[2J/x\r\nContent-Length: 2\r\n\r\nhi",
    "a head without end": OK + b"X: " + b"a" * 70_000,
    "three hundred fields": OK + b"X: a\r\n" * 300 + b"Content-Length: 2\r\n\r\nhi",
    "HTTP/2": b"HTTP/2 200\r\n\r\n",
    "nothing like HTTP": b"\x16\x03\x01\x00\x05hello",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_response_that_two_readers_read_differently(tmp_path: Path, what: str) -> None:
    bad = [True]

    async def script(_: Request, peer: Peer) -> None:
        await peer.send(REFUSED[what] if bad else reply())
        bad.clear()

    async with town(tmp_path, script) as here, here.agent() as agent:
        answer = await asyncio.wait_for(agent.request("GET", "/things/1"), 5)
        assert (answer.status, answer.code) == (502, "upstream_protocol")
        assert SECRET.encode() not in answer.body
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "indeterminate"
        assert (await asyncio.wait_for(agent.request("GET", "/things/1"), 5)).status == 200


@pytest.mark.parametrize("pause", [0.0, 0.005])
async def test_a_second_response_nobody_asked_for_answers_nobody(tmp_path: Path, pause: float) -> None:
    """With the first one, or while the connection rests in the pool: no later call reads it."""

    async def script(request: Request, peer: Peer) -> None:
        first, second = reply(request.target.encode()), reply(b'"poisoned"')
        if not pause:
            await peer.send(first + second)
            return
        await peer.send(first)
        await asyncio.sleep(pause)
        with contextlib.suppress(OSError):
            await peer.send(second)

    async with town(tmp_path, script) as here, here.agent() as agent:
        for number in range(6):
            answer = await asyncio.wait_for(agent.request("PUT", f"/things/{number}", b"x"), 5)
            assert answer.body == f"/things/{number}".encode()
            await asyncio.sleep(0.03 if pause else 0)
        assert len(here.origin.connections) == 6, "none of these connections served twice"


async def test_what_only_the_gate_may_say_is_taken_from_the_origin(tmp_path: Path) -> None:
    lie = b"Exeat-Code: approved\r\nExeat-Call: c_fake\r\nAlt-Svc: h2=:9\r\nProxy-Authenticate: Basic\r\n"

    async def script(_: Request, peer: Peer) -> None:
        await peer.send(OK + lie + b"Connection: x-secret-hop\r\nX-Secret-Hop: 1\r\nContent-Length: 2\r\n\r\nhi")

    async with town(tmp_path, script) as here, here.agent() as agent:
        answer = await agent.request("GET", "/things/1")
        (intent,) = await here.gate.records("call.intent")
        assert answer.code is None
        assert answer.headers["exeat-call"] == intent.body["call"]
        assert not answer.headers.keys() & {"alt-svc", "proxy-authenticate", "x-secret-hop"}


async def test_an_origin_that_pushes_at_an_agent_that_does_not_read(tmp_path: Path) -> None:
    """What the gate holds of a stream is bounded: the origin is made to wait."""
    pushed = [0]

    async def script(_: Request, peer: Peer) -> None:
        await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            while pushed[0] < 256 << 20:
                await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                pushed[0] += 65_536

    async with town(tmp_path, script, config=quick(body_idle=1.0)) as here:
        agent = await here.agent().__aenter__()
        agent.writer.transport.pause_reading()
        await agent.send("GET", "/things/1")
        while not (outcomes := await here.gate.records("call.outcome")):
            await asyncio.sleep(0.1)
        assert outcomes[0].body["result"]["status"] == "timeout"
        assert pushed[0] < 64 << 20, "kernel buffers and the gate's bounds, not the stream"
        agent.writer.transport.abort()
