"""What the outbox has, for people and metrics."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from control.alerts.alert import Alert, Severity
from control.state.clock import Clock
from control.state.errors import StateUnavailable
from control.stores.sqlite import Database, StoreUnavailable
from rules.policy.compile import PolicySet

WAITING, DELIVERED, GIVEN_UP, DROPPED = "waiting", "delivered", "given up", "dropped"


@dataclass(frozen=True, slots=True)
class Counts:
    """Deliveries of the alerts that are kept."""

    waiting: int
    delivered: int
    given_up: int
    dropped: int
    oldest_seconds: float
    """How long the oldest has waited."""


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How one destination fares."""

    tenant: str
    destination: str
    waiting: int
    delivered: int
    given_up: int
    dropped: int
    last: str
    """What became of the last attempt."""


class OutboxReader:
    """Safe from any thread. Every method raises `StateUnavailable`."""

    def __init__(self, database: Database, clock: Clock, policy: Callable[[], PolicySet | None]) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy

    def counts(self) -> Counts:
        """Of all deliveries."""
        now = self._clock()
        try:
            rows = {
                state: (number, oldest)
                for state, number, oldest in self._database.query(
                    "SELECT d.state, count(*), min(a.at) FROM deliveries d JOIN alerts a ON a.id = d.alert"
                    " GROUP BY d.state"
                )
            }
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error
        waiting, oldest = rows.get(WAITING, (0, now))
        delivered, given_up, dropped = (rows.get(state, (0, 0))[0] for state in (DELIVERED, GIVEN_UP, DROPPED))
        return Counts(waiting, delivered, given_up, dropped, max(0.0, now - oldest))

    def latest(self, limit: int) -> list[tuple[Alert, list[tuple[str, str, str, int, str]]]]:
        """The newest alerts, the newest first, each with (tenant, destination, state, attempts, what was told)."""
        try:
            rows = self._database.query(
                "SELECT id, tenant, kind, severity, at, text, detail FROM alerts ORDER BY at DESC, rowid DESC LIMIT ?",
                (limit,),
            )
            return [
                (
                    alert_of(row),
                    self._database.query(
                        "SELECT tenant, destination, state, attempts, told FROM deliveries WHERE alert = ?"
                        " ORDER BY tenant, destination",
                        (row[0],),
                    ),
                )
                for row in rows
            ]
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error

    def destinations(self) -> list[DestinationState]:
        """How each destination of the policy in force fares, the log's included."""
        try:
            rows = self._database.query(
                "SELECT tenant, destination, sum(state = ?), sum(state = ?), sum(state = ?), sum(state = ?)"
                " FROM deliveries GROUP BY tenant, destination",
                (WAITING, DELIVERED, GIVEN_UP, DROPPED),
            )
            last = {
                (tenant, destination): told
                for tenant, destination, told, _ in self._database.query(
                    "SELECT tenant, destination, told, max(at) FROM deliveries WHERE attempts > 0"
                    " GROUP BY tenant, destination"
                )
            }
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error
        found = {(row[0], row[1]): row[2:] for row in rows}
        policy = self._policy()
        named = {
            (tenant.tenant, name)
            for tenant in (() if policy is None else policy.tenants.values())
            for name in tenant.alerts
        }
        shown = []
        for key in sorted(named | found.keys()):
            waiting, delivered, given_up, dropped = found.get(key, (0, 0, 0, 0))
            shown.append(DestinationState(key[0], key[1], waiting, delivered, given_up, dropped, last.get(key, "")))
        return shown

    def newest_of(self, prefix: str) -> str | None:
        """The key of the newest alert whose key begins so."""
        try:
            rows = self._database.query(
                "SELECT once FROM alerts WHERE substr(once, 1, ?) = ? ORDER BY at DESC, rowid DESC LIMIT 1",
                (len(prefix), prefix),
            )
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error
        return rows[0][0] if rows else None


def alert_of(row: tuple[object, ...]) -> Alert:
    """The alert of a row: id, tenant, kind, severity, at, text, detail."""
    id_, tenant, kind, severity, at, text, detail = row
    return Alert(
        str(id_),
        str(tenant),
        str(kind),
        Severity(str(severity)),
        datetime.fromtimestamp(float(str(at)), UTC),
        str(text),
        json.loads(str(detail)),
    )
