"""The running process as its operators see it: the gate, where it listens, and whether it is on its way out."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

from control.operations import InFlightCall
from credentials.revocation import Target
from proxy.gate import CutUnconfirmed, Gate
from proxy.live import InFlight


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of a stop order on this node."""

    confirmed: bool
    """False when the proxy's loop did not answer in time; the order stands and is being carried out."""
    calls: tuple[InFlightCall, ...]


@dataclass(slots=True)
class Node:
    """One process with its gate. Its methods are for the control side's threads only."""

    gate: Gate
    unsafe: tuple[str, ...]
    authority_pem: str
    """The certificate that agents have to trust."""
    health: str | None = None
    draining: bool = False
    pid: int = field(default_factory=os.getpid)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where agents connect."""
        return self.gate.addresses

    def cut(self, target: Target) -> Cut:
        """Every live call of the target has been stopped, or it is known that nobody knows yet."""
        try:
            report = self.gate.cut(target)
        except CutUnconfirmed:
            return Cut(False, ())
        return Cut(True, tuple(in_flight_call(call) for call in report.in_flight))

    def in_flight(self) -> tuple[InFlightCall, ...]:
        """The calls in flight; empty when the proxy's loop does not answer in time."""
        try:
            return tuple(in_flight_call(call) for call in self.gate.in_flight())
        except CutUnconfirmed:
            return ()


def in_flight_call(call: InFlight) -> InFlightCall:
    """The gate's description in the operators' words."""
    return InFlightCall(
        call=call.call,
        tenant=call.tenant,
        account=call.account,
        run=call.run,
        operation=call.operation,
        phase=call.phase,
        seconds=call.seconds,
        sent=call.sent,
        amount_micros=call.amount_micros,
        currency=call.currency,
    )
