"""The line between the supervisor and a process that it started: a socket pair, JSON lines, and its end.

The first line says what the process is to do. While it is there the supervisor lives; its end means that nobody looks
after the process any more, and it ends in order by itself.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

_LINE_BYTES: Final = 1024 * 1024

READY: Final = b"ready\n"
"""What the sequencer says, which has no other word for its starter."""

type Line = dict[str, Any]


class Leash:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def of(cls, end: socket.socket) -> "Leash":
        """The end takes over the socket."""
        end.setblocking(False)
        return cls(*await asyncio.open_connection(sock=end, limit=_LINE_BYTES))

    def say(self, **line: Any) -> None:
        """A line is on its way; nothing happens where the other end is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    async def lines(self) -> AsyncIterator[Line]:
        """What the other end says, until it is gone."""
        while True:
            try:
                text = await self._reader.readline()
            except (ConnectionError, ValueError):
                return
            if not text.endswith(b"\n"):
                return
            line = {"ready": {}} if text == READY else json.loads(text)
            if isinstance(line, dict):
                yield line

    async def first(self) -> Line:
        """The first line. Raises `EOFError` when there is none."""
        async for line in self.lines():
            return line
        raise EOFError("the supervisor is gone")

    def close(self) -> None:
        """The other end notices."""
        self._writer.close()
