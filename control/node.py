"""The running process as its operators see it: the gate, where it listens, and whether it is on its way out."""

import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from control.authorities import Authorities
from control.authority_life import WARNING
from control.degraded import Episodes
from control.fleet_views import FleetShown
from control.limit_views import Counters
from control.status_views import Access, InFlightCall
from credentials.revocation import Target
from proxy.engine.authority import Authority
from proxy.engine.operator_certificate import OperatorCertificate
from proxy.gate import CutUnconfirmed, Gate, own_names
from proxy.live import InFlight

logger = logging.getLogger("exeat.authority")


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of a stop order."""

    asked: int
    """Gates that were told."""
    answered: int
    """Those that have said what they cut; at the others the order stands and is being carried out."""
    calls: tuple[InFlightCall, ...]


class Gates(Protocol):
    """What enforces: the gate of this process, or the workers'. From the control side's threads only."""

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where agents connect, the TLS listeners behind the plain ones."""
        ...

    def cut(self, target: Target) -> Cut:
        """Every live call of the target has been stopped, or it is known who has not said so."""
        ...

    def publish(self) -> tuple[int, int]:
        """What is in force here is in force in so many of so many gates."""
        ...

    def in_flight(self) -> tuple[InFlightCall, ...]:
        """The calls in flight; those of a gate that does not answer in time are not among them."""
        ...

    def sign_with(self, authority: Authority) -> None:
        """Certificates are the authority's from now on, or as soon as a gate gets to it."""
        ...

    def fleet(self) -> FleetShown:
        """The processes, where there are several."""
        ...

    def replace(self, *, everything: bool) -> bool:
        """The workers are being replaced, with `everything` the processes beside them too; False: nobody can do it."""
        ...

    def warnings(self) -> tuple[str, ...]:
        """What works now and should be looked at."""
        ...

    def metrics(self) -> str:
        """What is counted, in Prometheus' text format."""
        ...


class OwnGate:
    """`Gates` of the one gate in this process."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """See `Gates`."""
        return self._gate.addresses

    def cut(self, target: Target) -> Cut:
        """See `Gates`."""
        try:
            report = self._gate.cut(target)
        except CutUnconfirmed:
            return Cut(1, 0, ())
        return Cut(1, 1, tuple(in_flight_call(call) for call in report.in_flight))

    def publish(self) -> tuple[int, int]:
        """See `Gates`: it reads the state itself."""
        return 1, 1

    def in_flight(self) -> tuple[InFlightCall, ...]:
        """See `Gates`."""
        try:
            return tuple(in_flight_call(call) for call in self._gate.in_flight())
        except CutUnconfirmed:
            return ()

    def sign_with(self, authority: Authority) -> None:
        """See `Gates`."""
        try:
            self._gate.sign_with(authority)
        except CutUnconfirmed:
            logger.warning("the proxy is busy and signs with the new authority as soon as it gets to it")

    def fleet(self) -> FleetShown:
        """See `Gates`."""
        return FleetShown(0, ())

    def replace(self, *, everything: bool) -> bool:
        """See `Gates`."""
        return False

    def warnings(self) -> tuple[str, ...]:
        """See `Gates`."""
        return ()

    def metrics(self) -> str:
        """See `Gates`."""
        return self._gate.metrics.render()


@dataclass(slots=True)
class Node:
    """The running installation. Its methods are for the control side's threads only."""

    gates: Gates
    unsafe: tuple[str, ...]
    authorities: Authorities
    """Whom agents have to trust."""
    episodes: Episodes
    """What cannot do its work, and could not."""
    names: tuple[str, ...] = ()
    """Under which agents on other machines reach the TLS listeners."""
    certificate: OperatorCertificate | None = None
    """The operator's own for the TLS listeners; None: one of our authority."""
    tls: int = 0
    """How many of the addresses speak TLS: the last ones."""
    counters: Counters | None = None
    """What decides about limits, where that is not the state's own."""
    health: str | None = None
    draining: bool = False
    pid: int = field(default_factory=os.getpid)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where agents connect."""
        return self.gates.addresses

    @property
    def tls_addresses(self) -> tuple[tuple[str, int], ...]:
        """Those of them that speak TLS."""
        addresses = self.gates.addresses
        return addresses[len(addresses) - self.tls :] if self.tls else ()

    @property
    def own_names(self) -> tuple[str, ...]:
        """What our authority must be able to vouch for besides services: its own TLS listeners."""
        if not self.tls_addresses or self.certificate is not None:
            return ()
        return own_names(self.names, self.tls_addresses)

    @property
    def listening(self) -> tuple[str, ...]:
        """The doors for people: `ADDRESS:PORT`, with `https://` in front of those that speak TLS."""
        tls = self.tls_addresses
        plain = self.addresses[: len(self.addresses) - len(tls)]
        return (*(_shown(*at) for at in plain), *(f"https://{_shown(*at)}" for at in tls))

    def access(self) -> Access:
        """Where the door is for whoever asks on this machine, and whom to trust there."""
        bundle = self.authorities.bundle_pem
        if not self.addresses:
            return Access(None, None, bundle)
        host, port = self.addresses[0]
        # A wildcard is no destination.
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        tls = self.tls_addresses
        if not tls:
            return Access(reachable, port, bundle)
        name = self.names[0] if self.names else None
        remote = None if name is None else _shown(name, tls[0][1])
        if self.addresses[0] not in tls:
            return Access(reachable, port, bundle, remote=remote)
        pem = bundle if self.certificate is None else self.certificate.loaded.pem
        # Our own certificate is for the address too, which needs no name to be resolved.
        verified = reachable if self.certificate is None else name
        return Access(reachable, port, bundle, verified, pem, remote)

    def sign_with(self, authority: Authority) -> None:
        """Certificates are the authority's from now on, or as soon as a gate gets to it."""
        self.gates.sign_with(authority)

    def warnings(self) -> tuple[str, ...]:
        """What works now and will not for ever."""
        now = datetime.now(UTC)
        found = [*self.gates.warnings()]
        left = self.authorities.active.expires_at - now
        if left < WARNING:
            found.append(f"the authority expires in {left.days} days; exeat ca show says what to do")
        if self.certificate is not None and (own := self.certificate.loaded.expires_at - now) < WARNING / 3:
            found.append(f"the listeners' certificate expires in {own.days} days; put the renewed one into its files")
        return tuple(found)

    def cut(self, target: Target) -> Cut:
        """Every live call of the target has been stopped, or it is known that nobody knows yet."""
        return self.gates.cut(target)

    def everywhere(self) -> tuple[str, ...]:
        """What is in force here is in force in every gate, but for those that the answer tells of."""
        followed, asked = self.gates.publish()
        if followed == asked:
            return ()
        return (f"{asked - followed} of {asked} workers did not follow in time; they serve nobody until they do",)

    def in_flight(self) -> tuple[InFlightCall, ...]:
        """The calls in flight, as far as gates answer in time."""
        return self.gates.in_flight()


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


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
