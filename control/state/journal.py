"""Changes and their records, so that neither exists without the other.

A record is first put into the database in the transaction of the change it tells of. Then it is submitted to the
ledger, and once durable there, forgotten here. What a crash leaves is compared with the ledger at the next start
(`control.state.recovery`) and submitted if it is not there.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from control.state.errors import RecordImpossible, StateUnavailable
from control.state.ledger_port import LedgerPort
from control.stores.sqlite import Database, StoreUnavailable
from ledger import LedgerError, Receipt, RecordRefused

logger = logging.getLogger("exeat.state")

LEDGER_SECONDS: Final = 10.0
"""An operator waits; a group commit takes milliseconds. Longer than this, the disk hangs."""

type Content = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that has to be in the ledger, because its change is in the database."""

    id: int
    type: str
    tenant: str
    content: Content
    after_size: int
    """The ledger had this many records when the entry was made: it cannot be among them."""
    withdrawn: bool = False
    """The change was undone because its record was not known to be durable; if it is after all, that is corrected."""


class Journal:
    """Writes records for changes. Safe from any thread."""

    def __init__(self, database: Database, ledger: LedgerPort) -> None:
        self._database = database
        self._ledger = ledger

    def put(self, connection: sqlite3.Connection, type_: str, tenant: str, content: Content) -> Entry:
        """The record is part of the transaction of `connection`."""
        size = self._ledger.head().size
        cursor = connection.execute(
            "INSERT INTO pending_records (after_size, type, tenant, content) VALUES (?, ?, ?, ?)",
            (size, type_, tenant, json.dumps(content)),
        )
        return Entry(cursor.lastrowid or 0, type_, tenant, content, size)

    def record(self, entry: Entry, afterwards: Callable[[sqlite3.Connection, Receipt], None] | None = None) -> Receipt:
        """The entry's record is durable in the ledger. Raises `StateUnavailable` when that is not certain.

        `afterwards` adds to the transaction in which the entry is forgotten; recovery must be able to do without it.
        """
        receipt = self.submit(entry.type, entry.tenant, entry.content)
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM pending_records WHERE id = ?", (entry.id,))
                if afterwards is not None:
                    afterwards(connection, receipt)
        except StoreUnavailable as error:
            # It is recorded and stored; recovery finds it in the ledger and tidies up.
            logger.warning("record %d: its journal entry could not be removed: %s", receipt.seq, error)
        return receipt

    def submit(self, type_: str, tenant: str, content: Content) -> Receipt:
        """A record of its own, durable. Raises `StateUnavailable` when that is not certain."""
        try:
            future: Future[Receipt] = self._ledger.submit(type_, tenant, content)
            return future.result(LEDGER_SECONDS)
        except RecordRefused as error:
            raise RecordImpossible(f"{type_} cannot be recorded: {error}") from error
        except LedgerError as error:
            raise StateUnavailable(f"{type_} could not be recorded: {error}") from error
        except TimeoutError as error:
            raise StateUnavailable(f"{type_} was not recorded within {LEDGER_SECONDS:.0f} s") from error

    def withdraw(self, connection: sqlite3.Connection, entry: Entry) -> None:
        """The change has been undone in this transaction; the record is not submitted again."""
        connection.execute("UPDATE pending_records SET withdrawn = 1 WHERE id = ?", (entry.id,))

    def entries(self) -> tuple[Entry, ...]:
        """What waits, oldest first."""
        rows = self._database.query(
            "SELECT id, type, tenant, content, after_size, withdrawn FROM pending_records ORDER BY id"
        )
        return tuple(Entry(i, type_, tenant, json.loads(c), size, bool(w)) for i, type_, tenant, c, size, w in rows)

    def forget(self, entry: Entry) -> None:
        """The entry is settled. Raises `StoreUnavailable`."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM pending_records WHERE id = ?", (entry.id,))
