"""The control side of a running installation: operators' socket, health and metrics, and who started it on record."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Final

from control import peers
from control.doors import Doors
from control.health import Readiness, health_app
from control.listeners import ControlListeners, listen_tcp
from control.local import Local
from control.node import Node
from control.operators import operators_app
from control.remote import SOCKET_NAME
from control.startup import Address, StartRefused
from control.state import State, StateUnavailable
from control.threads import ControlThread
from credentials.actor import SYSTEM, Actor

logger = logging.getLogger("exeat.up")

type Gauges = Callable[[], Mapping[str, float]]

NOTHING: Final[Mapping[str, float]] = {}


class ControlSide:
    """Answers operators and probes about one state and its node, on a thread of its own."""

    def __init__(
        self,
        state: State,
        node: Node,
        doors: Doors,
        thread: ControlThread,
        *,
        why_not: Callable[[], str | None] = lambda: None,
        gauges: Gauges = lambda: NOTHING,
    ) -> None:
        """`why_not` says what else keeps it from being ready; `gauges` what else is measured."""
        self._state = state
        self._node = node
        self._doors = doors
        self._listeners = ControlListeners(thread)
        self._why_not = why_not
        self._gauges = [gauges]

    def measure(self, gauges: Gauges) -> None:
        """These are measured too."""
        self._gauges.append(gauges)

    def listen(self, health: socket.socket | None, watched: asyncio.AbstractEventLoop) -> None:
        """Operators and probes are answered; the process lives by the loop `watched`. Raises `StartRefused`."""
        if health is not None:
            self._node.health = str(Address(*name_of(health)))
            app = health_app(self._readiness, self._metrics, watched)
            self._listeners.serve_health(app, health)
        try:
            operators = peers.listen(self._state.directory / SOCKET_NAME)
        except peers.SocketRefused as refused:
            raise StartRefused(str(refused), "") from refused

        def operations_of(actor: Actor) -> Local:
            return Local(self._state, actor, self._node)

        self._listeners.serve_operators(operators_app(operations_of), operators)

    def record_start(self) -> None:
        """Who started it, and how it listens, is on record. Raises `StartRefused`."""
        node = self._node
        detail = {
            "version": version("exeat"),
            "listen": ", ".join(node.listening),
            "health": node.health or "none",
            "unsafe": ", ".join(node.unsafe) or "none",
        }
        try:
            self._state.record_act(peers.actor_of(os.geteuid()), "up", detail)
            if renewed := node.authorities.renewed:
                logger.warning("%s", renewed)
                self._state.record_act(SYSTEM, "authority.switch", {"why": renewed})
        except StateUnavailable as unavailable:
            raise StartRefused(unavailable.message, unavailable.fix) from unavailable

    def stop(self) -> None:
        """Requests in progress have been answered or cut; nobody finds the socket any more."""
        self._listeners.stop()
        (self._state.directory / SOCKET_NAME).unlink(missing_ok=True)

    def _readiness(self) -> Readiness:
        node, policy, halted = self._node, self._state.policy, self._state.ledger.head().halted
        why_not = "draining" if node.draining else ("the ledger has halted" if halted is not None else self._why_not())
        return Readiness(
            ready=why_not is None,
            why_not=why_not,
            policy="none" if policy is None else policy.digest,
            draining=node.draining,
            ledger_halted=halted,
            unsafe=node.unsafe,
            degraded={one.control: one.why for one in node.episodes.now()},
        )

    def _metrics(self) -> str:
        head = self._state.ledger.head()
        own = {
            "ledger_records": head.size,
            "ledger_lag_records": head.lag_records,
            "ledger_lag_seconds": head.lag_seconds,
            "ledger_open_intents": head.open_intents,
            "ledger_halted": int(head.halted is not None),
            "revocation_epoch": self._state.revocations.epoch,
            "threads": threading.active_count(),
            **self._state.inputs.gauges(),
            **self._state.following.gauges(),
            **self._doors.gauges(),
            **{name: value for gauges in self._gauges for name, value in gauges().items()},
        }
        lines = (f"# TYPE exeat_{name} gauge\nexeat_{name} {value:g}\n" for name, value in own.items())
        degraded = self._node.episodes.gauges().items()
        shown = (f'exeat_degraded{{control="{control}"}} {value}\n' for control, value in degraded)
        return self._node.gates.metrics() + "".join(lines) + "# TYPE exeat_degraded gauge\n" + "".join(shown)


def health_socket(health: Address | None) -> socket.socket | None:
    """Where probes are answered. Raises `StartRefused`."""
    if health is None:
        return None
    try:
        return listen_tcp(health.host, health.port)
    except OSError as error:
        raise StartRefused(f"health cannot listen on {health}: {error.strerror}", "Choose another --health.") from error


def name_of(listener: socket.socket) -> tuple[str, int]:
    """The address of a listening socket."""
    host, port, *_ = listener.getsockname()
    return str(host), int(port)
