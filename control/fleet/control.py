"""`python -m control.fleet.control LEASH`: the control side of a fleet, which holds the state.

It can die and be started again: the workers go on for their lease, and hear from the next one.
"""

import asyncio
import logging
import socket
import time
from pathlib import Path
from typing import Final

from control import peers
from control.alerts.delivering import Deliverer
from control.authorities import Authorities
from control.degraded import Episodes, sources_of
from control.doors import Doors
from control.fleet.entry import enter, run_leashed
from control.fleet.fleet import Fleet
from control.fleet.leash import Leash, Line
from control.fleet.parts import WORKERS_SOCKET, as_control, certificate_of
from control.fleet.plan import Plan
from control.fleet.shared_limits import SharedCounters, SharedLimits
from control.fleet.shares import Shares
from control.gates import Addresses
from control.node import Node
from control.side import ControlSide, health_socket
from control.startup import Address, StartRefused, hide_memory, refuse_key_logs
from control.state import State, StateLocked
from control.threads import ControlThread
from rules.claims import ReservationsUnavailable

logger = logging.getLogger("exeat.up")

COUNTED_SECONDS: Final = 5.0
HELD_SECONDS: Final = 5.0


async def control(leash: Leash) -> None:
    """Operators and workers have been served until the supervisor said to end, or was gone."""
    leash.say(here=True)
    told = await leash.first()
    plan = Plan.of_line(told["plan"])
    hide_memory()
    refuse_key_logs()
    state = await asyncio.to_thread(_open, plan)
    try:
        addresses = tuple((str(host), int(port)) for host, port in told["addresses"])
        await _serve(plan, state, addresses, told, leash)
    finally:
        await asyncio.to_thread(state.close)


def _open(plan: Plan) -> State:
    """A command that holds the state for a moment, because nobody answered it, is waited for."""
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        try:
            return State.open(Path(plan.state), create=False, join=as_control)
        except StateLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


async def _serve(plan: Plan, state: State, addresses: Addresses, told: Line, leash: Leash) -> None:
    certificate = certificate_of(plan)
    doors = Doors(Authorities.open(state.keys), plan.names, certificate)
    thread = ControlThread()
    thread.start()
    served = False

    def workers_away() -> str | None:
        nonlocal served
        served = served or fleet.serving > 0
        return fleet.why_not() if served else None  # before, nobody is expected yet

    episodes = Episodes(
        state,
        {
            "limits": lambda: limits.degraded() or shares.degraded(),
            "workers": workers_away,
            **sources_of(state, lambda: fleet.inputs_lost),
        },
    )
    fleet = Fleet(state, thread, lambda: doors.authorities.active, plan.workers, episodes, addresses)
    fleet.replacing = told["replacing"]
    loop = asyncio.get_running_loop()

    def roll(everything: bool) -> None:
        loop.call_soon_threadsafe(lambda: leash.say(do="roll", all=everything))

    fleet.roll = roll
    fleet.prepare = lambda: _counted(limits, loop)
    node = Node(fleet, plan.unsafe, doors.authorities, episodes, doors.names, certificate, tls=told["tls"])
    limits = await SharedLimits.open(plan, state, anew=told["anew"])
    shares = Shares(state, limits, fleet)
    node.counters = counters = SharedCounters(limits.store, loop)
    counters.instead = shares.counting
    fleet.shares, limits.away = shares, lambda: shares.word
    side = ControlSide(
        state,
        node,
        doors,
        thread,
        why_not=lambda: fleet.why_not() or (None if shares.serves_all() else limits.why_not() or shares.why_not()),
        gauges=lambda: {
            "workers": fleet.serving,
            "workers_wanted": fleet.wanted,
            **limits.gauges(),
            **shares.gauges(),
        },
    )
    state.inputs.start()
    state.following.start()
    deliverer = Deliverer(state.alerts, state.secret, lambda: frozenset(addresses))
    side.measure(deliverer.gauges)
    deliverer.start()
    chores = [
        asyncio.create_task(doors.keep(state, node)),
        asyncio.create_task(limits.keep()),
        asyncio.create_task(shares.keep()),
        asyncio.create_task(episodes.keep()),
    ]
    try:
        listener = peers.listen(state.directory / WORKERS_SOCKET)
        await asyncio.wrap_future(thread.submit(lambda: fleet.start(listener)))
        await asyncio.to_thread(side.listen, _health(plan), asyncio.get_running_loop())
        leash.say(ready={"snapshot_key": state.snapshot_key.public_key().public_bytes_raw().hex()})
        async for line in leash.lines():
            if "rolled" in line:
                fleet.replacing = False
            elif line.get("do") == "announced":
                await asyncio.to_thread(side.record_start)
                leash.say(recorded=True, policy=None if state.policy is None else state.policy.digest)
            elif line.get("do") == "draining":
                node.draining = True
            elif line.get("do") == "end":
                break
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.to_thread(deliverer.stop)
        await asyncio.to_thread(side.stop)
        await asyncio.wrap_future(thread.submit(fleet.stop))
        await asyncio.to_thread(thread.stop)
        (state.directory / WORKERS_SOCKET).unlink(missing_ok=True)
        await limits.close()


def _counted(limits: SharedLimits, loop: asyncio.AbstractEventLoop) -> None:
    """A new tenant's counters are there before a worker serves it; where they cannot be, its calls are refused."""
    try:
        asyncio.run_coroutine_threadsafe(limits.look(), loop).result(COUNTED_SECONDS)
    except (ReservationsUnavailable, TimeoutError) as error:
        logger.error("counters could not be loaded yet: %s", error)


def _health(plan: Plan) -> socket.socket | None:
    if plan.health is None:
        return None
    try:
        return health_socket(Address(*plan.health))
    except StartRefused as refused:
        raise SystemExit(str(refused)) from refused


def main() -> None:
    """The process."""
    enter()
    asyncio.run(run_leashed(control))


if __name__ == "__main__":
    main()
