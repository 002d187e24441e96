"""The control side's listeners: uvicorn on the control thread, over sockets that exist before anything is announced."""

import asyncio
import socket
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette

from control.health import ProbeProtocol
from control.peers import PeerProtocol
from control.threads import ControlThread

STOP_SECONDS = 3
"""How long an operator's request may still run once the process ends."""


@dataclass(slots=True)
class ControlListeners:
    """uvicorn servers on the control thread's loop."""

    thread: ControlThread
    _servers: list[uvicorn.Server] = field(default_factory=list)
    _running: list["asyncio.Future[None]"] = field(default_factory=list)

    def serve_operators(self, app: Starlette, listener: socket.socket) -> None:
        """The app answers admitted peers of the Unix socket."""
        self._serve(app, listener, PeerProtocol, limit=256)

    def serve_health(self, app: Starlette, listener: socket.socket) -> None:
        """The app answers on the TCP socket."""
        self._serve(app, listener, ProbeProtocol)  # counts its connections itself, and quietly

    def stop(self) -> None:
        """Requests in progress have been answered or cut; the sockets are closed."""

        async def end() -> None:
            for server in self._servers:
                server.should_exit = True
            await asyncio.wait(self._running, timeout=STOP_SECONDS + 1)

        if self._running:
            self.thread.submit(end).result(STOP_SECONDS + 2)

    def _serve(
        self, app: Starlette, listener: socket.socket, protocol: type[asyncio.Protocol], limit: int | None = None
    ) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,  # the process's own logging; uvicorn would install handlers of its own
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,  # nobody may say in a header who they are
            limit_concurrency=limit,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = uvicorn.Server(config)

        async def start() -> None:
            task = asyncio.ensure_future(server.serve(sockets=[listener]))
            self._running.append(task)
            while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for this
                await asyncio.sleep(0.005)
            if task.done():
                task.result()

        self._servers.append(server)
        self.thread.submit(start).result(10)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=128)
    listener.setblocking(False)
    return listener
