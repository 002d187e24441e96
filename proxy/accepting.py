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
from typing import Final

logger = logging.getLogger("exeat.gate")

BACKLOG: Final = 1024
"""Newcomers that the kernel keeps for us."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EXHAUSTED_SECONDS: Final = 1.0
"""For others to give files back; whoever waits meanwhile waits in the kernel."""


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

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    logger.error("no newcomer can be taken: %s; again in %g s", error.strerror, _EXHAUSTED_SECONDS)
                    await asyncio.sleep(_EXHAUSTED_SECONDS)
                continue  # accept(2): an error of the connection that was about to be taken
            try:
                await loop.connect_accepted_socket(self._protocol, connection)
            except OSError as error:  # gone in the meantime
                logger.debug("a newcomer is gone: %s", error)
                connection.close()
            if seconds := self._rest():
                await asyncio.sleep(seconds)
