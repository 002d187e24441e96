"""Alerts, as operators see them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DeliveryShown:
    """What became of an alert at one destination."""

    tenant: str
    destination: str
    state: str
    """`waiting`, `delivered`, `given up`, `dropped`."""
    attempts: int
    told: str
    """What the last attempt came to."""


@dataclass(frozen=True, slots=True)
class AlertShown:
    """An alert that was raised."""

    alert: str
    tenant: str
    kind: str
    severity: str
    at: str
    text: str
    deliveries: tuple[DeliveryShown, ...]


@dataclass(frozen=True, slots=True)
class DestinationShown:
    """How one destination fares, by the alerts that are kept."""

    tenant: str
    destination: str
    waiting: int
    delivered: int
    given_up: int
    dropped: int
    last: str


@dataclass(frozen=True, slots=True)
class AlertsShown:
    """The newest alerts, the newest first, and every destination."""

    alerts: tuple[AlertShown, ...]
    destinations: tuple[DestinationShown, ...]


class AlertOperations(Protocol):
    """Every method raises `Refused`, `WrongUse` or `Unavailable` of `control.operations`."""

    def show(self, limit: int) -> AlertsShown:
        """What was raised lately, and how destinations fare."""
        ...

    def try_out(self, tenant: str | None, destination: str | None = None) -> str:
        """An alert that says that it is a trial is raised for the tenant's destinations, or for one of them; its id."""
        ...
