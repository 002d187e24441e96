"""What a start finds out from the ledger: which journal entries it has, which orders we lost, what limits are used up.

One pass over the records since the last snapshot of limits, or since the oldest journal entry if that is older:

(1) an entry whose record is there is forgotten; one whose record is missing is submitted again, so that what is in the
    database is in the ledger;
(2) a revocation or restore that the ledger has and the database has not is rolled forward;
(3) a change that was withdrawn, because its record was not known to be durable, and is recorded all the same, is
    contradicted by another record: the last activation in the ledger is always of the active policy;
(4) counters of limits are rebuilt;
(5) a record of an opening that the database does not know of says that the database is an older copy: refused.
"""

import logging
from dataclasses import dataclass, field
from typing import Any, cast

from control.state.errors import RecordImpossible, StateInvalid
from control.state.journal import Entry, Journal
from control.state.ledger_port import LedgerPort
from control.state.policies import Policies
from control.state.revocations import Order, StopOrders
from control.state.suspensions import RESUMED, contradiction
from control.stores.limits import EmbeddedReservations
from control.stores.limits_replay import LimitsSnapshot, LimitsStore, Replay, SnapshotRefused
from credentials.actor import SYSTEM
from credentials.revocation import RevocationRefused, Target, TargetKind
from ledger import LedgerRefused, Record, read_records

logger = logging.getLogger("exeat.state")

_ORDERS = ("revocation.issue", "revocation.restore")
OPENED = "state.open"
"""The act that numbers the times a state was opened, in its database and in its ledger."""


@dataclass(slots=True)
class Recovery:
    """One start's reconciliation. `run` once, before anything else uses the state."""

    ledger: LedgerPort
    journal: Journal
    policies: Policies
    orders: StopOrders
    limits: LimitsStore
    reservations: EmbeddedReservations
    opened: int
    """How often the state was opened before, as its database knows."""
    _found: dict[int, int] = field(default_factory=dict)
    """Journal entry to the seq of its record."""
    _activated: tuple[str, int] | None = None

    def run(self) -> None:
        """Database and ledger agree, and limits are counted. Raises `StateInvalid` or `StateUnavailable`."""
        entries = self.journal.entries()
        snapshot = self.limits.load()
        head = self.ledger.head().size
        if snapshot is not None and snapshot.size > head:
            raise StateInvalid(
                f"the database knows {snapshot.size} records, the ledger has {head}", "Restore the newest ledger."
            )
        try:
            self._read(entries, snapshot)
        except SnapshotRefused as error:
            raise StateInvalid(str(error), "Restore the database from its backup.") from error
        except LedgerRefused as error:
            raise StateInvalid(f"the ledger cannot be read: {error}", "Run: exeat ledger verify") from error
        for entry in entries:
            self._settle(entry)
        self._agree_on_policy()

    def _read(self, entries: tuple[Entry, ...], snapshot: LimitsSnapshot | None) -> None:
        replay = Replay(self.policies.active.policy)
        counted = 0
        if snapshot is not None:
            replay.start(snapshot)
            counted = snapshot.size
        known = self.orders.known()
        waiting = list(entries)
        # (1) an entry's record lies behind the size that the entry names; (4) reads on from the snapshot
        start = min([counted, *(entry.after_size for entry in entries)])
        for record in read_records(self.ledger.directory, start=start):
            self._refuse_older(record)
            if record.seq >= counted:
                replay.feed(record.body)
            for entry in waiting:
                if _is_record_of(entry, record):
                    self._found[entry.id] = record.seq
                    waiting.remove(entry)
                    break
            if record.type == "policy.activate":
                self._activated = (str(record.body["policy"]), record.seq)
            elif record.type in _ORDERS and record.body["epoch"] not in known:
                self._roll_forward(record)
        replay.finish(self.reservations)

    def _refuse_older(self, record: Record) -> None:
        """(5) The snapshot of an older copy lies before that record, so reading comes by."""
        if record.type != "operator.act" or record.body["act"] != OPENED:
            return
        number = int(cast("dict[str, str]", record.body["detail"])["number"])
        if number > self.opened:
            raise StateInvalid(
                f"the ledger knows opening {number} of this state, the database {self.opened}: it was restored",
                "Restore the newest database.",
            )

    def _roll_forward(self, record: Record) -> None:
        """(2)"""
        try:
            order = Order.from_record(record.body)
        except RevocationRefused as error:
            raise StateInvalid(f"record {record.seq} names no target: {error}", "Run: exeat ledger verify") from error
        logger.warning("epoch %d: taken over from record %d", order.epoch, record.seq)
        self.orders.roll_forward(order)

    def _settle(self, entry: Entry) -> None:
        """(1)"""
        seq = self._found.get(entry.id)
        if entry.withdrawn:
            if seq is not None:
                self._contradict(entry)
        else:
            if seq is None:
                seq = self._record(entry)
            if entry.type == "policy.activate" and seq is not None:
                self._activated = (str(entry.content["policy"]), seq)
        self.journal.forget(entry)

    def _record(self, entry: Entry) -> int | None:
        try:
            seq = self.journal.submit(entry.type, entry.tenant, entry.content).seq
        except RecordImpossible as error:
            # Refused for its form, it would be refused at every start, and nothing could be opened any more.
            logger.error("%s", error)
            content = {"act": "journal.drop", "actor": SYSTEM.as_record(), "detail": {"type": entry.type}}
            self.journal.submit("operator.act", "-", content)
            return None
        logger.warning("%s of an interrupted change: recorded as %d", entry.type, seq)
        return seq

    def _contradict(self, entry: Entry) -> None:
        """(3) The operator was told that this did not happen, and the ledger says that it did: a record ends it."""
        logger.warning("%s was withdrawn, but is recorded: it is recorded that it does not hold", entry.type)
        if entry.type == "secret.set":
            content = {**entry.content, "actor": SYSTEM.as_record()}
            self.journal.submit("secret.remove", entry.tenant, content)
        elif entry.type == "revocation.restore":
            named = cast("dict[str, Any]", entry.content["target"])
            target = Target(TargetKind(named["kind"]), named["tenant"], named["name"])
            self.orders.revoke(target, f"the restore of epoch {entry.content['epoch']} was not confirmed", SYSTEM)
        elif entry.content.get("act") == RESUMED:
            self.journal.submit("operator.act", entry.tenant, contradiction(entry.content))

    def _agree_on_policy(self) -> None:
        """(3)"""
        active = self.policies.active.digest
        last, seq = self._activated or (None, 0)
        if last == active:
            if last is not None:
                self.policies.note_seq(last, seq)
        elif active is not None:
            if last is None and self.policies.active.seq:
                return  # recorded before the place where reading began
            content: dict[str, object] = {"policy": active, "previous": last, "actor": SYSTEM.as_record(), "files": []}
            self.policies.note_seq(active, self.journal.submit("policy.activate", "-", content).seq)
        elif last is None or not self.policies.adopt(last, seq):
            # There is no record for "no policy", so a first policy that is recorded is taken over where it is stored.
            raise StateInvalid(
                f"the ledger says that policy {last} is active, the database does not have it",
                "Restore the newest database.",
            )


def _is_record_of(entry: Entry, record: Record) -> bool:
    return (
        record.seq >= entry.after_size
        and record.type == entry.type
        and record.tenant == entry.tenant
        and all(record.body.get(name) == value for name, value in entry.content.items())
    )
