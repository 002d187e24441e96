"""Suspensions: in force, stored, recorded, and told of; each once for what it was made for."""

import json
import logging
import sqlite3
from threading import RLock
from typing import Final

from control.alerts.alert import Raise
from control.state.clock import Clock, at, parse, text
from control.state.errors import StateRefused, StateUnavailable
from control.state.journal import Content, Entry, Journal
from control.state.outbox import Outbox
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import SYSTEM, Actor
from credentials.revocation import check_reason
from credentials.suspension import Suspension, Suspensions

logger = logging.getLogger("exeat.state")

SUSPENDED: Final = "account.suspend"
RESUMED: Final = "account.resume"
_WHOLE: Final = ""
"""In place of an account's name, in the database: the whole tenant."""


class SuspensionStore:
    """Safe from any thread."""

    def __init__(self, database: Database, journal: Journal, outbox: Outbox, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._outbox = outbox
        self._clock = clock
        self._changes = RLock()
        self.current = Suspensions()
        """Replaced whole; read it anew for every call."""

    def load(self) -> None:
        """What is stored is in force. Raises `StoreUnavailable`."""
        rows = self._database.query("SELECT tenant, account, at, reason, actor FROM suspensions")
        self.current = Suspensions.of(
            Suspension(tenant, None if account == _WHOLE else account, parse(when), reason, Actor(**json.loads(actor)))
            for tenant, account, when, reason, actor in rows
        )

    def suspend(self, told: Raise, account: str | None, reason: str) -> bool:
        """Calls of the account are refused from now on, and an alert says so; None: of the whole tenant.

        False, and nothing happens, when an alert with that key was raised before: what an operator has resumed stays
        so. Raises `StateUnavailable`: nothing of it is in force, and it is to be asked for again.
        """
        with self._changes:
            try:
                with self._database.transaction() as connection:
                    put = self._outbox.put(connection, told)
                    if put is None:
                        return False
                    found = self.current.find(told.tenant, account)
                    made = found or Suspension(told.tenant, account, at(self._clock()), reason, SYSTEM)
                    entry = None if found is not None else self._insert(connection, made)
            except StoreUnavailable as error:
                raise StateUnavailable(f"a suspension could not be stored: {error}") from error
            self.current = self.current.plus(made)
            if entry is not None:
                self._record(entry)
        self._outbox.announce(put)
        return True

    def _insert(self, connection: sqlite3.Connection, made: Suspension) -> Entry:
        self._insert_row(connection, made)
        content = _content(SUSPENDED, made, made.reason, SYSTEM)
        return self._journal.put(connection, "operator.act", made.tenant, content)

    def _record(self, entry: Entry) -> None:
        try:
            self._journal.record(entry)
        except StateUnavailable as error:
            logger.error("a suspension is in force and not on record yet: %s", error.message)

    def resume(self, tenant: str, account: str | None, reason: str, actor: Actor) -> int:
        """Calls are let out again, once this is stored and recorded; the record's number.

        Raises `RevocationRefused` for a reason that is none, `StateRefused` when it is not suspended, and
        `StateUnavailable`: it still is.
        """
        check_reason(reason)
        with self._changes:
            found = self.current.find(tenant, account)
            if found is None:
                raise StateRefused("not_suspended", f"{account or f'tenant {tenant}'} is not suspended")
            self._record_late(found)
            try:
                with self._database.transaction() as connection:
                    self._delete_row(connection, found)
                    content = _content(RESUMED, found, reason, actor)
                    entry = self._journal.put(connection, "operator.act", tenant, content)
            except StoreUnavailable as error:
                raise StateUnavailable(f"it could not be stored; {found} stays suspended: {error}") from error
            try:
                receipt = self._journal.record(entry)
            except StateUnavailable as error:
                self._undo(found, entry, error)
                raise StateUnavailable(f"{error.message}; {found} stays suspended") from error
            self.current = self.current.minus(found)
            return receipt.seq

    def _record_late(self, found: Suspension) -> None:
        """That it was suspended is on record before that it was resumed: the ledger's last word is what holds."""
        content = _content(SUSPENDED, found, found.reason, found.actor)
        try:
            for entry in self._journal.entries():
                if (entry.tenant, entry.content, entry.withdrawn) == (found.tenant, content, False):
                    self._journal.record(entry)
        except StoreUnavailable as error:
            raise StateUnavailable(f"{found} stays suspended: {error}") from error
        except StateUnavailable as error:
            raise StateUnavailable(f"{error.message}; {found} stays suspended") from error

    def _undo(self, found: Suspension, entry: Entry, cause: StateUnavailable) -> None:
        try:
            with self._database.transaction() as connection:
                self._insert_row(connection, found)
                self._journal.withdraw(connection, entry)
        except StoreUnavailable as error:
            raise StateUnavailable(
                f"{cause.message}; {found} stays suspended until a restart, for it could not be undone either: {error}"
            ) from cause

    @staticmethod
    def _insert_row(connection: sqlite3.Connection, one: Suspension) -> None:
        connection.execute(
            "INSERT INTO suspensions (tenant, account, at, reason, actor) VALUES (?, ?, ?, ?, ?)",
            (one.tenant, one.account or _WHOLE, text(one.at), one.reason, json.dumps(one.actor.as_record())),
        )

    @staticmethod
    def _delete_row(connection: sqlite3.Connection, one: Suspension) -> None:
        connection.execute(
            "DELETE FROM suspensions WHERE tenant = ? AND account = ?", (one.tenant, one.account or _WHOLE)
        )


def contradiction(content: Content) -> Content:
    """What ends the record of a resumption that was not carried out: the account is suspended as before."""
    detail = content["detail"]
    if not isinstance(detail, dict):
        raise TypeError("the detail of an act is an object")
    again = {**detail, "reason": "that it was resumed was not confirmed"}
    return {"act": SUSPENDED, "actor": SYSTEM.as_record(), "detail": again}


def _content(act: str, one: Suspension, reason: str, actor: Actor) -> Content:
    detail = {"account": one.account or "*", "reason": reason}
    return {"act": act, "actor": actor.as_record(), "detail": detail}
