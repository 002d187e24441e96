"""`exeat up --workers N --redis URL`: the process that starts the others and looks after them.

It holds the doors' sockets, so a worker that dies or is replaced takes no newcomer with it, and nothing else: what it
opens at the start it gives back before anybody is served. Order of the start: state (made or recovered, then given
back), sequencer, control, workers. Order of the end: workers (drained), control, sequencer.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control import peers
from control.authorities import Authorities
from control.doors import Doors
from control.fleet.children import Child, NeverReady
from control.fleet.leash import Line
from control.fleet.parts import LEDGER_SOCKET, WORKERS_SOCKET
from control.fleet.plan import Plan
from control.fleet.replacing import CONTROL, END_SECONDS, SEQUENCER, Replacing
from control.remote import SOCKET_NAME
from control.serve import Announcement, UpConfig
from control.side import health_socket, name_of
from control.startup import (
    Address,
    StartRefused,
    hide_memory,
    raise_file_limit,
    refuse_foreign_packages,
    refuse_key_logs,
    unsafe_listeners,
)
from control.state import State, StateInvalid, StateLocked, StateUnavailable
from proxy.accepting import BACKLOG
from proxy.engine.authority import AuthorityInvalid
from proxy.gate import DrainReport

logger = logging.getLogger("exeat.up")

_AGAIN_SECONDS: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Before the next start of a process that keeps dying; the first again once one has lived for a while."""
_LIVED_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """What `exeat up` was asked for beyond one process."""

    workers: int
    redis: str
    redis_auth: Path | None = None
    redis_ca: Path | None = None


def supervise(config: UpConfig, wanted: FleetConfig, announce: Callable[[Announcement], None]) -> DrainReport:
    """Runs until SIGTERM or SIGINT, then ends gracefully. Raises `StartRefused` when nothing was started."""
    refuse_foreign_packages()
    refuse_key_logs()
    exposed = config.listen if config.health is None else (*config.listen, config.health)
    unsafe = unsafe_listeners(exposed, allowed=config.unsafe_plaintext_listener)
    certificate = config.tls.certificate()
    names = config.tls.names_of(certificate)
    hide_memory()  # it opens the state for a moment, and Python wipes nothing
    raise_file_limit()
    try:
        for name in (SOCKET_NAME, WORKERS_SOCKET, LEDGER_SOCKET):
            peers.check_path(config.state / name)
    except peers.SocketRefused as refused:
        raise StartRefused(str(refused), "") from refused
    created = not (config.state / "exeat.sqlite").exists()
    try:
        # Made where there is none, and whatever a crash left is put right while nobody else is there.
        with State.open(config.state, create=True) as state:
            doors = Doors(Authorities.open(state.keys), names, certificate)
            config.tls.check_authority(doors)
            policy = None if state.policy is None else state.policy.digest
    except StateLocked as locked:
        raise StartRefused(locked.message, "One `exeat up` serves one state; exeat status asks it.") from locked
    except (StateInvalid, StateUnavailable) as invalid:
        raise StartRefused(invalid.message, invalid.fix) from invalid
    except AuthorityInvalid as invalid:
        raise StartRefused(str(invalid), "") from invalid
    plan = Plan(
        state=str(config.state.absolute()),
        names=names,
        chain=None if config.tls.chain is None else str(config.tls.chain.absolute()),
        key=None if config.tls.key is None else str(config.tls.key.absolute()),
        unsafe=unsafe,
        health=None if config.health is None else _free(config.health),
        workers=wanted.workers,
        redis=wanted.redis,
        redis_auth=None if wanted.redis_auth is None else str(wanted.redis_auth.absolute()),
        redis_ca=None if wanted.redis_ca is None else str(wanted.redis_ca.absolute()),
        drain_seconds=config.drain_seconds,
    )
    return asyncio.run(_Supervisor(config, plan, created, policy, announce).run())


def _free(health: Address) -> tuple[str, int]:
    """The address that control will take: told to the workers, which never dial it. Raises `StartRefused`."""
    listener = health_socket(health)
    if listener is None:
        raise RuntimeError("there is an address")
    with listener:
        return name_of(listener)


@dataclass(slots=True)
class _Supervisor:
    config: UpConfig
    plan: Plan
    created: bool
    policy: str | None
    announce: Callable[[Announcement], None]
    plain: list[socket.socket] = field(default_factory=list)
    tls: list[socket.socket] = field(default_factory=list)
    snapshot_key: str = ""
    children: dict[str, Child] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    ending: bool = False
    anew: bool = True
    """Control has not been started yet: what is counted in the shared store is of before."""
    lifeline: tuple[int, int] = field(default_factory=os.pipe)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    replacing: Replacing = field(init=False)

    def __post_init__(self) -> None:
        self.replacing = Replacing(self)

    async def run(self) -> DrainReport:
        """Serves until told to end."""
        loop = asyncio.get_running_loop()
        stop, hurry = asyncio.Event(), asyncio.Event()

        def told() -> None:
            (hurry if stop.is_set() else stop).set()

        for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(ending, told)
        try:
            self._bind()
            starting, stopped = asyncio.create_task(self._start_all()), asyncio.create_task(stop.wait())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                return DrainReport(0, 0)  # told to end before it served anybody
            await starting
            self.announce(self._announcement())
            await stopped
            return await self._end(hurry)
        except NeverReady as failed:
            raise StartRefused(str(failed), "Its own words are in the log above.") from failed
        finally:
            self.ending = True
            left = {*self.children.values(), *self.replacing.retiring}
            for child in left:
                child.kill()
            await asyncio.gather(*(child.ended.wait() for child in left))
            for one in (*self.plain, *self.tls):
                one.close()
            for number in self.lifeline:
                os.close(number)

    def _bind(self) -> None:
        try:
            self.plain = [_listening(address) for address in self.config.listen]
            self.tls = [_listening(address) for address in self.config.tls.listen]
        except OSError as error:
            raise StartRefused(
                f"the door cannot listen: {error.strerror}", "Choose another --listen or --listen-tls."
            ) from error

    async def _start_all(self) -> None:
        await (await self.start(SEQUENCER)).until_ready()
        ready = await (await self.start(CONTROL)).until_ready()
        self.snapshot_key = str(ready["snapshot_key"])
        workers = [await self.start(f"worker {slot}") for slot in range(self.plan.workers)]
        await asyncio.gather(*(child.until_ready() for child in workers))
        self.children[CONTROL].tell(do="announced")
        await self.recorded.wait()

    async def start(self, name: str) -> Child:
        """See `Starts.start`."""
        told: dict[str, Any] = {"plan": self.plan.as_line()}
        if name == SEQUENCER:
            child = await self._start_sequencer()
        elif name == CONTROL:
            child = await self.control_untold()
            self.tell_control(child)
        else:
            told |= {
                "slot": int(name.rpartition(" ")[2]),
                "snapshot_key": self.snapshot_key,
                "plain": [one.fileno() for one in self.plain],
                "tls": [one.fileno() for one in self.tls],
            }
            inherited = (self.lifeline[1], *told["plain"], *told["tls"])
            child = await Child.start(name, "control.fleet.worker", told, self._heard, inherited)
        self.children[name] = child
        return child

    async def control_untold(self) -> Child:
        """See `Starts.control_untold`."""
        return await Child.start(CONTROL, "control.fleet.control", None, self._heard, (self.lifeline[1],))

    def tell_control(self, child: Child) -> None:
        """It takes the state and does its work, as soon as nobody else has the state."""
        child.tell(
            plan=self.plan.as_line(),
            addresses=[name_of(one) for one in (*self.plain, *self.tls)],
            tls=len(self.tls),
            anew=self.anew,
            replacing=self.replacing.goes_on,
        )
        self.anew = False

    async def _start_sequencer(self) -> Child:
        """It ends by itself when supervisor, control and workers are gone: the lifeline's other end is theirs."""
        lifeline = self.lifeline[0]

        def arguments(leash: int) -> tuple[str, ...]:
            return (self.plan.state, "--ready-fd", str(leash), "--lifeline-fd", str(lifeline))

        return await Child.start(SEQUENCER, "control.sequencing", None, self._heard, (lifeline,), arguments)

    def _heard(self, child: Child, line: Line) -> None:
        if "gone" in line:
            if not self.ending and not child.leaving and child.was_ready:
                self.spawn(self.again(child, line["gone"]))
        elif line.get("recorded"):
            self.recorded.set()
        elif line.get("do") == "roll":
            self.spawn(self.replacing.replace(everything=bool(line.get("all"))))

    async def again(self, dead: Child, code: int) -> None:
        """A process that died is started anew, at once the first time and later the longer it goes on."""
        name = dead.name
        if self.children.get(name) is not dead:
            return
        failed = 0 if time.monotonic() - dead.began > _LIVED_SECONDS else self.failures.get(name, 0)
        while not self.ending:
            pause = _AGAIN_SECONDS[min(failed, len(_AGAIN_SECONDS) - 1)]
            logger.error("%s (%d) ended with %d; started again in %g s", name, dead.pid, code, pause)
            await asyncio.sleep(pause)
            if self.children.get(name) is not dead or dead.leaving:
                return  # another one has taken its place, or is about to
            failed += 1
            self.failures[name] = failed
            child = dead = await self.start(name)
            try:
                await child.until_ready()
            except NeverReady as never:
                logger.error("%s", never)
                child.kill()
                await child.ended.wait()
                code = child.process.returncode or 0
                continue
            if name == CONTROL:
                self.recorded.clear()
                child.tell(do="announced")
            logger.warning("%s is back as %d", name, child.pid)
            return

    async def _end(self, hurry: asyncio.Event) -> DrainReport:
        self.ending = True
        logger.info("draining: no new call is taken; a second signal cuts those in flight")
        # Those that are being replaced, too, with the calls that they still have.
        serving = {child for name, child in self.children.items() if name not in (SEQUENCER, CONTROL)}
        workers = tuple(serving | self.replacing.retiring)
        self.children[CONTROL].tell(do="draining")
        drain = [asyncio.create_task(one.end("drain", self.config.drain_seconds + END_SECONDS)) for one in workers]
        impatient = asyncio.create_task(hurry.wait())
        together = asyncio.create_task(_all(drain))
        await asyncio.wait({together, impatient}, return_when=asyncio.FIRST_COMPLETED)
        if not together.done():
            for one in workers:
                one.tell(do="hurry")
        await together
        impatient.cancel()
        await self.children[CONTROL].end("end", END_SECONDS)
        await self.children[SEQUENCER].end(None, END_SECONDS)
        return DrainReport(
            finished=sum(int(one.last.get("finished", 0)) for one in workers),
            cut=sum(int(one.last.get("cut", 0)) for one in workers),
        )

    def _announcement(self) -> Announcement:
        listening = [str(Address(*name_of(one))) for one in self.plain]
        listening += [f"https://{Address(*name_of(one))}" for one in self.tls]
        return Announcement(
            state=self.config.state,
            created=self.created,
            listening=tuple(listening),
            health=None if self.plan.health is None else str(Address(*self.plan.health)),
            policy=self.policy,
            unsafe=self.plan.unsafe,
            workers=self.plan.workers,
        )

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _all(tasks: "list[asyncio.Task[None]]") -> None:
    await asyncio.gather(*tasks)


def _listening(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
