"""`Fleet`: the workers as control sees them. It tells them what is in force, orders cuts, and asks.

Everything here runs on the control loop; `cut`, `publish`, `in_flight` and `metrics` are for other threads.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from control.degraded import Episodes
from control.fleet import inputs, troubles, views
from control.fleet.frames import VERSION, FrameInvalid, Message, read_message
from control.fleet.members import Member, next_number
from control.fleet.metrics import summed
from control.fleet.shares import Shares
from control.fleet.snapshot import Snapshot
from control.fleet_views import FleetShown, WorkerShown
from control.node import Cut
from control.peers import admits, peer_uid
from control.state import State
from control.status_views import InFlightCall
from control.threads import ControlThread
from credentials.revocation import Target
from proxy.engine.authority import Authority

logger = logging.getLogger("exeat.fleet")

BEAT_SECONDS: Final = 0.25
CUT_SECONDS: Final = 1.0
"""A revocation waits this long for the workers; the promise is that a stream is cut within a second."""
PUBLISH_SECONDS: Final = 30.0
ASK_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class Fleet:
    """Implements `control.node.Gates` over the workers that are connected."""

    state: State
    thread: ControlThread
    authority: Callable[[], Authority]
    wanted: int
    """How many workers there should be."""
    episodes: Episodes
    """Is told what controls of workers cannot do."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Where agents connect, whichever worker takes them."""
    prepare: Callable[[], None] = lambda: None
    """Called, from another thread, before what is in force is told: what it needs is there then."""
    roll: Callable[[bool], None] | None = None
    """Tells the supervisor to replace the workers; with True, the processes beside them too."""
    replacing: bool = False
    shares: Shares | None = None
    """What is granted here of limits; set before workers are told anything."""
    _members: set[Member] = field(default_factory=set)
    _number: int = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _server: asyncio.Server | None = None
    inputs_lost: int = 0

    async def start(self, listener: socket.socket) -> None:
        """Workers are told. On the control loop."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)
        self._keep(self._beat())

    async def stop(self) -> None:
        """Nobody is told any more."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        for member in tuple(self._members):
            member.writer.close()

    # of shares of limits; from other threads

    def away(self) -> Mapping[str, int | None]:
        """See `Shares.word`."""
        return {} if self.shares is None else self.shares.word

    def connected(self) -> set[str]:
        """The names of the workers that are there."""
        return {member.worker for member in tuple(self._members)}

    def want_reports(self) -> None:
        """Each worker says what it has in flight."""
        self.thread.submit(self._want_reports)

    async def _want_reports(self) -> None:
        for member in tuple(self._members):
            member.want_report()

    # what a node asks of its gates; from other threads

    @property
    def serving(self) -> int:
        """How many workers take agents."""
        return sum(bool(member.serves) for member in tuple(self._members))

    def cut(self, target: Target) -> Cut:
        """Every worker knows the newest revocations and has stopped every live call of the target, or it is known who
        has not said so."""
        return self.thread.submit(lambda: self._cut(target)).result(CUT_SECONDS + 2)

    def publish(self) -> tuple[int, int]:
        """What is in force here is in force in so many of so many workers; those that did not follow are let go."""
        self.prepare()
        return self.thread.submit(self._publish).result(PUBLISH_SECONDS + 2)

    def in_flight(self) -> tuple[InFlightCall, ...]:
        """The calls in flight in every worker that answers in time."""
        answers = self.thread.submit(lambda: self._ask_all("in_flight")).result(ASK_SECONDS + 2)
        return tuple(call for body in answers for call in views.in_flight_calls(body.get("calls", [])))

    def metrics(self) -> str:
        """The workers' metrics, summed."""
        answers = self.thread.submit(lambda: self._ask_all("metrics")).result(ASK_SECONDS + 2)
        return summed([body["text"] for body in answers if "text" in body])

    def fleet(self) -> FleetShown:
        """Who is there."""
        members = sorted(self._members, key=lambda member: (member.slot, member.worker))
        shown = (WorkerShown(one.worker, one.slot, one.pid, bool(one.serves), one.agreed.is_set()) for one in members)
        return FleetShown(self.wanted, tuple(shown), self.replacing, os.getpid())

    def replace(self, *, everything: bool) -> bool:
        """The supervisor replaces the workers, one after the other; with `everything` the sequencer and this process
        before them."""
        if self.roll is None:
            return False
        self.replacing = True
        self.roll(everything)
        return True

    def warnings(self) -> tuple[str, ...]:
        """What should be looked at."""
        found = []
        if (serving := self.serving) < self.wanted and not self.replacing:
            found.append(f"{serving} of {self.wanted} workers serve agents; the log says what became of the others")
        if self.shares is not None:
            found += self.shares.warnings()
        if self.inputs_lost:
            found.append(f"the decision inputs of {self.inputs_lost} calls were lost in workers")
        return tuple(found)

    def why_not(self) -> str | None:
        """Why no agent can be served; None when one can."""
        return None if self.serving else "no worker serves"

    def sign_with(self, authority: Authority) -> None:
        """Certificates are the authority's from now on."""
        self.publish()

    # the control loop

    async def _cut(self, target: Target) -> Cut:
        self._tell_all()
        members = tuple(self._members)
        orders = [member.ask("cut", target=views.target_body(target)) for member in members]
        answers = await _within(CUT_SECONDS, orders)
        confirmed = [body for body in answers if not body.get("unconfirmed")]
        calls = tuple(call for body in confirmed for call in views.in_flight_calls(body["calls"]))
        return Cut(len(members), len(confirmed), calls)

    async def _publish(self) -> tuple[int, int]:
        self._tell_all()
        members = tuple(self._members)
        waits = [asyncio.ensure_future(member.agreed.wait()) for member in members]
        if waits:
            await asyncio.wait(waits, timeout=PUBLISH_SECONDS)
        followed = 0
        for member, wait in zip(members, waits, strict=True):
            if wait.done():
                followed += 1
            else:
                wait.cancel()
                logger.error("worker %s has not put into force what it was told and is let go", member.worker)
                member.writer.transport.abort()
        return followed, len(members)

    async def _ask_all(self, kind: str) -> list[dict[str, Any]]:
        return await _within(ASK_SECONDS, [member.ask(kind) for member in tuple(self._members) if member.serves])

    def _tell_all(self) -> None:
        now = Snapshot.of(self.state, self.authority())
        for member in tuple(self._members):
            self._tell(member, now)

    def _tell(self, member: Member, now: Snapshot) -> None:
        number = next_number(self._number)
        if member.tell(now, number, self.state.snapshot_key):
            self._number = number

    async def _beat(self) -> None:
        """Whatever changes reaches the workers, whoever changed it; and they know that they hear."""
        while True:
            try:
                self._tell_all()
                for member in tuple(self._members):
                    member.beat(self.away)
            except FrameInvalid as error:
                # Who cannot be told what is in force is not heard by either, and serves nobody.
                logger.error("workers cannot be told what is in force: %s", error)
            await asyncio.sleep(BEAT_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member: Member | None = None
        try:
            if not admits(peer_uid(writer.get_extra_info("socket"))):
                return
            hello = await read_message(reader)
            if hello is None or hello.kind != "hello":
                return
            if hello.body.get("version") != VERSION:
                logger.error("a worker speaks version %s of the line, this is %d", hello.body.get("version"), VERSION)
                return
            member = Member(str(hello.body["worker"]), int(hello.body["slot"]), int(hello.body["pid"]), writer)
            member.serves = [(str(host), int(port)) for host, port in hello.body.get("serves", [])]
            self._members.add(member)
            self._tell(member, Snapshot.of(self.state, self.authority()))
            member.beat(self.away)
            while (message := await read_message(reader)) is not None:
                self._heard(member, message)
        except (FrameInvalid, KeyError, TypeError, ValueError) as error:
            logger.error("a worker's line is closed: %s", error)
        finally:
            writer.close()
            if member is not None:
                self._members.discard(member)
                member.gone()
                self.episodes.gone(member.worker)
                if self.shares is not None:
                    self.shares.gone(member.worker)

    def _heard(self, member: Member, message: Message) -> None:
        if message.kind == inputs.KIND:
            self.inputs_lost += int(message.body["lost"])
            for decided in inputs.decided_of(message):
                self.state.inputs.keep(decided)
            return
        if message.kind == troubles.KIND:
            troubles.tell(message, member.worker, self.episodes)
            return
        if self.shares is not None and message.kind in ("reserve", "end", "pause", "holds"):
            self._share(self.shares, member, message)
            return
        member.heard(message)

    @staticmethod
    def _share(shares: Shares, member: Member, message: Message) -> None:
        match message.kind:
            case "reserve":
                member.granted(shares.reserve(member.worker, message.body))
            case "end":
                shares.end(message.body)
            case "pause":
                shares.pause(message.body)
            case _:
                shares.holds(member.worker, message.body)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _within(seconds: float, asked: list["asyncio.Future[dict[str, Any]]"]) -> list[dict[str, Any]]:
    """The answers that came in time; who is gone or late has none."""
    if not asked:
        return []
    done, late = await asyncio.wait(asked, timeout=seconds)
    for one in late:
        one.cancel()
    return [one.result() for one in done if not one.cancelled()]
