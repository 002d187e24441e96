"""Request smuggling against three origins that parse differently: what each saw is what the ledger committed to.

Python's http.server, Node's http and twenty lines of our own stand behind one gate. Every payload goes to each of them.
Whatever an origin saw must have its intent, with the same method, target, body length and (where our own reader gives
us the bytes) the same digest; and every request carries the gate's credential and no other.
"""

import asyncio
import contextlib
import hashlib
import http.server
import json
import shutil
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledger import commitment
from tests.attacks.smuggling import payloads
from tests.worlds.authority import Authority, Leaf
from tests.worlds.gate import Agent, GateWorld, running_gate, write_policy
from tests.worlds.towns import SECRET

pytestmark = pytest.mark.anyio

KEY = b"k" * 32
"""Of the gate's world; the commitments' key."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n"
BODY = b'{"ok":true}'


@dataclass
class Seen:
    """One request as an origin's own parser understood it."""

    method: str
    target: str
    length: int
    authorization: list[str]
    digest: bytes | None = None
    """SHA-256 of the public head and the body, where the origin keeps its bytes."""


@dataclass
class Parser:
    """One origin."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@asynccontextmanager
async def raw_origin(leaf: Leaf) -> AsyncIterator[Parser]:
    origin = Parser(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        origin.faults.append(f"left over: {error.partial[:80]!r}")
                    break
                lines = head[:-4].split(b"\r\n")
                method, target, _ = lines[0].split(b" ")
                fields = [tuple(line.split(b": ", 1)) for line in lines[1:]]
                if any(name == b"transfer-encoding" for name, *_ in fields) or b"\n" in b"".join(lines):
                    origin.faults.append(f"framing: {head[:80]!r}")
                length = sum(int(value) for name, value in fields if name == b"content-length")
                body = await reader.readexactly(length)
                public = b"\r\n".join(line for line in lines if not line.startswith(b"authorization: ")) + b"\r\n\r\n"
                origin.seen.append(
                    Seen(
                        method.decode(), target.decode(), length,
                        [value.decode() for name, value in fields if name == b"authorization"],
                        hashlib.sha256(public + body).digest(),
                    )
                )  # fmt: skip
                writer.write(OK + (b"" if method == b"HEAD" else BODY))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=leaf.server_context())
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()


@asynccontextmanager
async def python_origin(leaf: Leaf) -> AsyncIterator[Parser]:
    origin = Parser(0)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("transfer-encoding") is not None:
                origin.faults.append("transfer-encoding")
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            granted = self.headers.get_all("authorization") or []
            origin.seen.append(Seen(self.command, self.path, len(body), granted))
            self.send_response(200)
            self.send_header("content-length", str(len(BODY)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(BODY)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None: ...

        def send_error(self, code: int, *_: object, **__: object) -> None:
            origin.faults.append(f"http.server answered {code}")
            self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    server.socket = leaf.server_context().wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    origin.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield origin
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


NODE = """
const https = require('https'), fs = require('fs');
const s = https.createServer({key: fs.readFileSync(process.argv[2]), cert: fs.readFileSync(process.argv[3]),
    maxHeaderSize: 65536}, (q, r) => {
  let n = 0; q.on('data', d => { n += d.length });
  q.on('end', () => {
    const a = []; q.rawHeaders.forEach((v, i) => {
      if (i % 2 == 0 && v.toLowerCase() == 'authorization') a.push(q.rawHeaders[i + 1]) });
    console.log(JSON.stringify({method: q.method, target: q.url, length: n, authorization: a}));
    r.writeHead(200, {'content-length': 11}); r.end(q.method == 'HEAD' ? undefined : '{"ok":true}') }) });
s.on('clientError', (e, c) => { console.log(JSON.stringify({fault: String(e.code)})); c.destroy() });
s.listen(0, '127.0.0.1', () => console.log(JSON.stringify({port: s.address().port})));
"""


@asynccontextmanager
async def node_origin(leaf: Leaf, folder: Path) -> AsyncIterator[Parser]:
    folder.mkdir()
    for name, content in (("origin.js", NODE.encode()), ("key", leaf.key_pem), ("chain", leaf.chain_pem)):
        (folder / name).write_bytes(content)
    process = await asyncio.create_subprocess_exec(
        "node", *(str(folder / name) for name in ("origin.js", "key", "chain")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    output = process.stdout
    origin = Parser(json.loads(await output.readline())["port"])

    async def listen() -> None:
        while line := await output.readline():
            said = json.loads(line)
            if "fault" in said:
                origin.faults.append(f"node: {said['fault']}")
            else:
                origin.seen.append(Seen(**said))

    reading = asyncio.create_task(listen())
    try:
        yield origin
    finally:
        process.terminate()
        await process.wait()
        await reading


@asynccontextmanager
async def gate_before(origin: Parser, authority: Authority, folder: Path) -> AsyncIterator[GateWorld]:
    policy = f"""
exeat: 1
tenant: acme
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{origin.port}", ca: ca.pem, secret: saas, present: bearer}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: things, allow: {{connection: saas, methods: [GET, POST, PUT, DELETE, HEAD, OPTIONS], path: /things/**}}}}
"""
    loaded = write_policy(folder / "policy", policy, {"ca.pem": authority.pem})
    async with running_gate(folder, loaded, secrets={"saas": SECRET}) as gate:
        yield gate


async def throw(gate: GateWorld, payload: bytes) -> bytes:
    """The payload through a tunnel of its own, and everything that came back."""
    answer = b""
    agent = Agent(gate, gate.world.token())
    await agent.connect()
    await agent.start_tls()
    agent.writer.write(payload)
    with contextlib.suppress(OSError, TimeoutError):
        while data := await asyncio.wait_for(agent.reader.read(65536), 0.4):
            answer += data
    agent.writer.transport.abort()
    return answer


async def judge(origin: Parser, gate: GateWorld) -> None:
    cases = payloads()
    for start in range(0, len(cases), 16):
        answers = await asyncio.gather(*(throw(gate, payload) for _, payload in cases[start : start + 16]))
        for (name, _), answer in zip(cases[start:], answers, strict=False):
            assert SECRET.encode() not in answer, name
            assert b"internal" not in answer, name
            assert answer, f"{name}: no answer at all"
    intents = [record.body for record in await gate.records("call.intent")]
    assert origin.faults == []
    assert len(origin.seen) > 40, "the payloads that are sound do arrive"
    for seen in origin.seen:
        assert seen.authorization == [f"Bearer {SECRET}"]
        match = next((intent for intent in intents if tells(intent, seen)), None)
        assert match is not None, f"the origin saw a request that no intent commits to: {seen}"
        intents.remove(match)
    assert intents == [], "an intent whose request never arrived"


def tells(intent: dict, seen: Seen) -> bool:
    """True if the intent commits to exactly this request."""
    call = intent["call"]
    return (
        intent["op"]["method"] == seen.method
        and intent["req"]["len"] == seen.length
        and intent["fields"]["target"] == commitment(KEY, call, "target", seen.target.encode())
        and (seen.digest is None or intent["req"]["commit"] == commitment(KEY, call, "req", seen.digest))
    )


async def test_smuggling_at_an_origin_of_our_own(tmp_path: Path) -> None:
    authority = Authority()
    async with raw_origin(authority.issue("saas.test")) as origin, gate_before(origin, authority, tmp_path) as gate:
        await judge(origin, gate)


async def test_smuggling_at_pythons_http_server(tmp_path: Path) -> None:
    authority = Authority()
    async with python_origin(authority.issue("saas.test")) as origin, gate_before(origin, authority, tmp_path) as gate:
        await judge(origin, gate)


@pytest.mark.wants("node")
@pytest.mark.skipif(shutil.which("node") is None, reason="wants node")
async def test_smuggling_at_node(tmp_path: Path) -> None:
    authority = Authority()
    async with (
        node_origin(authority.issue("saas.test"), tmp_path / "node") as origin,
        gate_before(origin, authority, tmp_path) as gate,
    ):
        await judge(origin, gate)
