"""An HTTP/1.1 origin on a real port, scripted, that remembers every byte it was sent.

    async with Origin(authority.issue("saas.test")) as origin:          # answers 200 {"ok":true} to everything
        ...
        assert origin.requests[0].header("authorization") == "Bearer s"

A script decides what an exchange does; it is called once a request:

    async def slow(request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nh")
        await asyncio.sleep(0.1)
        await peer.send(b"i")

`answers(...)` makes one from literal bytes and actions. Reading requests is done by twenty lines of our own here, so
that what the origin saw is judged by another reader than the product's.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

from tests.worlds.authority import Leaf


class Action(Enum):
    """What a script may do besides sending bytes."""

    CLOSE = "close, with TLS's goodbye"
    ABORT = "cut the connection without a goodbye"
    HANG = "send nothing more and wait until the other side leaves"


@dataclass(slots=True)
class Request:
    """One request as it came in."""

    raw: bytes
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The only value of a field; None when absent. Two of them fail the test."""
        values = [value for field_name, value in self.headers if field_name.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass(slots=True)
class Connection:
    """One accepted connection."""

    sni: str | None = None
    received: bytearray = field(default_factory=bytearray)
    """Every decrypted byte."""
    requests: list[Request] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is gone, whoever ended it."""


class Peer:
    """The other side of one connection, for scripts."""

    def __init__(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


Script = Callable[[Request, Peer], Awaitable[None]]


def reply(body: bytes = b'{"ok":true}', *, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole counted response."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def answers(*steps: bytes | float | Action) -> Script:
    """A script that sends the bytes, sleeps the seconds and does the actions in order, for every request."""

    async def run(request: Request, peer: Peer) -> None:
        for step in steps:
            if isinstance(step, bytes):
                await peer.send(step)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step is Action.CLOSE:
                peer.close()
            elif step is Action.ABORT:
                peer.abort()
            else:
                await peer.connection.closed.wait()

    return run


class Origin:
    """The server; use it as an async context manager. `leaf` None speaks plain HTTP."""

    def __init__(
        self,
        leaf: Leaf | None,
        script: Script | None = None,
        *,
        host: str = "127.0.0.1",
        before_body: bool = False,
        greeting: bytes = b"",
        configure: Callable[[ssl.SSLContext], None] | None = None,
    ) -> None:
        """`before_body`: the script runs as soon as the head is there. `greeting`: sent unasked on every connection."""
        self.script: Script = script or answers(reply())
        self.host = host
        self.port = 0
        self.connections: list[Connection] = []
        self._greeting = greeting
        self._before_body = before_body
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._context = None if leaf is None else leaf.server_context()
        self._sni: dict[int, str | None] = {}
        if self._context is not None:
            self._context.sni_callback = self._on_sni
            if configure is not None:
                configure(self._context)

    @property
    def requests(self) -> list[Request]:
        """All requests of all connections, in the order of connections."""
        return [request for connection in self.connections for request in connection.requests]

    def _on_sni(self, socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._sni[id(socket)] = name

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(3):  # TLS over a socket: each ends what is below it in the loop's next turn
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        task.add_done_callback(self._tasks.discard)
        connection = Connection(sni=self._sni.pop(id(writer.get_extra_info("ssl_object")), None))
        self.connections.append(connection)
        incoming = asyncio.StreamReader(limit=1 << 26)
        pump = asyncio.create_task(_record(reader, incoming, connection))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            if self._greeting:
                writer.write(self._greeting)
            peer = Peer(connection, writer)
            while not writer.is_closing():
                await self._exchange(incoming, connection, peer)
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        writer.transport.abort() if writer.is_closing() else writer.close()
        connection.closed.set()

    async def _exchange(self, incoming: asyncio.StreamReader, connection: Connection, peer: Peer) -> None:
        raw = await incoming.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        request = Request(raw, method, target, fields, b"")
        connection.requests.append(request)
        if self._before_body:
            await self.script(request, peer)
        request.body = await _read_body(incoming, request)
        if not self._before_body:
            await self.script(request, peer)


async def _record(reader: asyncio.StreamReader, incoming: asyncio.StreamReader, connection: Connection) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            connection.received += data
            incoming.feed_data(data)
    incoming.feed_eof()
    connection.closed.set()


async def _read_body(incoming: asyncio.StreamReader, request: Request) -> bytes:
    if request.header("transfer-encoding") == "chunked":
        body = b""
        while size := int((await incoming.readuntil(b"\r\n"))[:-2], 16):
            body += (await incoming.readexactly(size + 2))[:-2]
        await incoming.readexactly(2)
        return body
    return await incoming.readexactly(int(request.header("content-length") or 0))
