"""Starting one process of a fleet, and knowing what becomes of it."""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from control.fleet.leash import Leash, Line

logger = logging.getLogger("exeat.up")

READY_SECONDS: Final = 60.0
"""A large policy is compiled in this time, and a ledger of some millions of records recovered."""


class NeverReady(Exception):
    """The process ended, or said nothing, before it could do its work; its own words are in the log."""


@dataclass(slots=True, eq=False)
class Child:
    """One process that the supervisor started."""

    name: str
    process: asyncio.subprocess.Process
    leash: Leash
    heard: Callable[["Child", Line], None]
    began: float = field(default_factory=time.monotonic)
    ready: "asyncio.Future[Line]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    here: asyncio.Event = field(default_factory=asyncio.Event)
    """It has begun and can be told, or it has ended."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last: Line = field(default_factory=dict)
    """What it said at its end."""
    leaving: bool = False
    """It was told to end."""

    @classmethod
    async def start(
        cls,
        name: str,
        module: str,
        told: Line | None,
        heard: Callable[["Child", Line], None],
        inherited: Sequence[int] = (),
        arguments: Callable[[int], Sequence[str]] = lambda leash: (str(leash),),
    ) -> "Child":
        """`python -m module` runs with the arguments that go with its leash, and has been told; None: it waits for it.

        `inherited` are files that are open there under the same numbers.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            inherited = [theirs.fileno(), *inherited]
            process = await asyncio.create_subprocess_exec(
                # -P: a folder `proxy` where the operator stands is not ours
                *(sys.executable, "-P", "-m", module, *arguments(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends everything in order
            )
        child = cls(name, process, await Leash.of(ours), heard)
        if told is not None:
            child.leash.say(**told)
        child._tasks = [asyncio.create_task(child._listen()), asyncio.create_task(child._wait())]
        return child

    _tasks: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it ever did its work."""
        return self.ready.done() and self.ready.exception() is None

    async def until_here(self) -> None:
        """It waits for being told what to do. Raises `NeverReady`."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self.here.wait()
        except TimeoutError:
            raise NeverReady(f"{self.name} did not begin within {READY_SECONDS:.0f} s") from None
        if self.ended.is_set():
            raise NeverReady(f"{self.name} ended before it was told anything")

    async def until_ready(self) -> Line:
        """What it says when it does its work. Raises `NeverReady`."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await asyncio.shield(self.ready)
        except TimeoutError:
            raise NeverReady(f"{self.name} was not ready within {READY_SECONDS:.0f} s") from None

    def tell(self, **line: Any) -> None:
        """An order is on its way."""
        self.leash.say(**line)

    async def end(self, order: str | None, seconds: float) -> None:
        """It has been told to end (None: by SIGTERM) and has ended; killed where it did not within the time."""
        self.leaving = True
        if order is not None:
            self.tell(do=order)
        elif self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            logger.error("%s (%d) did not end in %.0f s and is killed", self.name, self.pid, seconds)
            self.kill()
            await self.ended.wait()

    def kill(self) -> None:
        """It is gone at once."""
        if self.process.returncode is None:
            os.kill(self.pid, 9)

    async def _listen(self) -> None:
        async for line in self.leash.lines():
            if "ready" in line:
                if not self.ready.done():
                    self.ready.set_result(line["ready"])
            elif "here" in line:
                self.here.set()
            elif "ended" in line:
                self.last = line["ended"]
            else:
                self.heard(self, line)

    async def _wait(self) -> None:
        code = await self.process.wait()
        if not self.ready.done():
            self.ready.set_exception(NeverReady(f"{self.name} ended with {code} before it was ready"))
            self.ready.exception()  # looked at, or not: the log has its words
        self.leash.close()
        self.ended.set()
        self.here.set()
        self.heard(self, {"gone": code})
