"""One account's flood: `python -m benchmarks.flood KIND` reads its target as JSON on standard input, floods until that
closes, and prints how many answers of each status it got.

A process of its own and with a low priority: it takes the processor from the proxy, not from the client whose
latencies are measured.
"""

import asyncio
import gzip
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks import wire

_BOMB: Final = gzip.compress(bytes(50_000_000), mtime=0)
_BIG: Final = b"x" * 1_000_000
_BACK_OFF_SECONDS: Final = 0.05


@dataclass
class Flood:
    """What all connections of the flood know."""

    port: int
    host: str
    authority: str
    ca_file: str
    connect: bytes
    """The CONNECT of the account that floods."""
    hanging: bytes
    """The CONNECT to an origin that never answers."""
    hanging_authority: str
    forged: bytes
    """A CONNECT whose credential has everything right but its signature."""
    answers: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=self.ca_file)

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def answer(self, reader: asyncio.StreamReader) -> str:
        """Reads one answer and counts its status."""
        head = await reader.readuntil(b"\r\n\r\n")
        status = head[9:12].decode()
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                await reader.readexactly(int(line[15:]))
        self.answers[status] += 1
        return status

    async def tunnel(self, connect: bytes, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.dial()
        writer.write(connect)
        head = await reader.readuntil(b"\r\n\r\n")
        if head[9:12] != b"200":
            self.answers[head[9:12].decode()] += 1
            writer.transport.abort()
            raise ConnectionError
        await writer.start_tls(self.context, server_hostname=host)
        return reader, writer


async def _calls(flood: Flood, request: bytes) -> None:
    reader, writer = await flood.tunnel(flood.connect, flood.host)
    try:
        while True:
            writer.write(request)
            await flood.answer(reader)
    finally:
        writer.transport.abort()


async def allowed(flood: Flood) -> None:
    """Calls that are allowed, one after the other."""
    await _calls(flood, wire.request(flood.authority, b""))


async def denied(flood: Flood) -> None:
    """Calls that a rule denies."""
    await _calls(flood, f"DELETE /x HTTP/1.1\r\nHost: {flood.authority}\r\n\r\n".encode())


async def big_bodies(flood: Flood) -> None:
    """Bodies of a megabyte."""
    head = f"POST {wire.PATH} HTTP/1.1\r\nHost: {flood.authority}\r\nContent-Length: {len(_BIG)}\r\n\r\n"
    await _calls(flood, head.encode() + _BIG)


async def bombs(flood: Flood) -> None:
    """Fifty megabytes of zeros in 50 KB of gzip, for a rule that reads bodies."""
    head = f"POST /read HTTP/1.1\r\nHost: {flood.authority}\r\n"
    head += f"Content-Encoding: gzip\r\nContent-Length: {len(_BOMB)}\r\n\r\n"
    await _calls(flood, head.encode() + _BOMB)


async def new_tunnels(flood: Flood) -> None:
    """A handshake, and again."""
    _, writer = await flood.tunnel(flood.connect, flood.host)
    flood.answers["200"] += 1
    writer.transport.abort()


async def forged(flood: Flood) -> None:
    """CONNECT with a credential whose signature is wrong; it has to be checked each time."""
    reader, writer = await flood.dial()
    try:
        writer.write(flood.forged)
        await flood.answer(reader)
    finally:
        writer.transport.abort()


async def dials(flood: Flood) -> None:
    """Connections that say nothing and go."""
    _, writer = await flood.dial()
    flood.answers["dialled"] += 1
    writer.transport.abort()


async def slow_heads(flood: Flood) -> None:
    """One byte of a head at a time."""
    reader, writer = await flood.dial()
    try:
        for byte in flood.connect:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0.2)
            if reader.at_eof():
                raise ConnectionError
    finally:
        flood.answers["ended"] += 1
        writer.transport.abort()


async def no_readers(flood: Flood) -> None:
    """Requests without end whose answers are never read."""
    _, writer = await flood.tunnel(flood.connect, flood.host)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = wire.request(flood.authority, b"") * 20
    try:
        while True:
            writer.write(request)
            await writer.drain()
    finally:
        writer.transport.abort()


async def hanging_origin(flood: Flood) -> None:
    """Calls to an origin that takes connections and never says a word."""
    reader, writer = await flood.tunnel(flood.hanging, "hang.test")
    try:
        while True:
            writer.write(f"GET /x HTTP/1.1\r\nHost: {flood.hanging_authority}\r\n\r\n".encode())
            await flood.answer(reader)
    finally:
        writer.transport.abort()


KINDS: Final[tuple[tuple[Callable[[Flood], Awaitable[None]], int], ...]] = (
    (allowed, 64),
    (denied, 64),
    (big_bodies, 64),
    (bombs, 64),
    (new_tunnels, 64),
    (forged, 64),
    (dials, 64),
    (slow_heads, 600),
    (no_readers, 64),
    (hanging_origin, 64),
)
"""What floods, and over how many connections. A new kind is a function and a line."""


async def _again(kind: Callable[[Flood], Awaitable[None]], flood: Flood) -> None:
    while True:
        try:
            await kind(flood)
        except (OSError, EOFError, asyncio.IncompleteReadError):
            flood.answers["broken"] += 1
            await asyncio.sleep(_BACK_OFF_SECONDS)


async def _main() -> None:
    os.nice(15)
    kind, connections = next(pair for pair in KINDS if pair[0].__name__ == sys.argv[1])
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    flood = Flood(**{name: _bytes(value) for name, value in told.items()})
    tasks = [asyncio.ensure_future(_again(kind, flood)) for _ in range(connections)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(flood.answers), flush=True)


def _bytes(value: Any) -> Any:
    return value["bytes"].encode() if isinstance(value, dict) else value


if __name__ == "__main__":
    asyncio.run(_main())
