"""`python -m control.fleet.worker LEASH`: one gate among several, without state, without the ledger's key.

Ends when it is told to, or when nobody holds its leash any more.
"""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from control.fleet.channel import Channel
from control.fleet.entry import enter, run_leashed
from control.fleet.inputs import ForwardedInputs
from control.fleet.leash import Leash, Line
from control.fleet.limits_line import LimitsLine
from control.fleet.parts import WORKERS_SOCKET, certificate_of, ledger_of, shared_counters
from control.fleet.plan import Plan
from control.fleet.reservations import FleetReservations
from control.fleet.snapshot import Follower
from control.fleet.troubles import Troubles
from control.fleet.world import WorkerWorld
from control.gates import environment_of, gate_config
from control.sequencing import Identity, RemoteLedger
from control.serve import SWITCH_SECONDS
from control.startup import agents_at_once, hide_memory, raise_file_limit, refuse_key_logs
from control.threads import ControlThread
from credentials.revocation import Target
from proxy.accepting import Listeners
from proxy.engine.authority import Authority
from proxy.gate import DrainReport, Gate, GatePorts
from proxy.live import CutReport, InFlight

logger = logging.getLogger("exeat.worker")

KNOWN_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Handle:
    """The gate as the channel reaches it."""

    gate: Gate

    def cut(self, target: Target | None) -> CutReport:
        return self.gate.cut(target)

    def in_flight(self) -> tuple[InFlight, ...]:
        return self.gate.in_flight()

    def sign_with(self, authority: Authority) -> None:
        self.gate.sign_with(authority)

    @property
    def rendered(self) -> str:
        return self.gate.metrics.render()


async def work(leash: Leash) -> None:
    """The worker has served until it was told to end, and everything of its calls is recorded."""
    told = await leash.first()
    plan = Plan.of_line(told["plan"])
    identity = Identity.make(f"w{told['slot']}")
    listeners = Listeners(
        tuple(socket.socket(fileno=number) for number in told["plain"]),
        tuple(socket.socket(fileno=number) for number in told["tls"]),
    )
    hide_memory()
    refuse_key_logs()
    sys.setswitchinterval(SWITCH_SECONDS)
    folder = Path(plan.state)
    known: Future[tuple[WorkerWorld, Authority]] = Future()
    inputs = ForwardedInputs()
    troubles = Troubles()
    follower = Follower(Ed25519PublicKey.from_public_bytes(bytes.fromhex(told["snapshot_key"])))
    hello = {"worker": identity.name, "slot": told["slot"], "pid": os.getpid()}

    def knows(world: WorkerWorld, authority: Authority) -> None:
        if not known.done():  # cancelled, where it took too long
            known.set_result((world, authority))

    channel = Channel(folder / WORKERS_SOCKET, hello, follower, inputs, troubles, LimitsLine(), knows)
    thread = ControlThread("exeat-channel")
    thread.start()
    line = thread.submit(channel.run)
    try:
        async with asyncio.timeout(KNOWN_SECONDS):
            world, authority = await asyncio.wrap_future(known)
        await _serve(plan, identity, listeners, world, authority, inputs, channel, thread, leash)
    finally:
        line.cancel()
        await asyncio.to_thread(thread.stop)


async def _serve(
    plan: Plan,
    identity: Identity,
    listeners: Listeners,
    world: WorkerWorld,
    authority: Authority,
    inputs: ForwardedInputs,
    channel: Channel,
    thread: ControlThread,
    leash: Leash,
) -> None:
    worker = identity.name
    ledger = await ledger_of(plan, identity)

    def degraded(what: Literal["begin", "end"], why: str) -> None:
        if what == "begin":
            channel.troubles.begins("limits", why)
        else:
            channel.troubles.ends("limits")

    reservations = await shared_counters(plan, worker, degraded)
    try:
        counted = FleetReservations(reservations, channel.limits)
        gate = _gate(plan, worker, listeners, world, authority, inputs, ledger, counted)
        async with asyncio.timeout(KNOWN_SECONDS):
            while not world.hears:  # noqa: ASYNC110 - once, and control speaks four times a second
                await asyncio.sleep(0.01)
        await gate.start()
        addresses = list(gate.addresses)
        thread.loop.call_soon_threadsafe(channel.serving, _Handle(gate), addresses)
        leash.say(ready={"worker": worker, "addresses": addresses, "tls": len(gate.tls_addresses)})
        logger.info("worker %s serves", worker)
        report = await _until_told(leash, gate, plan.drain_seconds)
        leash.say(ended={"finished": report.finished, "cut": report.cut})
        await reservations.settled()
    finally:
        await reservations.stop()
        await ledger.aclose()


async def _until_told(leash: Leash, gate: Gate, seconds: float) -> DrainReport:
    """It has served until it was told to end, or nobody was there any more, and has ended like that."""
    orders = leash.lines()
    leaving = asyncio.create_task(_leave(gate, await _next_order(orders), seconds))
    while True:
        more = asyncio.create_task(_told_more(orders))
        await asyncio.wait({leaving, more}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            more.cancel()
            return await leaving
        leaving.cancel()
        await asyncio.wait({leaving})
        if more.result() == "hurry":
            return await gate.drain(0)
        leaving = asyncio.create_task(gate.drain(seconds))  # it was retiring, and now everybody ends


async def _leave(gate: Gate, order: str, seconds: float) -> DrainReport:
    if order == "retire":
        await gate.retire(seconds)
    return await gate.drain(seconds)


async def _next_order(orders: AsyncIterator[Line]) -> str:
    async for line in orders:
        if line.get("do") in ("retire", "drain"):
            return str(line["do"])
    logger.error("the supervisor is gone: this worker ends")
    return "drain"


async def _told_more(orders: AsyncIterator[Line]) -> str:
    async for line in orders:
        if line.get("do") in ("drain", "hurry"):
            return str(line["do"])
    await asyncio.Event().wait()  # nobody is there to be impatient
    return "hurry"


def _gate(
    plan: Plan,
    worker: str,
    listeners: Listeners,
    world: WorkerWorld,
    authority: Authority,
    inputs: ForwardedInputs,
    ledger: RemoteLedger,
    reservations: FleetReservations,
) -> Gate:
    certificate = certificate_of(plan)
    config = gate_config((), (), plan.names, plan.unsafe, agents_at_once(raise_file_limit()))
    ports = GatePorts(
        world=world,
        ledger=ledger,
        reservations=reservations,
        authority=authority,
        own_listeners=() if plan.health is None else (plan.health,),
        environment=environment_of(config, worker),
        own_certificate=None if certificate is None else certificate.context,
        inputs=inputs,
        listeners=listeners,
    )
    return Gate(ports, config)


def main() -> None:
    """The process."""
    enter()
    asyncio.run(run_leashed(work))


if __name__ == "__main__":
    main()
