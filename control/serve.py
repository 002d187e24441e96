"""`exeat up`: the composition root. Two threads with an event loop each, over one state, and two without.

    main thread      the gate: agents' calls, nothing else
    exeat-control    operators' socket, health and metrics
    decision-inputs  keeps what calls were decided on; nothing waits for it
    ledger           the sequencer's own

Order of the start: state (locked, recovered), gate (agents are served), operators and health (so that what they say is
true). Order of the end: not ready, drain, operators and health, state.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from control import peers
from control.alerts.delivering import Deliverer
from control.authorities import Authorities
from control.degraded import Episodes, sources_of
from control.doors import Doors, TlsWanted
from control.gates import environment_of, gate_config
from control.node import Node, OwnGate
from control.remote import SOCKET_NAME
from control.side import ControlSide, health_socket, name_of
from control.startup import (
    Address,
    StartRefused,
    agents_at_once,
    hide_memory,
    raise_file_limit,
    refuse_foreign_packages,
    refuse_key_logs,
    unsafe_listeners,
)
from control.state import State, StateInvalid, StateLocked, StateUnavailable
from control.threads import ControlThread
from proxy.engine.authority import AuthorityInvalid
from proxy.gate import DrainReport, Gate, GatePorts

logger = logging.getLogger("exeat.up")

DRAIN_SECONDS = 25.0
"""Kubernetes kills after 30 s; the rest is for the ledger."""


SWITCH_SECONDS = 0.0002
"""How long the proxy's thread may keep the interpreter while the ledger's waits for it with a synced group in its hand.
Python's 5 ms is longer than the sync itself: measured, 0.2 ms is a third more calls a second at 16 agents and twice as
many at one, for the same processor time a call."""
SNAPSHOT_RECORDS = 20_000
"""A start reads about 200,000 a second: a crash costs the next one a tenth of a second more than a stop."""
SNAPSHOT_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class UpConfig:
    """What `exeat up` was asked to do."""

    state: Path
    listen: tuple[Address, ...]
    health: Address | None
    tls: TlsWanted
    unsafe_plaintext_listener: bool
    drain_seconds: float = DRAIN_SECONDS


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is true once everything listens."""

    state: Path
    created: bool
    listening: tuple[str, ...]
    health: str | None
    policy: str | None
    unsafe: tuple[str, ...]
    workers: int = 0
    """Processes that serve agents; 0: this one."""


def serve(config: UpConfig, announce: Callable[[Announcement], None]) -> DrainReport:
    """Runs until SIGTERM or SIGINT, then ends gracefully. Raises `StartRefused` when nothing was started."""
    refuse_foreign_packages()
    refuse_key_logs()
    exposed = config.listen if config.health is None else (*config.listen, config.health)
    unsafe = unsafe_listeners(exposed, allowed=config.unsafe_plaintext_listener)
    certificate = config.tls.certificate()
    names = config.tls.names_of(certificate)
    hide_memory()
    max_connections = agents_at_once(raise_file_limit())
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        peers.check_path(config.state / SOCKET_NAME)
    except peers.SocketRefused as refused:
        raise StartRefused(str(refused), "") from refused
    created = not (config.state / "exeat.sqlite").exists()
    try:
        state = State.open(config.state, create=True)
    except StateLocked as locked:
        raise StartRefused(locked.message, "One `exeat up` serves one state; exeat status asks it.") from locked
    except (StateInvalid, StateUnavailable) as invalid:
        raise StartRefused(invalid.message, invalid.fix) from invalid
    try:
        try:
            authorities = Authorities.open(state.keys)
        except AuthorityInvalid as invalid:
            raise StartRefused(str(invalid), "") from invalid
        doors = Doors(authorities, names, certificate)
        config.tls.check_authority(doors)
        return asyncio.run(_Service(config, state, doors, unsafe, max_connections, created, announce).run())
    finally:
        state.close()


@dataclass(slots=True)
class _Service:
    config: UpConfig
    state: State
    doors: Doors
    unsafe: tuple[str, ...]
    max_connections: int
    created: bool
    announce: Callable[[Announcement], None]

    async def run(self) -> DrainReport:
        """Serves until told to end."""
        loop = asyncio.get_running_loop()
        stop, hurry = asyncio.Event(), asyncio.Event()

        def told() -> None:
            (hurry if stop.is_set() else stop).set()

        # A terminal that is closed sends SIGHUP; that is an end like the others, not a crash.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, told)
        health = health_socket(self.config.health)
        self.state.inputs.start()
        self.state.following.start()
        gate = self._gate(() if health is None else (name_of(health),))
        try:
            await gate.start()
        except OSError as error:
            raise StartRefused(
                f"the door cannot listen: {error.strerror}", "Choose another --listen or --listen-tls."
            ) from error
        doors = self.doors
        node = Node(
            OwnGate(gate),
            self.unsafe,
            doors.authorities,
            Episodes(self.state, sources_of(self.state), "w0"),
            doors.names,
            doors.certificate,
            tls=len(gate.tls_addresses),
        )
        thread = ControlThread()
        thread.start()
        side = ControlSide(self.state, node, doors, thread)
        deliverer = Deliverer(self.state.alerts, self.state.secret, lambda: frozenset(gate.addresses))
        side.measure(deliverer.gauges)
        deliverer.start()
        chores = [
            asyncio.create_task(self._keep_limits(gate)),
            asyncio.create_task(doors.keep(self.state, node)),
            asyncio.create_task(node.episodes.keep()),
        ]
        try:
            await asyncio.to_thread(side.listen, health, loop)
            await asyncio.to_thread(side.record_start)
            self.announce(self._announcement(node))
            await stop.wait()
            node.draining = True
            logger.info("draining: no new call is taken; a second signal cuts those in flight")
            return await self._drain(gate, hurry)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.to_thread(deliverer.stop)
            await asyncio.to_thread(side.stop)
            await asyncio.to_thread(thread.stop)

    async def _drain(self, gate: Gate, hurry: asyncio.Event) -> DrainReport:
        """Calls in flight have ended, or were cut when their time or the operator's patience was over."""
        gracefully = asyncio.create_task(gate.drain(self.config.drain_seconds))
        impatient = asyncio.create_task(hurry.wait())
        await asyncio.wait({gracefully, impatient}, return_when=asyncio.FIRST_COMPLETED)
        impatient.cancel()
        if gracefully.done():
            return gracefully.result()
        gracefully.cancel()
        await asyncio.wait({gracefully})
        return await gate.drain(0)

    async def _keep_limits(self, gate: Gate) -> None:
        """No claim outlives its call, and a start after a crash has little to read.

        Snapshots are taken on this, the reserving thread.
        """
        saved = self.state.ledger.head().size
        while True:
            await asyncio.sleep(SNAPSHOT_LOOK_SECONDS)
            if lost := self.state.reservations.reap(gate.live_calls()):
                logger.error("claims of calls that are over were still held and are given back: %s", ", ".join(lost))
            size = self.state.ledger.head().size
            if size - saved < SNAPSHOT_RECORDS:
                continue
            try:
                await asyncio.to_thread(self.state.save_limits, self.state.take_limits())
                saved = size
            except StateUnavailable as error:
                logger.error("the limits' snapshot could not be stored and is tried again: %s", error.message)

    def _gate(self, own_listeners: tuple[tuple[str, int], ...]) -> Gate:
        config = gate_config(
            tuple((address.host, address.port) for address in self.config.listen),
            tuple((address.host, address.port) for address in self.config.tls.listen),
            self.doors.names,
            self.unsafe,
            self.max_connections,
        )
        state = self.state
        ports = GatePorts(
            world=state,
            ledger=state.ledger,
            reservations=state.reservations,
            authority=self.doors.authorities.active,
            own_listeners=own_listeners,
            environment=environment_of(config, "w0"),
            own_certificate=None if self.doors.certificate is None else self.doors.certificate.context,
            inputs=state.inputs,
        )
        return Gate(ports, config)

    def _announcement(self, node: Node) -> Announcement:
        return Announcement(
            state=self.config.state,
            created=self.created,
            listening=node.listening,
            health=node.health,
            policy=None if self.state.policy is None else self.state.policy.digest,
            unsafe=self.unsafe,
        )
