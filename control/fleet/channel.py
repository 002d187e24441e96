"""A worker's line to control: what is in force comes in, orders are carried out, what control asks is answered.

It runs on a thread and a loop of its own: no agent can keep a revocation from being heard. Lost, it is made again;
until then the worker's lease runs down (`control.fleet.world`).
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from control.fleet.frames import VERSION, FrameInvalid, Message, read_message
from control.fleet.inputs import ForwardedInputs
from control.fleet.limits_line import LimitsLine
from control.fleet.snapshot import KIND, Announced, Follower, SnapshotRefused
from control.fleet.troubles import Troubles
from control.fleet.views import cut_body, in_flight_body, target_of
from control.fleet.world import WorkerWorld
from control.peers import admits, peer_uid
from credentials.identifier import Identifier
from credentials.revocation import Target
from credentials.tokens import TokenVerifier
from proxy.engine.authority import Authority, AuthorityInvalid
from proxy.gate import CutUnconfirmed
from proxy.live import CutReport, InFlight

logger = logging.getLogger("exeat.worker")

AGAIN_SECONDS: Final = 0.1
FORWARD_SECONDS: Final = 0.2


class Commanded(Protocol):
    """The gate as its orders reach it; callable from any thread but its own."""

    def cut(self, target: Target | None) -> CutReport:
        """See `Gate.cut`."""
        ...

    def in_flight(self) -> tuple[InFlight, ...]:
        """See `Gate.in_flight`."""
        ...

    def sign_with(self, authority: Authority) -> None:
        """See `Gate.sign_with`."""
        ...

    @property
    def rendered(self) -> str:
        """Its metrics."""
        ...


@dataclass(slots=True, eq=False)
class Channel:
    """One worker's line. All of it belongs to the channel's loop but `world`, which is read from the gate's."""

    path: Path
    hello: dict[str, Any]
    follower: Follower
    inputs: ForwardedInputs
    troubles: Troubles
    limits: LimitsLine
    known: Callable[[WorkerWorld, Authority], None]
    """Called once, when everything that a gate needs is here."""
    world: WorkerWorld | None = None
    gate: Commanded | None = None
    """Set when it serves."""
    _writer: asyncio.StreamWriter | None = None
    _compiling: set["asyncio.Task[None]"] = field(default_factory=set)
    _orders: set["asyncio.Task[None]"] = field(default_factory=set)

    async def run(self) -> None:
        """Keeps the line until cancelled."""
        forwarding = asyncio.get_running_loop().create_task(self._forward())
        try:
            while True:
                try:
                    await self._once()
                except (OSError, FrameInvalid) as error:
                    logger.warning("no line to control: %s", error)
                except (SnapshotRefused, AuthorityInvalid) as refused:
                    logger.error("what control says is not taken: %s", refused)
                await asyncio.sleep(AGAIN_SECONDS)
        finally:
            forwarding.cancel()

    def serving(self, gate: Commanded, addresses: list[tuple[str, int]]) -> None:
        """The gate takes agents. From the channel's loop."""
        self.gate = gate
        self.hello["serves"] = addresses
        self._send(Message("serves", {"addresses": addresses}))

    async def _once(self) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            if not admits(peer_uid(writer.get_extra_info("socket"))):
                raise FrameInvalid("the process at the other end is another user's")
            self._writer = writer
            self._send(Message("hello", {"version": VERSION, **self.hello}))
            self.troubles.again()
            self.limits.connected(self._send)
            while (message := await read_message(reader)) is not None:
                self._take(message)
        finally:
            self._writer = None
            self.limits.lost()
            writer.close()

    def _take(self, message: Message) -> None:
        if message.kind == "beat":
            self._heard(message.body["at"], message.body["away"])
        elif message.kind == "granted":
            self.limits.answered(message.body)
        elif message.kind == "report":
            self.limits.report()
        elif message.kind == KIND:
            self._in_force(message)
        else:
            task = asyncio.get_running_loop().create_task(self._carry_out(message))
            self._orders.add(task)
            task.add_done_callback(self._orders.discard)

    def _heard(self, at: float, away: Mapping[str, int | None]) -> None:
        """`at` is control's monotonic clock, which on one machine is everybody's: a beat that waited is an old one."""
        if self.world is None:
            return
        now = time.monotonic()
        unheard = now - self.world.heard_until
        if 0 < unheard < math.inf:
            since = datetime.now(UTC) - timedelta(seconds=unheard)
            self.troubles.was("revocations", "control was not heard", since)
        self.world.heard(min(at, now))
        self.limits.heard(self.world.heard_until, away)

    def _in_force(self, message: Message) -> None:
        before = self.follower.current
        announced = self.follower.take(message)
        self._show()
        current = self.follower.current
        if before is not None and current is not None and before.authority is not current.authority:
            self._sign_with(current.authority)
        if announced is None:
            self._send(Message("in_force", {"number": message.body["number"]}))
            return
        task = asyncio.get_running_loop().create_task(self._compile(announced, message.body["number"]))
        self._compiling.add(task)
        task.add_done_callback(self._compiling.discard)

    async def _compile(self, announced: Announced, number: int) -> None:
        policy = await asyncio.to_thread(self.follower.compiled, announced)
        self.follower.adopt(announced, policy)
        self._show()
        self._send(Message("in_force", {"number": number}))
        current = self.follower.current
        if self.world is None and current is not None:
            verifier = TokenVerifier(current.verifying_keys(), current.origin)
            self.world = WorkerWorld(current, Identifier(verifier))
            self.known(self.world, current.authority)

    def _show(self) -> None:
        if self.world is not None and self.follower.current is not None:
            self.world.show(self.follower.current)

    def _sign_with(self, authority: Authority) -> None:
        gate = self.gate
        if gate is not None:
            asyncio.get_running_loop().run_in_executor(None, _quietly, gate, authority)

    async def _carry_out(self, message: Message) -> None:
        """An order or a question, answered with what became of it; what is in force was taken before it came."""
        body: dict[str, Any] = {"id": message.body["id"]}
        gate = self.gate
        try:
            if message.kind == "cut" and gate is not None:
                report = await asyncio.to_thread(gate.cut, target_of(message.body["target"]))
                body |= cut_body(report)
            elif message.kind == "cut":
                body |= {"cut": 0, "calls": [], "micros": 0}  # it serves nobody yet
            elif message.kind == "in_flight":
                calls = () if gate is None else await asyncio.to_thread(gate.in_flight)
                body["calls"] = in_flight_body(calls)
            elif message.kind == "metrics":
                body["text"] = "" if gate is None else gate.rendered
            else:
                return
        except CutUnconfirmed:
            body["unconfirmed"] = True
        self._send(Message("answer", body))

    async def _forward(self) -> None:
        """What calls were decided on, and what could not be done, goes to control, which keeps it."""
        while True:
            await asyncio.sleep(FORWARD_SECONDS)
            while self._writer is not None and not self._writer.is_closing():
                message = self.troubles.next_message() or self.inputs.next_message()
                if message is None:
                    break
                self._send(message)
                await asyncio.sleep(0)

    def _send(self, message: Message) -> None:
        if self._writer is not None:
            self._writer.write(message.encoded())


def _quietly(gate: Commanded, authority: Authority) -> None:
    try:
        gate.sign_with(authority)
    except CutUnconfirmed:
        logger.warning("the gate is busy and signs with the new authority as soon as it gets to it")
