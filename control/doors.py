"""How agents on other machines reach this process: the TLS listeners that were asked for, and what they need."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from control.authorities import Authorities, RotationRefused
from control.authority_life import outside, tend
from control.expiry import tell_of_expiry
from control.startup import Address, StartRefused
from control.state import State, StateUnavailable
from proxy.engine.authority import TooManyNames
from proxy.engine.operator_certificate import CertificateRefused, OperatorCertificate
from proxy.gate import CutUnconfirmed, own_names
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid

if TYPE_CHECKING:
    from control.node import Node

logger = logging.getLogger("exeat.up")

LOOK_SECONDS = 3600.0
"""How often the authorities' age is looked at; they live for a year."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What the listeners show agents."""

    authorities: Authorities
    names: tuple[str, ...]
    certificate: OperatorCertificate | None

    def gauges(self) -> dict[str, float]:
        """For the metrics: how long the certificates are good for."""
        now = datetime.now(UTC)
        found = {"authority_expires_seconds": (self.authorities.active.expires_at - now).total_seconds()}
        if self.certificate is not None:
            left = self.certificate.loaded.expires_at - now
            found["listener_certificate_expires_seconds"] = left.total_seconds()
        return found

    async def keep(self, state: State, node: "Node") -> None:
        """No authority expires unnoticed; what an operator has left undone is done in time. Runs until cancelled."""
        while True:
            try:
                await asyncio.to_thread(tend, self.authorities, state, node)
                await asyncio.to_thread(tell_of_expiry, self.authorities, self.certificate, state)
            except (StateUnavailable, RotationRefused, TooManyNames, CutUnconfirmed, OSError) as error:
                # A full disk, an operator's step at the same moment: were it to end here, the authority would expire.
                logger.error("the authority could not be tended and will be again: %s", error)
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class TlsWanted:
    """What `exeat up` was asked for about TLS."""

    listen: tuple[Address, ...] = ()
    names: tuple[str, ...] = ()
    chain: Path | None = None
    key: Path | None = None

    def certificate(self) -> OperatorCertificate | None:
        """The operator's certificate, looked at; None where there is none. Raises `StartRefused`."""
        if self.chain is None and self.key is None:
            return None
        if self.chain is None or self.key is None:
            raise StartRefused("a certificate has a chain and a key", "Say both --tls-cert FILE and --tls-key FILE.")
        if not self.listen:
            raise StartRefused("--tls-cert is for TLS listeners, and there is none", "Say --listen-tls ADDRESS:PORT.")
        try:
            return OperatorCertificate(self.chain, self.key, self._names())
        except CertificateRefused as refused:
            raise StartRefused(str(refused), refused.cure) from refused

    def names_of(self, certificate: OperatorCertificate | None) -> tuple[str, ...]:
        """Under which agents reach the gate: as given, else as in the certificate. Raises `StartRefused`."""
        names = self._names()
        if names or not self.listen:
            return names
        if certificate is not None:
            if not certificate.loaded.names:
                raise StartRefused(
                    f"{self.chain} names hosts by wildcard only", "Say under which agents come: --name NAME"
                )
            return certificate.loaded.names
        wildcard = [address for address in self.listen if address.host in ("0.0.0.0", "::")]  # noqa: S104 - compared
        if wildcard:
            raise StartRefused(
                f"{wildcard[0]} takes agents from everywhere, and its certificate would be for no name they know",
                "Say under which names or addresses they come: --name exeat.internal (may be given several times).",
            )
        return ()

    def check_authority(self, doors: Doors) -> None:
        """Our authority can vouch for our own listeners where it has to. Raises `StartRefused`."""
        if not self.listen or doors.certificate is not None:
            return
        own = own_names(doors.names, tuple((address.host, address.port) for address in self.listen))
        if beyond := outside(doors.authorities.active.permitted, own):
            raise StartRefused(
                f"the authority is constrained and may not vouch for this listener's own {', '.join(beyond)}",
                f"exeat ca rotate --constrain --permit {beyond[0]}, then exeat ca rotate --switch --now; or bring a "
                "certificate: --tls-cert FILE --tls-key FILE",
            )

    def _names(self) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(normalise_host(name) for name in self.names))
        except ValueInvalid as error:
            raise StartRefused(f"--name: {error}", "Write a host name or an IP address.") from error
