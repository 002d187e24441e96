"""Reads the ledger after the calls, and lets folds make of it what people want to know.

Nothing of it is on a call's way. Each fold says how many records it has counted, in the transaction that stores what it
made of them: so a record is counted once, whenever this process dies. The file may be removed: everything is counted
again from the ledger's beginning. A fold that fails is left behind and tried again by itself; the others go on.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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
AGAIN_SECONDS: Final = 2.0
"""After a failure."""

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


@dataclass(slots=True)
class _Place:
    """How far one fold has come."""

    fold: Fold
    size: int
    fault: str | None = None
    """Why it was left behind; None: it is fed what is read for all."""
    cursor: Cursor | None = None
    """Where it reads by itself, once it is tried again."""
    again_at: float = 0.0


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
        self._places: tuple[_Place, ...] = ()
        self._end = 0
        """What was read for all that are not left behind."""
        self._cursor: Cursor | None = None
        self._held: list[Record] = []
        """Read, and not known to be durable yet."""
        self._stop = Event()
        self._thread: Thread | None = None
        self._fault: str | None = None
        """Why nothing at all is counted now."""

    @property
    def fault(self) -> str | None:
        """What is not counted now, and why; None when all is."""
        if self._fault is not None:
            return self._fault
        return "; ".join(f"{_called(one)}: {one.fault}" for one in self._places if one.fault is not None) or None

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
        lag = max((self._size() - one.size for one in self._places), default=0)
        return {"following_lag_records": max(0, lag), "following_failed": float(self.fault is not None)}

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know."""
        fault = self.fault
        return () if fault is None else (f"the ledger is not followed: {fault}",)

    def caught_up(self, *names: str) -> Database:
        """The database, with every record counted that was durable when this was called: by the folds of these names,
        or by all where none is named.

        Raises `StoreUnavailable` and `LedgerError`.
        """
        with self._lock:
            database = self._opened()
            until = self._size()
            while self._along() and self._end < until and self._step(database):
                pass
            for one in self._places:
                while one.fault is not None and one.fold.name in (names or (one.fold.name,)):
                    if not self._again(database, one):
                        raise StoreUnavailable(f"{_called(one)} cannot be counted now: {one.fault}")
            return database

    # the thread

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                while not self._stop.is_set() and self._look():
                    self._stop.wait(REST_SECONDS)
                self._fault = None
            except (StoreUnavailable, StoreRefused, LedgerError, OSError) as error:
                self._failed(str(error))
            except Exception as error:
                # No fold's: those are caught one by one. Nothing must end this thread while calls are made.
                self._failed(f"{type(error).__name__}")
                logger.exception("following the ledger has failed; it is tried again")

    def _failed(self, why: str) -> None:
        if self._fault != why:
            logger.error("the ledger cannot be followed now: %s", why)
        self._fault = why
        self._stop.wait(AGAIN_SECONDS)

    def _look(self) -> bool:
        """One chunk; False when there is little or nothing more for now. A handful is left for the next look: a
        transaction for it costs as much as one for hundreds."""
        with self._lock:
            database = self._opened()
            more = bool(self._along()) and self._end < self._size() and self._step(database)
            more = more and self._size() - self._end >= CHUNK
            for one in self._places:
                if one.fault is not None and time.monotonic() >= one.again_at:
                    more = self._again(database, one) or more
            return more

    def _along(self) -> list[_Place]:
        return [one for one in self._places if one.fault is None]

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
        places = []
        with database.transaction() as rows:
            for fold in self._folds:
                # Of a ledger that was cut back, or of another one: nothing that was counted holds.
                if known.get(fold.name, self._size() + 1) > self._size():
                    _forget(rows, fold)
                    for statement in fold.tables:
                        rows.execute(statement)
                    rows.execute("INSERT OR REPLACE INTO folds (name, size) VALUES (?, 0)", (fold.name,))
                    known[fold.name] = 0
                one = _Place(fold, known[fold.name])
                self._tries(rows, one, partial(fold.begin, rows))
                places.append(one)
        self._places = tuple(places)
        self._held = []
        self._end = min((one.size for one in self._along()), default=0)
        self._cursor = Cursor(self._ledger, self._end)

    def _step(self, database: Database) -> bool:
        """The next records are counted by all that are not left behind."""
        cursor = self._cursor
        if cursor is None:
            raise StoreUnavailable("the ledger is not followed")
        along = self._along()
        try:
            found = self._held or cursor.read(CHUNK)
            records = self._durable(found)
            self._held = found[len(records) :]
            if not records:
                return False
            end = records[-1].seq + 1
            with database.transaction() as rows:
                counted = [one for one in along if self._feed(rows, one, records, end)]
        except BaseException:
            self._drop(database)
            raise
        self._end = end
        for one in counted:
            one.size = max(one.size, end)
        return True

    def _again(self, database: Database, one: _Place) -> bool:
        """One that was left behind is tried again, with the records after those that it has counted; whether it can."""
        try:
            fresh = one.cursor is None
            cursor = one.cursor = one.cursor or Cursor(self._ledger, one.size)
            found = cursor.read(CHUNK)
            records = self._durable(found)
            end = records[-1].seq + 1 if records else one.size
            with database.transaction() as rows:
                begun = not fresh or self._tries(rows, one, partial(one.fold.begin, rows))
                done = begun and self._feed(rows, one, records, end)
        except BaseException:
            self._drop(database)
            raise
        if not done or (not records and end < self._end):
            return False
        one.size = end
        if len(records) < len(found):
            one.cursor = Cursor(self._ledger, end)  # what was not durable is read again
        if end >= self._end:  # what it has counted beyond the others it is not fed again
            one.fault = one.cursor = None
            logger.warning("%s follows the ledger again", _called(one))
        return True

    def _durable(self, records: list[Record]) -> list[Record]:
        """What a power failure can take back is not counted before it cannot."""
        durable = self._size()
        return [record for record in records if record.seq < durable]

    def _feed(self, rows: sqlite3.Connection, one: _Place, records: Sequence[Record], end: int) -> bool:
        new = [record for record in records if record.seq >= one.size]

        def count() -> None:
            one.fold.feed(rows, new)
            rows.execute("UPDATE folds SET size = ? WHERE name = ? AND size < ?", (end, one.fold.name, end))

        return self._tries(rows, one, count)

    def _tries(self, rows: sqlite3.Connection, one: _Place, work: Callable[[], None]) -> bool:
        """What one fold does holds or did not happen, whatever becomes of the others in the same transaction."""
        rows.execute("SAVEPOINT fold")
        try:
            work()
        except Exception as error:  # noqa: BLE001 - what a fold may raise nobody knows; it is logged, and shown
            rows.execute("ROLLBACK TO fold")
            rows.execute("RELEASE fold")
            self._leave_behind(one, error)
            return False
        rows.execute("RELEASE fold")
        return True

    def _leave_behind(self, one: _Place, error: Exception) -> None:
        # The message of what a part of this program raises on purpose; of a defect its kind alone.
        why = getattr(error, "message", "") or type(error).__name__
        if one.fault != why:
            logger.error("%s cannot follow the ledger now", _called(one), exc_info=error)
        one.fault, one.cursor, one.again_at = why, None, time.monotonic() + AGAIN_SECONDS

    def _drop(self, database: Database) -> None:
        """Nothing of the chunk was stored; what folds keep in memory may be ahead of that."""
        self._database = None
        database.close()


def _called(one: _Place) -> str:
    """`spending`."""
    return one.fold.name.partition("/")[0]


def _forget(rows: sqlite3.Connection, fold: Fold) -> None:
    for table in _tables(fold.tables):
        rows.execute(f"DROP TABLE IF EXISTS {table}")


def _tables(statements: Iterable[str]) -> list[str]:
    """The names in `CREATE TABLE name (...)`."""
    return [words[2] for words in (statement.split() for statement in statements) if words[1] == "TABLE"]
