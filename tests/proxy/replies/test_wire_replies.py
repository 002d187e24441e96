"""MCP's answers through a real gate: filtered in both forms, framed anew, recorded as the agent got them."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledger import commitment
from tests.proxy.replies.sse import names_in, read
from tests.worlds import towns
from tests.worlds.origin import Action, Peer, Request, answers, reply
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio

ADD, EVIL = ({"name": name, "inputSchema": {"type": "object"}} for name in ("add", "evil"))
BOTH = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [ADD, EVIL]}}).encode()
NOTICE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
JSON = {"Content-Type": "application/json"}
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: bytes) -> bytes:
    return b"id: 1\r\nevent: message\r\ndata: %b\r\n\r\n" % data


def no_evil(server: str) -> str:
    """The town's policy with a rule that keeps one of the server's tools in."""
    return towns.POLICY + f"      - {{{{id: no-evil, deny: mcp.{server}.evil}}}}\n"


@asynccontextmanager
async def tools(folder: Path, script, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    """A town whose service is an MCP server, of whose tools `evil` may not be shown."""
    monkeypatch.setattr(
        towns, "POLICY", no_evil("saas").replace("secret: saas,", "secret: saas, service: mcp, endpoint: /things/mcp,")
    )
    async with town(folder, script) as here:
        yield here


async def outcome(here: Town):
    (record,) = await here.gate.records("call.outcome")
    return record.body


@pytest.mark.parametrize("framing", ["counted", "chunked", "closed", "byte by byte"])
async def test_a_list_in_one_message_is_filtered_and_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: x\r\nContent-Digest: y\r\nMcp-Session-Id: s\r\n"
    sent: tuple[bytes | float | Action, ...]
    match framing:
        case "counted":
            sent = (head + b"Content-Length: %d\r\n\r\n" % len(BOTH) + BOTH,)
        case "chunked":
            sent = (
                head + b"Transfer-Encoding: chunked\r\n\r\n",
                chunk(BOTH[:30]),
                0.02,
                chunk(BOTH[30:]) + b"0\r\n\r\n",
            )
        case "closed":
            sent = (head + b"Connection: close\r\n\r\n" + BOTH, Action.CLOSE)
        case _:
            sent = (head + b"Content-Length: %d\r\n\r\n" % len(BOTH), *(BOTH[at : at + 1] for at in range(len(BOTH))))
    async with tools(tmp_path, answers(*sent), monkeypatch) as here, here.agent() as agent:
        answer = await agent.request("POST", "/things/mcp", LIST, JSON | {"Accept-Encoding": "gzip, br"})
        assert answer.status == 200
        assert names_in(answer.body) == ["add"]
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers["mcp-session-id"] == "s"
        assert not {"etag", "content-digest"} & set(answer.headers)
        assert here.origin.requests[0].header("accept-encoding") == "identity"
        body = await outcome(here)
        digest = hashlib.sha256(answer.body).digest()
        assert body["resp"]["len"] == len(answer.body)
        assert body["resp"]["commit"] == commitment(b"k" * 32, body["call"], "resp", digest)
        assert body["result"]["status"] == "confirmed"
        # The agent's wire stands exactly between two exchanges.
        assert names_in((await agent.request("POST", "/things/mcp", LIST, JSON)).body) == ["add"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_long_list_is_filtered_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    listed = [{**ADD, "name": f"add{number}", "description": "x" * 900} for number in range(300)]
    data = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [*listed, EVIL]}}).encode()
    script = answers(EVENTS + chunk(event(data)) + b"0\r\n\r\n" if stream else reply(data))
    async with tools(tmp_path, script, monkeypatch) as here, here.agent() as agent:
        for _ in range(2):
            answer = await agent.request("POST", "/things/mcp", LIST, JSON)
            message = read(answer.body).events[0][1] if stream else answer.body
            assert names_in(message) == [tool["name"] for tool in listed]


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_list_on_a_stream_is_filtered_and_the_stream_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """An event is there while the origin still holds back the next: each goes only when the agent has the last one."""
    had = asyncio.Semaphore(0)

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(EVENTS)
        for data in (event(NOTICE), event(BOTH), event(NOTICE)):
            await peer.send(chunk(data[:20]))
            await peer.send(chunk(data[20:]))
            await had.acquire()
        await peer.send(b"0\r\n\r\n")

    async with tools(tmp_path, script, monkeypatch) as here, here.agent() as agent:
        for turn in range(2):
            await agent.send(method, "/things/mcp", LIST if method == "POST" else None, JSON)
            head = await agent.read_head()
            assert head.headers["transfer-encoding"] == "chunked"
            got = []
            async with asyncio.timeout(20):
                async for data in agent.chunks():
                    got.append(data)
                    had.release()
            events = [read(data).events for data in got]
            assert [len(found) for found in events] == [1, 1, 1]
            assert events[0][0] == events[2][0] == ("message", NOTICE.decode(), "1")
            assert names_in(events[1][0][1]) == ["add"]
            record = (await here.gate.records("call.outcome"))[turn].body
            digest = hashlib.sha256(b"".join(got)).digest()
            assert record["resp"]["commit"] == commitment(b"k" * 32, record["call"], "resp", digest)
            assert record["resp"]["len"] == sum(map(len, got))
        assert len(here.origin.connections) == 1, "the upstream connection was not kept"


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"{"),
        reply(BOTH + BOTH),
        reply(b'{"id":1,"result":{"tools":{}}}'),
        reply(b" " * (1 << 20) + BOTH),
        reply(BOTH, headers="Content-Encoding: gzip\r\n"),
        reply(BOTH, status="206 Partial Content"),
        reply(BOTH).replace(b"application/json", b"text/plain"),
        reply(BOTH).replace(b"application/json", b"application/json; charset=utf-16"),
    ],
)
async def test_what_cannot_be_judged_is_a_denial_that_a_client_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async with tools(tmp_path, answers(answer), monkeypatch) as here, here.agent() as agent:
        refused = await agent.request("POST", "/things/mcp", LIST, JSON)
        assert (refused.code, refused.status >= 400) == ("upstream_protocol", True)
        told = json.loads(refused.body)
        assert (told["jsonrpc"], told["error"]["data"]["code"]) == ("2.0", "upstream_protocol")
        assert b"evil" not in refused.body
        body = await outcome(here)
        assert (body["result"]["status"], body["result"]["code"]) == ("indeterminate", "upstream_protocol")
        here.origin.script = answers(reply(BOTH))
        assert names_in((await agent.request("POST", "/things/mcp", LIST, JSON)).body) == ["add"]


async def test_a_stream_that_cannot_be_judged_ends_and_is_recorded_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = event(b'{"jsonrpc":"2.0","id":4,"result":{"tools":["evil"]}}')
    script = answers(EVENTS + chunk(event(NOTICE) + bad), chunk(event(BOTH)), Action.HANG)
    async with tools(tmp_path, script, monkeypatch) as here, here.agent() as agent:
        answer = await agent.request("POST", "/things/mcp", LIST, JSON)
        first, last = read(answer.body).events
        assert first[1] == NOTICE.decode()
        error = json.loads(last[1])
        assert (error["id"], error["error"]["data"]["code"]) == (4, "upstream_protocol")
        body = await outcome(here)
        assert (body["result"]["status"], body["result"]["code"]) == ("aborted", "upstream_protocol")
        assert body["resp"]["len"] == len(answer.body)
        async with asyncio.timeout(5):
            await here.origin.connections[0].closed.wait()
        here.origin.script = answers(reply(BOTH))
        assert names_in((await agent.request("POST", "/things/mcp", LIST, JSON)).body) == ["add"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>no</p>",
        b'HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"error":1}',
    ],
)
async def test_any_other_answer_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    async with tools(tmp_path, answers(answer), monkeypatch) as here, here.agent() as agent:
        for _ in range(2):
            got = await agent.request("POST", "/things/mcp", LIST, JSON)
            assert got.status == int(answer[9:12])
            assert got.body == (
                answer.partition(b"\r\n\r\n")[2] if b"Length: 9" in answer or b"Length: 11" in answer else b""
            )


async def test_the_answer_of_any_other_service_is_left_alone(tmp_path: Path) -> None:
    encoded = reply(BOTH, headers="Content-Encoding: gzip\r\nETag: x\r\n")
    async with town(tmp_path, answers(encoded)) as here, here.agent() as agent:
        answer = await agent.request("POST", "/things/mcp", LIST, JSON | {"Accept-Encoding": "gzip"})
        assert answer.body == BOTH
        assert answer.headers["etag"] == "x"
        assert here.origin.requests[0].header("accept-encoding") == "gzip"


async def test_a_server_that_only_the_catalogue_knows_is_filtered_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection names no service: its host says which one it is of."""
    monkeypatch.setattr(towns, "POLICY", no_evil("own"))
    (tmp_path / "policy").mkdir()
    tool = "evil: {effect: write}"
    text = (
        f"catalogue: 1\nservice: mcp.own\nhosts: [saas.test]\nprotocol: mcp\nendpoint: /things/mcp\ntools:\n  {tool}\n"
    )
    (tmp_path / "policy" / "own.yaml").write_text(text)
    async with town(tmp_path, answers(reply(BOTH))) as here, here.agent() as agent:
        denied = await agent.request("POST", "/things/secret/1", LIST, JSON)
        assert json.loads(denied.body)["error"]["data"]["code"] == "rule_denied", "its clients read denials"
        answer = await agent.request("POST", "/things/mcp", LIST, JSON | {"Accept-Encoding": "gzip"})
        assert names_in(answer.body) == ["add"]
        assert here.origin.requests[0].header("accept-encoding") == "identity"


async def test_what_is_held_of_answers_counts_and_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n" + b" " * 60_000
    async with tools(tmp_path, answers(half, Action.HANG), monkeypatch) as here:
        held = here.gate.gate._held
        async with here.agent() as agent:
            await agent.send("POST", "/things/mcp", LIST, JSON)
            async with asyncio.timeout(10):
                while held.total < 60_000 + len(LIST):
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while held.total:
                await asyncio.sleep(0.01)
