"""The official everything server of MCP over streamable HTTP, unmodified, and TLS in front of it.

    with Everything(node, authority, "everything.test") as server:
        ... server.port ...                  # TLS on loopback
        ... server.heard ...                 # every decrypted byte that came

The server listens where it is told on all interfaces; told a path it listens on a socket file, which nobody else
reaches, and which is there before anybody could take a port.
"""

import asyncio
import contextlib
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.worlds.authority import Authority

SCRIPT = Path(__file__).resolve().parent / "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
START_SECONDS = 30.0


class Everything:
    """One server process and its front."""

    def __init__(self, node: Path, authority: Authority, host: str) -> None:
        self._command = (str(node), str(SCRIPT), "streamableHttp")
        self._leaf = authority.issue(host)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.heard = bytearray()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="exeat-mcp-")
        self._socket = Path(self._folder.name, "mcp")
        with Path(self._folder.name, "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={"PATH": os.environ["PATH"], "HOME": self._folder.name, "PORT": str(self._socket)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            ended = self._process.poll() is not None or time.monotonic() > deadline
            assert not ended, Path(self._folder.name, "log").read_text()
            time.sleep(0.02)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._process.kill()  # asked to end, it waits for its clients
        self._process.wait(10)
        self._folder.cleanup()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._leaf.server_context())
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        behind, to_it = await asyncio.open_unix_connection(str(self._socket))
        answers = asyncio.create_task(_copy(behind, writer, None))
        try:
            await _copy(reader, to_it, self.heard)
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            to_it.close()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            if heard is not None:
                heard += data
            writer.write(data)
            await writer.drain()
        if heard is None:
            writer.close()
