"""Certificates that are about to expire are told of, at each of a few days before."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from control.alerts.alert import INSTALLATION, Raise, Severity
from control.authorities import Authorities
from control.authority_life import WARNING

if TYPE_CHECKING:
    from control.state import State
    from proxy.engine.operator_certificate import OperatorCertificate

BEFORE: Final = (1, 3, 10, 30)
"""Days at which it is told."""
_LATE: Final = 3
"""Days from which on it is critical."""


def tell_of_expiry(authorities: Authorities, certificate: "OperatorCertificate | None", state: "State") -> None:
    """Each certificate that is about to expire is told of, once for each of `BEFORE`. Raises `StateUnavailable`."""
    now = datetime.now(UTC)
    for which, found, expires_at, first, cure in _looked_at(authorities, certificate):
        left = expires_at - now
        days = next((days for days in BEFORE if left < timedelta(days=days)), None)
        if days is None or timedelta(days=days) > first:
            continue
        fingerprint = hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest()
        text = f"the {which} expires on {expires_at:%Y-%m-%d %H:%MZ}: {cure}"
        detail = {"which": which, "expires": expires_at.isoformat(), "sha256": fingerprint}
        severity = Severity.CRITICAL if days <= _LATE else Severity.WARNING
        once = f"certificate.expires {fingerprint} {days}"
        state.alerts.raise_alert(Raise(INSTALLATION, "certificate.expires", severity, text, detail, once))


def _looked_at(
    authorities: Authorities, certificate: "OperatorCertificate | None"
) -> Iterator[tuple[str, x509.Certificate, datetime, timedelta, str]]:
    active = authorities.active
    cure = "agents have to trust the next one by then: exeat ca show"
    yield "authority", active.certificate, active.expires_at, WARNING, cure
    if certificate is not None:
        loaded = certificate.loaded
        # Whoever renews by a machine does so a few weeks before.
        cure = "put the renewed one into its files"
        yield "listeners' certificate", loaded.chain[0], loaded.expires_at, WARNING / 3, cure
