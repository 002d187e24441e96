"""The calls in flight: what a revocation cuts, a deadline ends and a drain waits for.

Everything here belongs to the proxy's event loop; `Gate.cut` brings other threads' orders onto it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from credentials.principal import Principal
from proxy.held import Held
from proxy.turns import Turn
from proxy.wire import Wire


class Stop(StrEnum):
    """Why a call was ended from outside."""

    DISCONNECTED = "disconnected"
    REVOKED = "revoked"
    TIMED_OUT = "timed_out"
    DRAINED = "drained"
    UNHEARD = "unheard"
    """Nobody knows any more whether it has been revoked."""


class Abortable(Protocol):
    """Anything that carries bytes to or from an origin."""

    def abort(self) -> None:
        """No byte moves any more."""
        ...


@dataclass(slots=True, eq=False)
class LiveCall:
    """One call between identification and settling."""

    id: str
    principal: Principal
    wire: Wire
    task: asyncio.Task[object]
    loop: asyncio.AbstractEventLoop
    began: float
    deadline: float
    """Loop time by which the present phase must end."""
    total_deadline: float
    turn: Turn
    """Held while the call costs the processor; given back when it is over, and while it waits for something slow."""
    held: Held
    """What of the request's body is in memory; given back when the call is over."""
    phase: str = "admit"
    operation: str = ""
    """Connection, method and route, for people."""
    amount_micros: int = 0
    currency: str | None = None
    sent: bool = False
    """True from the instant before the first byte may have left for the origin."""
    answering: bool = False
    """True once a byte of the answer has been written to the agent."""
    upstream: Abortable | None = None
    stopped: Stop | None = None

    def enter_phase(self, phase: str, seconds: float) -> None:
        """The phase has to end within so many seconds; a sweep over all calls sees to it."""
        self.phase = phase
        self.deadline = self.loop.time() + seconds

    def stop(self, why: Stop) -> None:
        """The call ends now: no byte moves any more in either direction of a started answer. Idempotent."""
        if self.stopped is not None:
            return
        self.stopped = why
        if self.upstream is not None:
            self.upstream.abort()
        if self.answering:
            self.wire.abort()
        self.task.cancel()


@dataclass(frozen=True, slots=True)
class InFlight:
    """A call in flight, for operators."""

    call: str
    tenant: str
    account: str
    run: str
    operation: str
    phase: str
    seconds: float
    sent: bool
    amount_micros: int
    currency: str | None


@dataclass(frozen=True, slots=True)
class CutReport:
    """What a cut did."""

    cut: int
    """Calls ended."""
    in_flight: tuple[InFlight, ...]
    """Those calls as they were."""
    micros: int
    """From the order to the last abort."""


@dataclass(slots=True)
class LiveCalls:
    """The registry."""

    _calls: dict[str, LiveCall] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[LiveCall]:
        return iter(tuple(self._calls.values()))

    def enter(self, call: LiveCall) -> None:
        """The call can be cut from here on."""
        self._calls[call.id] = call

    def leave(self, call: LiveCall) -> None:
        """The call is over. Idempotent."""
        self._calls.pop(call.id, None)

    def describe(self) -> tuple[InFlight, ...]:
        """What is in flight now."""
        now = asyncio.get_running_loop().time()
        return tuple(_describe(call, now) for call in self)

    def cut(self, matches: Callable[[Principal], bool], why: Stop) -> CutReport:
        """Every matching call is stopped when this returns; their settling goes on."""
        began = time.perf_counter_ns()
        now = asyncio.get_running_loop().time()
        hit = [call for call in self if matches(call.principal) and call.stopped is None]
        described = tuple(_describe(call, now) for call in hit)
        for call in hit:
            call.stop(why)
        return CutReport(len(hit), described, (time.perf_counter_ns() - began) // 1000)

    def expire(self, now: float) -> int:
        """Calls past a deadline are stopped; returns how many."""
        late = [call for call in self if now > call.deadline or now > call.total_deadline]
        for call in late:
            call.stop(Stop.TIMED_OUT)
        return len(late)


def _describe(call: LiveCall, now: float) -> InFlight:
    principal = call.principal
    return InFlight(
        call=call.id,
        tenant=principal.tenant,
        account=principal.account,
        run=principal.run,
        operation=call.operation,
        phase=call.phase,
        seconds=round(now - call.began, 3),
        sent=call.sent,
        amount_micros=call.amount_micros,
        currency=call.currency,
    )
