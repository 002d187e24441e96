"""Agents in numbers: raw asyncio through the door, each request with a path of its own, each answer remembered.

What they remember is the other half of the proof: the origin knows what reached it, the ledger what was promised, and
only the agents know what they were told.
"""

import asyncio
import base64
import contextlib
import itertools
import ssl
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.004
"""Between two calls of an agent: the load of many programs, not a benchmark."""
RECONNECT_SECONDS = 0.02
ANSWER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent was told about one of its requests."""

    target: str
    status: int | None
    """None: the connection ended before a whole answer was there."""
    code: str | None = None
    account: str = ""


@dataclass(slots=True)
class Access:
    """How an agent of an account reaches the door: what `exeat env` prints."""

    account: str
    host: str
    port: int
    authorization: str
    trust: str
    """File of the roots."""

    @classmethod
    def of(cls, account: str, environment: dict[str, str]) -> "Access":
        proxy = urlsplit(environment["HTTPS_PROXY"])
        assert proxy.hostname is not None
        assert proxy.port is not None
        basic = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        return cls(account, proxy.hostname, proxy.port, basic, environment["SSL_CERT_FILE"])


@dataclass
class Load:
    """Agents on a thread of their own, from entering the block until `finish` or its end."""

    accesses: tuple[Access, ...]
    """One agent each."""
    host: str = "saas.test"
    hang_up_every: int = 0
    """Every so manieth call's agent leaves without waiting for its answer, 0 to 40 ms after it asked."""
    pause_seconds: float = PAUSE_SECONDS
    told: list[Told] = field(default_factory=list)
    stopping: bool = False
    unasked: list[str] = field(default_factory=list)
    """Failures that no cut connection explains; a test wants none."""

    def __enter__(self) -> Self:
        self._numbers = itertools.count()
        self._contexts = {a.trust: ssl.create_default_context(cafile=a.trust) for a in self.accesses}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Every agent has ended its last call."""
        self.stopping = True
        self._thread.join(ANSWER_SECONDS + 10)
        assert not self._thread.is_alive()

    async def _all(self) -> None:
        await asyncio.gather(*(self._agent(access) for access in self.accesses))

    async def _agent(self, access: Access) -> None:
        while not self.stopping:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    reader, writer = await asyncio.open_connection(access.host, access.port)
            except (OSError, TimeoutError):
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
                await self._tunnel(access, reader, writer)
            writer.transport.abort()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _tunnel(self, access: Access, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(
                f"CONNECT {self.host}:443 HTTP/1.1\r\nHost: {self.host}:443\r\n"
                f"Proxy-Authorization: Basic {access.authorization}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                self.unasked.append(f"CONNECT: {head!r}")
                return
            await writer.start_tls(self._contexts[access.trust], server_hostname=self.host)
        keep = True
        while keep and not self.stopping:
            keep = await self._call(access, reader, writer)
            await asyncio.sleep(self.pause_seconds)

    async def _call(self, access: Access, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        number = next(self._numbers)
        target = f"/{access.account}/{number}"
        body = b"x" * 300 if number % 3 == 0 else None
        head = f"{'GET' if body is None else 'POST'} {target} HTTP/1.1\r\nHost: {self.host}\r\n"
        if body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        told = Told(target, None, None, access.account)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                writer.write(head.encode() + b"\r\n" + (body or b""))
                await writer.drain()
                if self.hang_up_every and number % self.hang_up_every == 0:
                    await asyncio.sleep(number % 5 / 100)
                    raise ConnectionAbortedError
                status, fields = await _read_answer(reader)
                told = Told(target, status, fields.get("exeat-code"), access.account)
        except TimeoutError:
            self.unasked.append(f"{target}: no answer in {ANSWER_SECONDS} s")
            raise
        finally:
            self.told.append(told)
        return fields.get("connection") != "close"


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and fields, once the whole body is there."""
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" in fields:
        await reader.readexactly(int(fields["content-length"]))
    else:
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    return int(first.split(" ")[1]), fields
