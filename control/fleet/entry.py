"""How each process of a fleet begins."""

import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

from control.fleet.leash import Leash
from control.startup import refuse_foreign_packages


def enter() -> None:
    """The process logs as the supervisor does, and leaves signals of terminals to it."""
    refuse_foreign_packages()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def run_leashed(main: Callable[[Leash], Awaitable[None]]) -> None:
    """`main` has run with the leash whose file descriptor is the first argument."""
    leash = await Leash.of(socket.socket(fileno=int(sys.argv[1])))
    try:
        await main(leash)
    finally:
        leash.close()
