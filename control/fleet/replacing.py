"""Taking the place of processes that serve, one after the other, without a refused call: `exeat workers replace`."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from control.fleet.children import Child, NeverReady
from control.fleet.plan import Plan

logger = logging.getLogger("exeat.up")

SEQUENCER: Final = "sequencer"
CONTROL: Final = "control"
END_SECONDS: Final = 15.0


class Starts(Protocol):
    """What the supervisor does for it."""

    plan: Plan
    children: dict[str, Child]
    ending: bool
    recorded: asyncio.Event

    async def start(self, name: str) -> Child:
        """A process of this name has been started and told; it is the one of that name."""
        ...

    async def control_untold(self) -> Child:
        """Another control has been started, which waits for being told."""
        ...

    def tell_control(self, child: Child) -> None:
        """It takes the state and does its work, as soon as nobody else has the state."""
        ...

    async def again(self, dead: Child, code: int) -> None:
        """It is started anew until it is ready."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """It is done beside all else."""
        ...


class Replacing:
    """One at a time; whoever comes later waits."""

    def __init__(self, fleet: Starts) -> None:
        self._fleet = fleet
        self._one = asyncio.Lock()
        self.retiring: set[Child] = set()
        """Workers whose place another one takes, until they have ended."""

    @property
    def goes_on(self) -> bool:
        """Whether processes are being replaced now."""
        return self._one.locked()

    def _ends(self) -> bool:
        return self._fleet.ending

    async def replace(self, *, everything: bool) -> None:
        """One worker after the other has been replaced; the old one goes when the new one serves. With `everything`
        the sequencer and control before them, in which time calls wait and are not refused."""
        async with self._one:
            try:
                if everything:
                    await self._renew_sequencer()
                    await self._renew_control()
                await self._replace_all()
            except NeverReady as never:
                logger.error("%s; it is tried again, and what was not replaced stays as it is", never)
            finally:
                self._fleet.children[CONTROL].tell(rolled=True)

    async def _renew_sequencer(self) -> None:
        """It has ended in order, and a new one does its work. Raises `NeverReady`."""
        old = self._fleet.children[SEQUENCER]
        if old.ended.is_set() or self._ends():
            return  # it is being started anew, or nothing is any more
        await old.end(None, END_SECONDS)
        await self._takes_place(await self._fleet.start(SEQUENCER), old)

    async def _renew_control(self) -> None:
        """As the sequencer. The new one is there before the old one goes: workers serve for seconds without control,
        and on a busy machine a process takes as long to begin. Raises `NeverReady`; nothing changed if it never was."""
        old = self._fleet.children[CONTROL]
        if old.ended.is_set() or self._ends():
            return
        new = await self._fleet.control_untold()
        try:
            await new.until_here()
        except NeverReady:
            new.kill()
            raise
        if not old.ended.is_set():
            await old.end("end", END_SECONDS)
        if self._ends() or self._fleet.children[CONTROL] is not old:
            new.kill()  # it died meanwhile and is back already, or everything ends
            return
        self._fleet.children[CONTROL] = new
        self._fleet.tell_control(new)
        await self._takes_place(new, old)
        self._fleet.recorded.clear()
        new.tell(do="announced")

    async def _takes_place(self, new: Child, old: Child) -> None:
        try:
            await new.until_ready()
        except NeverReady:
            new.kill()
            await new.ended.wait()
            self._fleet.spawn(self._fleet.again(new, new.process.returncode or 0))
            raise
        logger.info("%s: %d takes the place of %d", new.name, new.pid, old.pid)

    async def _replace_all(self) -> None:
        for slot in range(self._fleet.plan.workers):
            if self._ends():
                return
            name = f"worker {slot}"
            old = self._fleet.children[name]
            old.leaving = True  # whatever becomes of it, it is not started anew
            self.retiring.add(old)
            new = await self._fleet.start(name)
            if self._ends():
                new.kill()  # everybody was told to end but this one, which serves nobody yet
                return
            try:
                await new.until_ready()
            except NeverReady as never:
                logger.error("%s; %s stays as it is", never, name)
                new.kill()
                old.leaving = False
                self.retiring.discard(old)
                self._fleet.children[name] = old
                if old.ended.is_set():
                    self._fleet.spawn(self._fleet.again(old, old.process.returncode or 0))
                return
            self._fleet.spawn(self._retire(old))
            logger.info("%s: %d takes the place of %d", name, new.pid, old.pid)

    async def _retire(self, old: Child) -> None:
        if not self._ends():  # else it has been told to end like all others
            await old.end("retire", self._fleet.plan.drain_seconds * 2 + END_SECONDS)
        await old.ended.wait()
        self.retiring.discard(old)
