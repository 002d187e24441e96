"""Bodies that a rule reads, and bodies that a rule streams, through a real gate."""

import asyncio
import gzip
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import brotli
import pytest

from credentials.revocation import Target, TargetKind
from ledger import commitment
from proxy.config import GateConfig, Timeouts
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, running_gate, write_policy
from tests.worlds.origin import Action, Origin, answers, reply
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas, price: 0.25 USD}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    limits: {{spend: [{{meter: price, max: 100 USD, per: day}}]}}
    rules:
      - {{id: read, allow: {{connection: saas, path: /read/**, body: inspect}}}}
      - {{id: files, allow: {{connection: saas, path: /files/**, body: {{stream: 4 MiB}}}}}}
      - {{id: big, allow: {{connection: saas, path: /big/**, body: {{stream: 1 GiB}}}}}}
      - {{id: held, allow: {{connection: saas, path: /held/**}}}}
"""
MIB = 1 << 20


@asynccontextmanager
async def town(folder: Path, script=None, *, before_body: bool = False, **seconds: float) -> AsyncIterator[Town]:
    authority = Authority()
    config = GateConfig(listen=(("127.0.0.1", 0),), timeouts=Timeouts(**seconds))
    async with Origin(authority.issue("saas.test"), script, before_body=before_body) as origin:
        policy = write_policy(folder / "policy", POLICY.format(port=origin.port), {"ca.pem": authority.pem})
        async with running_gate(folder, policy, secrets={"saas": SECRET}, config=config) as gate:
            yield Town(gate, origin)


# Read by a rule


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress)]
)
async def test_what_is_forwarded_is_what_was_read(tmp_path: Path, coding: str, encode) -> None:
    body = b'{"amount": 100}' * 50
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request("POST", "/read/1", encode(body), {"Content-Encoding": coding})
            assert answer.status == 200
            assert (await agent.request("POST", "/held/1", encode(body), {"Content-Encoding": coding})).status == 200
        read, held = here.origin.requests
        assert (read.body, read.header("content-encoding"), read.header("content-length")) == (body, None, "750")
        assert (held.body, held.header("content-encoding")) == (encode(body), coding)  # nobody read it: as it came
        intent, _ = await here.gate.records("call.intent")
        assert intent.body["req"]["len"] == len(body)


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("gzip", gzip.compress(b"{}", mtime=0) + b"{}", 415, "encoding_refused"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3], 415, "encoding_refused"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415, "encoding_refused"),
        ("rot13", b"{}", 415, "encoding_refused"),
        ("gzip", gzip.compress(bytes(50 * MIB), mtime=0), 413, "body_too_large"),
        ("br", brotli.compress(bytes(50 * MIB)), 413, "body_too_large"),
    ],
    ids=["trailing", "cut", "stacked", "unknown", "gzip-bomb", "br-bomb"],
)
async def test_what_cannot_be_read_is_refused_and_costs_nothing(
    tmp_path: Path, coding: str, body: bytes, status: int, code: str
) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request("POST", "/read/1", body, {"Content-Encoding": coding})
            assert (answer.status, answer.code) == (status, code)
            assert (await agent.request("POST", "/read/1", b"{}")).status == 200  # the wire is as good as before
        assert len(here.origin.requests) == 1
        (denied,) = await here.gate.records("call.denied")
        assert denied.body["decision"]["reasons"][0]["code"] == code


# Streamed by a rule


async def upload(agent: Agent, path: str, pieces, *, length: int | None, expect: bool = False) -> None:
    """A PUT, piece by piece; chunked without a length."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    wait = "Expect: 100-continue\r\n" if expect else ""
    agent.writer.write(f"PUT {path} HTTP/1.1\r\nHost: saas.test\r\n{framing}\r\n{wait}\r\n".encode())
    if expect:
        assert (await agent.read_head()).status == 100
    for piece in pieces:
        agent.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if length is None else piece)
        await agent.writer.drain()
    if length is None:
        agent.writer.write(b"0\r\n\r\n")
    await agent.writer.drain()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("expect", [False, True])
async def test_an_upload_is_committed_to_before_and_after(tmp_path: Path, chunked: bool, expect: bool) -> None:
    body = os.urandom(3 * MIB)
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            pieces = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
            await upload(agent, "/files/1", pieces, length=None if chunked else len(body), expect=expect)
            assert (await agent.read_answer("PUT")).status == 200
            assert (await agent.request("POST", "/held/1", b"x")).status == 200  # on the same wire
        seen = here.origin.requests[0]
        assert seen.body == body
        assert seen.header("authorization") == f"Bearer {SECRET}"
        assert seen.header("transfer-encoding") == ("chunked" if chunked else None)
        intent, outcome, *_ = await here.gate.records("call.intent", "call.outcome")
        assert (intent.body["req"]["len"], intent.body["req"]["streamed"]) == (None if chunked else len(body), True)
        key = here.gate.world.commitment_key("acme")
        expected = commitment(key, intent.body["call"], "body", hashlib.sha256(body).digest())
        assert outcome.body["upload"] == {"commit": expected, "len": len(body), "complete": True}
        assert outcome.body["result"]["status"] == "confirmed"


async def test_the_intent_is_durable_before_an_upload_is_asked_for(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        agent.writer.write(
            b"PUT /files/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 2000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await agent.read_head()).status == 100
        assert [r.type for r in await here.gate.records("call.intent", "call.outcome")] == ["call.intent"]
        agent.writer.write(bytes(2_000_000))
        assert (await agent.read_answer("PUT")).status == 200


async def test_a_short_body_is_held_all_the_same(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            assert (await agent.request("POST", "/files/1", b"short")).status == 200
        intent, outcome = await here.gate.records("call.intent", "call.outcome")
        assert "streamed" not in intent.body["req"]
        assert "upload" not in outcome.body


async def test_more_than_the_rule_allows_is_refused(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            agent.writer.write(b"PUT /files/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 5000000\r\n\r\n")
            answer = await agent.read_answer("PUT")
            assert (answer.status, answer.code) == (413, "body_too_large")
        assert here.origin.connections == []
        async with here.agent() as agent:  # declared nothing, so it was let out, and is cut
            sending = asyncio.create_task(upload(agent, "/files/1", [bytes(65536)] * 80, length=None))
            answer = await agent.read_answer("PUT")
            assert (answer.status, answer.code) == (413, "body_too_large")
            await asyncio.wait({sending})
            sending.exception()
        (connection,) = here.origin.connections
        await asyncio.wait_for(connection.closed.wait(), 5)
        assert connection.requests[0].body == b""  # the origin never had a whole request
        _, outcome = await here.gate.records("call.intent", "call.outcome")
        assert outcome.body["result"]["status"] == "indeterminate"
        assert outcome.body["upload"]["complete"] is False
        assert outcome.body["cost"]["micro"] == 250_000


async def test_an_early_refusal_ends_the_upload_and_is_read(tmp_path: Path) -> None:
    """RFC 9112 9.5: nobody wants the rest."""
    script = answers(reply(b'{"error":"too big"}', status="413 Content Too Large"), Action.HANG)
    async with town(tmp_path, script, before_body=True) as here:
        async with here.agent() as agent:
            sending = asyncio.create_task(upload(agent, "/files/1", [bytes(65536)] * 60, length=60 * 65536))
            answer = await agent.read_answer("PUT")
            assert (answer.status, answer.code, answer.body) == (413, None, b'{"error":"too big"}')
            await asyncio.wait({sending})
            sending.exception()
        _, outcome = await here.gate.records("call.intent", "call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["result"]["http"]) == ("confirmed", 413)
        assert outcome.body["upload"]["complete"] is False
        (connection,) = here.origin.connections
        await asyncio.wait_for(connection.closed.wait(), 5)  # not used again


async def test_an_early_yes_gets_the_whole_upload(tmp_path: Path) -> None:
    async with town(tmp_path, answers(reply()), before_body=True) as here:
        async with here.agent() as agent:
            await upload(agent, "/files/1", [bytes(65536)] * 40, length=40 * 65536)
            assert (await agent.read_answer("PUT")).status == 200
        assert len(here.origin.requests[0].body) == 40 * 65536
        _, outcome = await here.gate.records("call.intent", "call.outcome")
        assert outcome.body["upload"]["complete"] is True


async def test_an_origin_that_closes_in_the_middle(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.ABORT), before_body=True) as here:
        async with here.agent() as agent:
            sending = asyncio.create_task(upload(agent, "/files/1", [bytes(65536)] * 60, length=60 * 65536))
            answer = await agent.read_answer("PUT")
            assert (answer.status, answer.code) == (502, "upstream_protocol")
            await asyncio.wait({sending})
            sending.exception()
        _, outcome = await here.gate.records("call.intent", "call.outcome")
        assert outcome.body["result"]["status"] == "indeterminate"
        assert len(here.origin.connections) == 1, "a body that was streamed is never sent twice"


@pytest.mark.parametrize("how", ["hang up", "broken chunk"])
async def test_an_agent_that_breaks_off(tmp_path: Path, how: str) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            agent.writer.write(b"PUT /files/1 HTTP/1.1\r\nHost: saas.test\r\nTransfer-Encoding: chunked\r\n\r\n")
            agent.writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await agent.writer.drain()
            while not here.origin.requests:
                await asyncio.sleep(0.01)
            if how == "broken chunk":
                agent.writer.write(b"xyz\r\n")
                answer = await agent.read_answer("PUT")
                assert (answer.status, answer.code) == (400, "ambiguous_framing")
        await asyncio.wait_for(here.origin.connections[0].closed.wait(), 5)
        _, outcome = await here.gate.records("call.intent", "call.outcome")
        assert outcome.body["result"]["status"] == "indeterminate"
        assert outcome.body["upload"] | {"commit": ""} == {"commit": "", "len": 65536, "complete": False}
        assert here.origin.requests[0].body == b""


async def test_an_upload_that_pauses_ends_by_its_deadline(tmp_path: Path) -> None:
    async with town(tmp_path, body_idle=0.3) as here, here.agent() as agent:
        agent.writer.write(b"PUT /files/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 2000000\r\n\r\n" + bytes(9))
        answer = await agent.read_answer("PUT")
        assert (answer.status, answer.code) == (408, "request_timeout")
        (outcome,) = await here.gate.records("call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["upload"]["len"]) == ("timeout", 9)


async def test_a_revocation_cuts_an_upload(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        agent.writer.write(b"PUT /files/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 2000000\r\n\r\n" + bytes(9))
        while not here.origin.requests:
            await asyncio.sleep(0.01)
        report = await asyncio.to_thread(here.gate.gate.cut, Target(TargetKind.ACCOUNT, "acme", "agent"))
        assert report.cut == 1
        answer = await agent.read_answer("PUT")
        assert (answer.status, answer.code) == (403, "revoked_in_flight")
        await asyncio.wait_for(here.origin.connections[0].closed.wait(), 5)


async def test_a_fast_agent_and_a_slow_origin_cost_no_memory(tmp_path: Path) -> None:
    """200 MB through: while the origin does not read, the agent waits and nothing piles up."""
    size, stalled = 200 * MIB, asyncio.Event()
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        await stalled.wait()
        while received < size:
            received += len(await reader.read(MIB))
        writer.write(reply())
        await writer.drain()
        writer.close()

    authority = Authority()
    context = authority.issue("saas.test").server_context()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    policy = write_policy(tmp_path / "policy", POLICY.format(port=port), {"ca.pem": authority.pem})
    async with (
        running_gate(tmp_path, policy, secrets={"saas": SECRET}) as gate,
        Agent(gate, gate.world.token()) as agent,
    ):
        before, pushed, peak = _resident(), 0, 0

        async def push() -> None:
            nonlocal pushed, peak
            agent.writer.write(f"PUT /big/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size // MIB):
                agent.writer.write(bytes(MIB))
                await agent.writer.drain()
                pushed += MIB
                peak = max(peak, _resident() - before)

        pushing = asyncio.create_task(push())
        seen = -1
        while pushed != seen:  # until nothing moves any more
            seen = pushed
            await asyncio.sleep(0.5)
        assert pushed < 32 * MIB, "the agent was not held back"
        stalled.set()
        assert (await agent.read_answer("PUT")).status == 200
        await pushing
        assert received == size
        assert peak < 64 * MIB, "agent, gate and origin share this process"
        (outcome,) = await gate.records("call.outcome")
        assert outcome.body["upload"]["len"] == size
    server.close()


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
