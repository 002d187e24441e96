"""Which certificates a tenant's policy trusts, and for what."""

from collections.abc import Iterator
from dataclasses import dataclass

from rules.policy.models import TenantDocument
from rules.policy.reading import Location

ALERTS = "alerts/"
"""Before the name of an alert destination; no connection's name has a `/`."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file of certificates that a policy names."""

    what: str
    """A connection's name, or `alerts/` and an alert destination's."""
    location: Location
    key: str
    file: str


def named_authorities(document: TenantDocument) -> Iterator[Named]:
    """Every file, in the order of the policy."""
    for section, before, entries in (
        ("connections", "", document.connections),
        ("alerts", ALERTS, document.alerts or {}),
    ):
        for name, entry in entries.items():
            for key, file in (("ca", entry.ca), ("extra_ca", entry.extra_ca)):
                if file is not None:
                    yield Named(f"{before}{name}", (section, name, key), key, file)
                    break
