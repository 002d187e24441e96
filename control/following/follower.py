"""Reads the ledger after the calls, and lets folds make of it what people want to know.

Nothing of it is on a call's way. Each fold says how many records it has counted, in the transaction that stores what it
made of them: so a record is counted once, whenever this process dies. The file may be removed: everything is counted
again from the ledger's beginning.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Final, Protocol

from control.stores.sqlite import Database, Schema, StoreRefused, StoreUnavailable
from ledger import Cursor, LedgerError, Record

logger = logging.getLogger("exeat.following")

APPLICATION_ID: Final = 0x4558464F  # "EXFO"
LOOK_SECONDS: Final = 0.5
CHUNK: Final = 500
"""Records in one transaction."""
REST_SECONDS: Final = 0.02
"""Between two chunks of a backlog: the gate's thread is not kept from its work."""

_FOLDS: Final = "CREATE TABLE folds (name TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID"


class Fold(Protocol):
    """Makes something of the records, in the follower's database."""

    name: str
    tables: tuple[str, ...]
    """Statements that make its tables. A change of them is another `name`: then everything is counted anew."""

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        """The records are counted, in order. Whatever it keeps besides is as the database says once this has failed."""
        ...

    def begin(self, rows: sqlite3.Connection) -> None:
        """What it keeps in memory is what the database says. Called at the start, and after a failure."""
        ...


class Follower:
    """One per state. Any thread."""

    def __init__(self, path: Path, ledger: Path, folds: Sequence[Fold], size: Callable[[], int]) -> None:
        """`size` tells the number of durable records."""
        self._path = path
        self._ledger = ledger
        self._folds = tuple(folds)
        self._size = size
        self._lock = RLock()
        self._database: Database | None = None
        self._sizes: dict[str, int] = {}
        self._cursor: Cursor | None = None
        self._held: list[Record] = []
        """Read, and not known to be durable yet."""
        self._stop = Event()
        self._thread: Thread | None = None
        self.fault: str | None = None
        """Why nothing is counted now; None when it is."""

    def start(self) -> None:
        """The ledger is followed from now on, by an own thread."""
        self._thread = Thread(target=self._run, name="following", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Nothing is followed any more; what was counted is stored. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def gauges(self) -> dict[str, float]:
        """For the metrics."""
        lag = 0 if not self._sizes else max(0, self._size() - min(self._sizes.values()))
        return {"following_lag_records": lag, "following_failed": float(self.fault is not None)}

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know."""
        return () if self.fault is None else (f"spending and alerts are not up to date: {self.fault}",)

    def caught_up(self) -> Database:
        """The database, with every record counted that was durable when this was called.

        Raises `StoreUnavailable` and `LedgerError`.
        """
        with self._lock:
            database = self._opened()
            until = self._size()
            while min(self._sizes.values()) < until and self._step(database):
                pass
            return database

    # the thread

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                while not self._stop.is_set() and self._look():
                    self._stop.wait(REST_SECONDS)
                self.fault = None
            except (StoreUnavailable, StoreRefused, LedgerError, OSError) as error:
                self._failed(str(error))
            except Exception as error:
                # Folds share a transaction: one that fails holds the others up, and status says so.
                self._failed(f"{type(error).__name__}")
                logger.exception("a fold of the ledger has failed; it is tried again")

    def _failed(self, why: str) -> None:
        if self.fault != why:
            logger.error("the ledger cannot be followed now: %s", why)
        self.fault = why
        self._stop.wait(LOOK_SECONDS * 4)

    def _look(self) -> bool:
        """One chunk; False when there is little or nothing more, which is left for the next look: a transaction for a
        handful of records costs as much as one for hundreds."""
        with self._lock:
            if self._size() <= min(self._sizes.values(), default=0) and self._database is not None:
                return False
            return self._step(self._opened()) and self._size() - min(self._sizes.values()) >= CHUNK

    def _opened(self) -> Database:
        if self._database is None:
            database = Database.open(self._path, self._schema())
            try:
                self._begin(database)
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _schema(self) -> Schema:
        return Schema(APPLICATION_ID, ((_FOLDS,),), synchronous="NORMAL")

    def _begin(self, database: Database) -> None:
        known = dict(database.query("SELECT name, size FROM folds"))
        with database.transaction() as rows:
            for fold in self._folds:
                # Of a ledger that was cut back, or of another one: nothing that was counted holds.
                if known.get(fold.name, self._size() + 1) > self._size():
                    _forget(rows, fold)
                    for statement in fold.tables:
                        rows.execute(statement)
                    rows.execute("INSERT OR REPLACE INTO folds (name, size) VALUES (?, 0)", (fold.name,))
                fold.begin(rows)
        sizes = dict(database.query("SELECT name, size FROM folds"))
        self._sizes = {fold.name: sizes[fold.name] for fold in self._folds}
        self._held = []
        self._cursor = Cursor(self._ledger, min(self._sizes.values(), default=0))

    def _step(self, database: Database) -> bool:
        cursor = self._cursor
        if cursor is None:
            raise StoreUnavailable("the ledger is not followed")
        try:
            found = self._held or cursor.read(CHUNK)
            # What a power failure can take back is not counted before it cannot.
            durable = self._size()
            records = [record for record in found if record.seq < durable]
            self._held = found[len(records) :]
            if not records:
                return False
            end = records[-1].seq + 1
            with database.transaction() as rows:
                for fold in self._folds:
                    fold.feed(rows, [record for record in records if record.seq >= self._sizes[fold.name]])
                rows.executemany(
                    "UPDATE folds SET size = ? WHERE name = ? AND size < ?",
                    [(end, fold.name, end) for fold in self._folds],
                )
        except BaseException:
            # Nothing of the chunk was stored; what folds keep in memory may be ahead of that.
            self._database = None
            database.close()
            raise
        self._sizes = {name: max(size, end) for name, size in self._sizes.items()}
        return True


def _forget(rows: sqlite3.Connection, fold: Fold) -> None:
    for table in _tables(fold.tables):
        rows.execute(f"DROP TABLE IF EXISTS {table}")


def _tables(statements: Iterable[str]) -> list[str]:
    """The names in `CREATE TABLE name (...)`."""
    return [words[2] for words in (statement.split() for statement in statements) if words[1] == "TABLE"]
