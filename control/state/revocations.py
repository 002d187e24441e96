"""Revocations: in force first, then stored, then recorded."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from control.state.clock import Clock, at, parse, text
from control.state.errors import RevocationIncomplete, StateRefused, StateUnavailable
from control.state.journal import Content, Entry, Journal
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import Actor
from credentials.revocation import RevocationRefused, Revocations, Target, TargetKind


@dataclass(frozen=True, slots=True)
class RevocationDone:
    """A stop order is in force, stored and recorded."""

    epoch: int
    seq: int
    at: datetime
    target: Target


@dataclass(frozen=True, slots=True)
class RestoreDone:
    """A target may be issued credentials again; stored and recorded."""

    epoch: int
    seq: int
    at: datetime
    target: Target


@dataclass(frozen=True, slots=True)
class Order:
    """A revocation or a restore, as stored."""

    epoch: int
    act: str
    """`revoke`, `restore`, or `void`: an epoch that was taken for a restore which was not carried out."""
    target: Target
    at: datetime
    reason: str
    actor: Actor

    def content(self) -> Content:
        """Its record."""
        return {
            "epoch": self.epoch,
            "target": self.target.as_record(),
            "reason": self.reason,
            "actor": self.actor.as_record(),
        }

    @property
    def type(self) -> str:
        """Its record's type."""
        return "revocation.issue" if self.act == "revoke" else "revocation.restore"

    @property
    def tenant(self) -> str:
        """Its record's tenant."""
        return self.target.tenant or "-"

    @classmethod
    def from_record(cls, body: dict[str, Any]) -> "Order":
        """The order that a record of the ledger tells of."""
        target, actor = body["target"], body["actor"]
        return cls(
            body["epoch"],
            "revoke" if body["type"] == "revocation.issue" else "restore",
            Target(TargetKind(target["kind"]), target["tenant"], target["name"]),
            parse(body["ts"]),
            body["reason"],
            Actor(actor["kind"], actor["id"], actor["name"]),
        )


class StopOrders:
    """The newest snapshot of revocations, and how it changes. Safe from any thread; a revocation waits for nothing."""

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._swap = Lock()
        self._unstored: list[Order] = []
        self._recorded: set[int] = set()
        """Epochs of orders that were recorded although they could not be stored."""
        self._entries: dict[int, Entry] = {}
        """Journal entries of stored orders, until whoever gave the order takes them."""
        self.current = Revocations()
        """Replaced whole; read it anew for every request."""

    def load(self) -> None:
        """Every stored order is in force."""
        for order in self._stored():
            self._follow(order)

    def revoke(
        self, target: Target, reason: str, actor: Actor, in_force: Callable[[int], None] | None = None
    ) -> RevocationDone:
        """From the first moment of this call nothing that matches `target` is identified any more.

        `in_force` hears of it, with the epoch, before the disk is touched; what it raises is raised after all is
        written. Raises `RevocationRefused` (nothing happened) or `RevocationIncomplete` (in force, but not written).
        """
        with self._swap:
            now = at(self._clock())
            self.current = self.current.revoke(target, now, reason, actor)
            order = Order(self.current.epoch, "revoke", target, now, reason, actor)
            self._unstored.append(order)
        try:
            if in_force is not None:
                in_force(order.epoch)
        finally:
            done = self._write(order)
        return done

    def _write(self, order: Order) -> RevocationDone:
        entry, cause = None, ""
        try:
            self.store()
            entry = self._entries.pop(order.epoch)
        except (StoreUnavailable, sqlite3.IntegrityError) as error:
            cause = str(error)
        try:
            # What cannot be stored is recorded all the same: recovery stores it from there.
            receipt = (
                self._journal.submit(order.type, order.tenant, order.content())
                if entry is None
                else self._journal.record(entry)
            )
        except StateUnavailable as error:
            cause = "; ".join(part for part in (cause, error.message) if part)
            raise RevocationIncomplete(order.epoch, stored=entry is not None, recorded=False, cause=cause) from error
        if entry is None:
            self._recorded.add(order.epoch)
            raise RevocationIncomplete(order.epoch, stored=False, recorded=True, cause=cause)
        return RevocationDone(order.epoch, receipt.seq, order.at, order.target)

    def restore(self, target: Target, reason: str, actor: Actor) -> RestoreDone:
        """Credentials may be issued to the target again, once this is stored and recorded; older ones stay dead.

        Raises `StateRefused` when there is nothing to restore, `StateUnavailable` when it is not in force.
        """
        with self._swap:
            now = at(self._clock())
            try:
                reopened = self.current.restorable(target)
                self.current.restore(target, now, reason, actor)  # judges the reason too
            except RevocationRefused as error:
                raise StateRefused("not_revoked", str(error)) from error
            # The epoch is taken, so that a revocation in the meantime comes after it; the target stays closed.
            self.current = self.current.skip_to(self.current.epoch + 1)
            order = Order(self.current.epoch, "restore", target, now, reason, actor)
        try:
            self.store()
            with self._database.transaction() as connection:
                entry = self._insert(connection, order)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the restore could not be stored; {target} stays revoked: {error}") from error
        try:
            receipt = self._journal.record(entry)
        except StateUnavailable as error:
            self._undo(order, entry, error)
            raise StateUnavailable(f"{error.message}; {target} stays revoked") from error
        with self._swap:
            self.current = self.current.reopen(reopened)
        return RestoreDone(order.epoch, receipt.seq, now, target)

    def store(self) -> None:
        """Every order in force is stored. Raises `StoreUnavailable`.

        Also called before a snapshot of limits moves the place from which recovery reads the ledger.
        """
        with self._database.transaction() as connection:
            with self._swap:
                waiting = list(self._unstored)
            entries: dict[int, Entry] = {}
            for order in waiting:
                if order.epoch in self._recorded:
                    self._insert_row(connection, order)
                else:
                    entries[order.epoch] = self._insert(connection, order)
        with self._swap:
            self._entries.update(entries)
            self._unstored = [order for order in self._unstored if order not in waiting]

    def roll_forward(self, order: Order) -> None:
        """An order that the ledger has and the database had lost is in force and stored. Only while opening."""
        with self._database.transaction() as connection:
            self._insert_row(connection, order)
        self.current = Revocations()
        self.load()

    def known(self) -> frozenset[int]:
        """The epochs of all stored orders."""
        return frozenset(row[0] for row in self._database.query("SELECT epoch FROM orders"))

    def _follow(self, order: Order) -> None:
        before = self.current.skip_to(order.epoch - 1)
        if order.act == "revoke":
            self.current = before.revoke(order.target, order.at, order.reason, order.actor)
            return
        after = before.skip_to(order.epoch)
        reopened = before.find(order.target) if order.act == "restore" else None
        self.current = after if reopened is None else after.reopen(reopened)

    def _stored(self) -> list[Order]:
        rows = self._database.query(
            "SELECT epoch, act, kind, tenant, name, at, reason, actor FROM orders ORDER BY epoch"
        )
        return [
            Order(epoch, act, Target(TargetKind(kind), tenant, name), parse(when), reason, Actor(**json.loads(actor)))
            for epoch, act, kind, tenant, name, when, reason, actor in rows
        ]

    def _insert(self, connection: sqlite3.Connection, order: Order) -> Entry:
        self._insert_row(connection, order)
        return self._journal.put(connection, order.type, order.tenant, order.content())

    @staticmethod
    def _insert_row(connection: sqlite3.Connection, order: Order) -> None:
        target = order.target
        connection.execute(
            "INSERT INTO orders (epoch, act, kind, tenant, name, at, reason, actor) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.epoch,
                order.act,
                target.kind.value,
                target.tenant,
                target.name,
                text(order.at),
                order.reason,
                json.dumps(order.actor.as_record()),
            ),
        )

    def _undo(self, order: Order, entry: Entry, cause: StateUnavailable) -> None:
        try:
            with self._database.transaction() as connection:
                connection.execute("UPDATE orders SET act = 'void' WHERE epoch = ?", (order.epoch,))
                self._journal.withdraw(connection, entry)
        except StoreUnavailable as error:
            raise StateUnavailable(
                f"{cause.message}; {order.target} stays revoked until a restart, after which it may be restored, for "
                f"the order could not be undone either: {error}"
            ) from cause
