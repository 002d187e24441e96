"""Alerts that were raised, and what of them is still to be delivered: in the database, and in the ledger.

An alert, its deliveries and the journal's entry of its record are one transaction, so a crash leaves all or nothing of
it. A delivery happens at least once: it is told as done after the receiver took it.
"""

import json
import logging
import random
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from control.alerts.alert import INSTALLATION, MAX_MEMBERS, MAX_TEXT, MAX_VALUE, Alert, Raise, one_line
from control.state.clock import Clock
from control.state.errors import StateUnavailable
from control.state.journal import Entry, Journal
from control.state.outbox_reading import DELIVERED, DROPPED, GIVEN_UP, WAITING, OutboxReader, alert_of
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import SYSTEM
from rules.alerts.destination import LOG, AlertDestination
from rules.policy.compile import PolicySet

logger = logging.getLogger("exeat.alert")

RAISED: Final = "alert.raise"
UNDELIVERED: Final = "alert.undelivered"
KEPT_SECONDS: Final = 400 * 86_400
"""So long a key is known that an alert is raised once for; the longest window is a month, the rest is for reading."""
KEPT: Final = 100_000
"""Alerts; older ones go, whatever became of them."""
CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a delivery is tried."""

    first_seconds: float = 5.0
    longest_seconds: float = 3600.0
    end_seconds: float = 3 * 86_400.0
    """After so long a delivery is given up."""
    most_waiting: int = 1000
    """For one destination; beyond it the oldest is dropped."""

    def pause(self, attempts: int) -> float:
        """Until the next attempt: doubling, and anything from half of it to all of it."""
        whole = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 30))
        return whole * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, hides nothing


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery whose time has come."""

    alert: Alert
    tenant: str
    """Of the destination."""
    destination: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Put:
    """An alert that is part of a transaction; hand it to `announce` once that is durable."""

    alert: Alert
    entries: tuple[Entry, ...]


class Outbox:
    """Safe from any thread."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        clock: Clock,
        policy: Callable[[], PolicySet | None],
        patience: Patience | None = None,
    ) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._policy = policy
        self.patience = patience or Patience()
        self.wake: Callable[[], None] = lambda: None
        """Called from any thread when there is something to deliver."""
        self.read = OutboxReader(database, clock, policy)

    # --- raising ---

    def raise_alert(self, wanted: Raise, only: str | None = None) -> Alert | None:
        """The alert is durable and will be delivered, to one destination alone where `only` names it; None when one
        with its key was raised before.

        Raises `StateUnavailable` when it is not.
        """
        try:
            with self._database.transaction() as connection:
                put = self.put(connection, wanted, only)
        except StoreUnavailable as error:
            raise StateUnavailable(f"an alert could not be stored: {error}") from error
        if put is None:
            return None
        self.announce(put)
        return put.alert

    def put(self, connection: sqlite3.Connection, wanted: Raise, only: str | None = None) -> Put | None:
        """The alert is part of the transaction of `connection`; None when one with its key was raised before."""
        if (
            wanted.once is not None
            and connection.execute("SELECT 1 FROM alerts WHERE once = ?", (wanted.once,)).fetchone()
        ):
            return None
        now = self._clock()
        detail = {
            name: one_line(value, MAX_VALUE) for name, value in list(wanted.detail.items())[:MAX_MEMBERS] if value
        }
        text = one_line(wanted.text, MAX_TEXT)
        alert = Alert(
            f"al_{secrets.token_hex(12)}", wanted.tenant, wanted.kind, wanted.severity,
            datetime.fromtimestamp(now, UTC), text, detail,
        )  # fmt: skip
        connection.execute(
            "INSERT INTO alerts (id, once, tenant, kind, severity, at, text, detail) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (alert.id, wanted.once, alert.tenant, alert.kind, str(alert.severity), now, text, json.dumps(detail)),
        )
        entries = [self._entry(connection, RAISED, alert.tenant, _raised(alert))]
        for tenant, name in self._destinations(alert.tenant):
            if only not in (None, name):
                continue
            connection.execute(
                "INSERT INTO deliveries (alert, tenant, destination, state, next_at, at) VALUES (?, ?, ?, ?, ?, ?)",
                (alert.id, tenant, name, WAITING, now, now),
            )
            entries += self._make_room(connection, tenant, name)
        return Put(alert, tuple(entries))

    def announce(self, put: Put) -> None:
        """What was made durable is recorded and on its way."""
        self._record(put.entries)
        self.wake()

    def _destinations(self, tenant: str) -> Iterable[tuple[str, str]]:
        yield tenant, LOG
        policy = self._policy()
        for of_tenant in () if policy is None else policy.tenants.values():
            for destination in of_tenant.alerts.values():
                if of_tenant.tenant == tenant or (tenant == INSTALLATION and destination.installation):
                    yield of_tenant.tenant, destination.name

    def _make_room(self, connection: sqlite3.Connection, tenant: str, destination: str) -> list[Entry]:
        """No more wait than may; the oldest went. Recorded as they become ten times as many."""
        where = (tenant, destination, WAITING)
        waiting = connection.execute(
            "SELECT count(*) FROM deliveries WHERE tenant = ? AND destination = ? AND state = ?", where
        ).fetchone()[0]
        if waiting <= self.patience.most_waiting:
            return []
        (alert,) = connection.execute(
            "SELECT alert FROM deliveries WHERE tenant = ? AND destination = ? AND state = ?"
            " ORDER BY at, rowid LIMIT 1",
            where,
        ).fetchone()
        told = f"more than {self.patience.most_waiting} waited for it"
        self._set(connection, alert, tenant, destination, DROPPED, told)
        dropped = connection.execute(
            "SELECT count(*) FROM deliveries WHERE tenant = ? AND destination = ? AND state = ?",
            (tenant, destination, DROPPED),
        ).fetchone()[0]
        if str(dropped).strip("0") != "1":
            return []
        logger.error("alerts for %s/%s are dropped: %s; %d so far", tenant, destination, told, dropped)
        return [self._undelivered(connection, alert, tenant, destination, "dropped", dropped, told)]

    # --- delivering ---

    def due(self, busy: Iterable[tuple[str, str]] = ()) -> tuple[list[Due], float | None]:
        """What may be tried now, at most one for each destination that is not busy; and when the next one may be."""
        now = self._clock()
        taken = set(busy)
        try:
            rows = self._database.query(
                "SELECT a.id, a.tenant, a.kind, a.severity, a.at, a.text, a.detail, d.tenant, d.destination,"
                " d.attempts, min(d.next_at) FROM deliveries d JOIN alerts a ON a.id = d.alert WHERE d.state = ?"
                " GROUP BY d.tenant, d.destination",
                (WAITING,),
            )
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error
        free = [row for row in rows if (row[7], row[8]) not in taken]
        found = [Due(alert_of(row[:7]), row[7], row[8], row[9]) for row in free if row[10] <= now]
        later = [row[10] - now for row in free if row[10] > now]
        return found, min(later, default=None)

    def destination(self, due: Due) -> AlertDestination | None:
        """Where it goes, as the policy says now; None: nowhere any more."""
        policy = self._policy()
        of_tenant = None if policy is None else policy.tenants.get(due.tenant)
        return None if of_tenant is None else of_tenant.alerts.get(due.destination)

    def delivered(self, due: Due, told: str) -> None:
        """The receiver has it. Raises `StateUnavailable`: then it will have it twice."""
        self._change(due, DELIVERED, told, None)

    def failed(self, due: Due, told: str, *, for_good: bool = False) -> str:
        """The attempt failed; it waits for the next, or is given up. Returns which. Raises `StateUnavailable`."""
        age = self._clock() - due.alert.at.timestamp()
        pause = self.patience.pause(due.attempts + 1)
        over = for_good or age + pause > self.patience.end_seconds
        state = GIVEN_UP if over else WAITING
        result = "given_up" if over else "failed" if due.attempts == 0 else None
        self._change(due, state, told, result, pause)
        return state

    def _change(self, due: Due, state: str, told: str, result: str | None, pause: float = 0.0) -> None:
        entries = []
        try:
            with self._database.transaction() as connection:
                self._set(connection, due.alert.id, due.tenant, due.destination, state, told, due.attempts + 1, pause)
                if result is not None:
                    entries.append(
                        self._undelivered(
                            connection, due.alert.id, due.tenant, due.destination, result, due.attempts + 1, told
                        )
                    )
        except StoreUnavailable as error:
            raise StateUnavailable(f"what became of an alert could not be stored: {error}") from error
        self._record(entries)

    def _set(
        self,
        connection: sqlite3.Connection,
        alert: str,
        tenant: str,
        destination: str,
        state: str,
        told: str,
        attempts: int | None = None,
        pause: float = 0.0,
    ) -> None:
        now = self._clock()
        connection.execute(
            "UPDATE deliveries SET state = ?, told = ?, attempts = coalesce(?, attempts), next_at = ?, at = ?"
            " WHERE alert = ? AND tenant = ? AND destination = ? AND state = ?",
            (state, one_line(told, MAX_VALUE), attempts, now + pause, now, alert, tenant, destination, WAITING),
        )

    # --- records ---

    def _undelivered(
        self,
        connection: sqlite3.Connection,
        alert: str,
        tenant: str,
        destination: str,
        result: str,
        number: int,
        told: str,
    ) -> Entry:
        detail = {
            "alert": alert,
            "destination": destination,
            "result": result,
            "dropped" if result == "dropped" else "attempts": str(number),
            "why": one_line(told, MAX_VALUE),
        }
        return self._entry(connection, UNDELIVERED, tenant, detail)

    def _entry(self, connection: sqlite3.Connection, act: str, tenant: str, detail: dict[str, str]) -> Entry:
        content = {"act": act, "actor": SYSTEM.as_record(), "detail": detail}
        return self._journal.put(connection, "operator.act", tenant, content)

    def _record(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            try:
                self._journal.record(entry)
            except StateUnavailable as error:
                # It is in the journal: the next start records it. An alert must come through a ledger that has halted.
                logger.error("an alert is not on record yet: %s", error.message)

    def prune(self) -> None:
        """What is older than is kept is gone. Raises `StateUnavailable`."""
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM alerts WHERE at < ?", (self._clock() - KEPT_SECONDS,))
                connection.execute(
                    "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts ORDER BY at DESC LIMIT -1 OFFSET ?)", (KEPT,)
                )
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error


def _raised(alert: Alert) -> dict[str, str]:
    fixed = {"alert": alert.id, "kind": alert.kind, "severity": str(alert.severity), "text": alert.text}
    return {**{f"about.{name}": value for name, value in alert.detail.items()}, **fixed}
