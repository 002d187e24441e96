"""The throwing side: raw bytes over real TLS through CONNECT, on tunnels that are kept while they may be."""

import asyncio
import base64
import contextlib
import ssl
from dataclasses import dataclass

from tests.oracle.generator import Throw

ANSWER_SECONDS = 30.0
QUIET_SECONDS = 0.4
"""After this much silence nothing more is expected of a hostile throw. Nothing is concluded from it."""


@dataclass(frozen=True)
class Answer:
    """One answer as the agent read it."""

    host: str
    kind: str
    id: bytes | None
    """Of the request it answers, where that is beyond doubt."""
    status: int
    call: str | None
    code: str | None


class Lane:
    """One agent: its credential, its host, its tunnel of the moment."""

    def __init__(self, door: tuple[str, int], token: str, authority: str, host: str) -> None:
        self._door, self._token, self._host = door, token, host
        self._context = ssl.create_default_context(cafile=authority)
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answers: list[Answer] = []
        self.unanswered: list[Throw] = []

    async def run(self, throws: list[Throw]) -> None:
        """Everything has been thrown."""
        for throw in throws:
            keep = False
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
                reader, writer = self._wire or await self._open()
                self._wire = (reader, writer)
                for piece in throw.pieces:
                    writer.write(piece)
                    await writer.drain()
                    if len(throw.pieces) > 1:
                        await asyncio.sleep(0)
                keep = await self._read(reader, throw)
            if not keep:
                self.close()
        self.close()

    def close(self) -> None:
        if self._wire is not None:
            self._wire[1].transport.abort()
            self._wire = None

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._door, limit=1 << 20)
        basic = base64.b64encode(b"agent:" + self._token.encode())
        host = self._host.encode()
        writer.write(
            b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\nProxy-Authorization: Basic %b\r\n\r\n" % (host, host, basic)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        await writer.start_tls(self._context, server_hostname=self._host)
        return reader, writer

    async def _read(self, reader: asyncio.StreamReader, throw: Throw) -> bool:
        if throw.methods:
            for number, method in zip(throw.ids, throw.methods, strict=True):
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        keep = await self._answer(reader, throw, number, method)
                except (TimeoutError, asyncio.IncompleteReadError):
                    self.unanswered.append(throw)
                    return False
                if not keep:
                    return False
            return True
        if not throw.hang_up:
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self._answer(reader, throw, None, b"GET")
        return False

    async def _answer(self, reader: asyncio.StreamReader, throw: Throw, number: bytes | None, method: bytes) -> bool:
        status, fields = 100, {}
        while status == 100:
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            status = int(first.split(" ")[1])
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        answer = Answer(self._host, throw.kind, number, status, fields.get("exeat-call"), fields.get("exeat-code"))
        self.answers.append(answer)
        if method != b"HEAD" and status not in {204, 304}:
            if "content-length" in fields:
                await reader.readexactly(int(fields["content-length"]))
            elif fields.get("transfer-encoding") == "chunked":
                while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
        return fields.get("connection") != "close"
