"""A small SaaS over TLS: tickets as a REST resource, and chat completions as OpenAI's API speaks them, with streams.

It remembers what it saw, so that the demonstration can compare that with what the agent knows and the ledger says.
"""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

STREAM_PIECES = 1000
STREAM_PAUSE_SECONDS = 0.05
"""A stream takes 50 s when nobody cuts it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    authorization: str


@dataclass(slots=True)
class Saas:
    """Serves on a thread of its own until stopped."""

    folder: Path
    key: str
    """The only API key it accepts."""
    seen: list[Seen] = field(default_factory=list)
    streams_cut: int = 0
    """Streams whose connection was gone before their end."""
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """It listens on a loopback port."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), name="saas", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the demonstration's service did not start")

    def stop(self) -> None:
        """It no longer listens."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread is not None:
            self._thread.join(5)

    async def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem")
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the proxy closed a kept connection, or cut it
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        authorization = headers.get("authorization", "")
        self.seen.append(Seen(method, path, authorization))
        if authorization != f"Bearer {self.key}":
            return await _send(
                writer, 401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
            )
        if path == "/v1/chat/completions" and method == "POST":
            asked = json.loads(body)
            if asked.get("stream"):
                return await self._stream(writer)
            return await _send(writer, 200, _completion("Ticket 41 can be closed."))
        if path.startswith("/v1/tickets/") and method == "GET":
            return await _send(
                writer, 200, {"id": path.rpartition("/")[2], "subject": "Printer on fire", "status": "open"}
            )
        return await _send(writer, 404, {"error": {"message": "no such resource", "code": "not_found"}})

    async def _stream(self, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            async for piece in _pieces():
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
                if writer.transport.is_closing():
                    raise ConnectionResetError
        except (ConnectionError, ssl.SSLError):
            self.streams_cut += 1
            raise
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _send(writer: asyncio.StreamWriter, status: int, document: object) -> bool:
    body = json.dumps(document).encode()
    reason = {200: "OK", 401: "Unauthorized", 404: "Not Found"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True


async def _pieces() -> AsyncIterator[bytes]:
    for number in range(STREAM_PIECES):
        delta = {"content": f"word{number} "} if number else {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield (
            b"data: "
            + json.dumps({**_ENVELOPE, "object": "chat.completion.chunk", "choices": [choice]}).encode()
            + b"\n\n"
        )
        await asyncio.sleep(STREAM_PAUSE_SECONDS)
    yield b"data: [DONE]\n\n"


_ENVELOPE = {"id": "chatcmpl-1", "created": 1, "model": "demo-1"}


def _completion(text: str) -> object:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
    return {**_ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": usage}
