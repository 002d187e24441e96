"""Newcomers are taken from a listening socket one at a time, and no faster than the loop has time for.

asyncio's own server takes all who wait at once, up to its backlog: a crowd that dials and goes would put a thousand
pieces of work before everybody else's next one.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger("exeat.gate")

BACKLOG: Final = 1024
"""Newcomers that the kernel keeps for us."""
_OF_THE_NEWCOMER: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR})
_AGAIN_SECONDS: Final = 1.0
"""After want of files or memory, for others to give some back; whoever waits meanwhile waits in the kernel."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Bound sockets that several gates take newcomers from; they stay their owner's."""

    plain: tuple[socket.socket, ...]
    tls: tuple[socket.socket, ...]


class Acceptor:
    """Takes newcomers from one socket until it is closed."""

    def __init__(
        self, bound: socket.socket, protocol: Callable[[], asyncio.Protocol], rest: Callable[[], float]
    ) -> None:
        """`bound` stays its owner's. `rest`: how many seconds to wait before the next newcomer."""
        self._socket = socket.socket(fileno=os.dup(bound.fileno()))
        self._socket.setblocking(False)
        self._socket.listen(BACKLOG)
        self._protocol = protocol
        self._rest = rest
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Nobody is taken any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close()

    async def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        """Somebody may be waiting. `sock_accept` would take a newcomer for whoever was cancelled in that moment, lose
        it and log an error."""
        number, waiter = self._socket.fileno(), loop.create_future()

        def found() -> None:
            if not waiter.done():
                waiter.set_result(None)

        loop.add_reader(number, found)
        try:
            await waiter
        finally:
            loop.remove_reader(number)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = self._socket.accept()
                connection.setblocking(False)
            except BlockingIOError:
                await self._readable(loop)
                continue
            except OSError as error:
                # accept(2) also gives errors of the connection that was about to be taken. Whatever it is, the loop
                # goes round: an error that stays would otherwise be met again at once, without end.
                if error.errno in _OF_THE_NEWCOMER:
                    await asyncio.sleep(0)
                else:
                    logger.error("no newcomer can be taken: %s; again in %g s", error.strerror, _AGAIN_SECONDS)
                    await asyncio.sleep(_AGAIN_SECONDS)
                continue
            try:
                await loop.connect_accepted_socket(self._protocol, connection)
            except Exception:
                logger.exception("a newcomer could not be served")
                connection.close()
            if seconds := self._rest():
                await asyncio.sleep(seconds)
