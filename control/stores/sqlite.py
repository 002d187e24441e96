"""The database: one file, one connection, one writer.

Versions of SQLite in the field can corrupt a file when several connections write in WAL mode and one of them resets the
log; with one connection in exclusive mode nobody else can even open it. A commit is on the disk when `transaction`
returns: WAL with synchronous=FULL syncs each.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Final

APPLICATION_ID: Final = 0x45584541  # "EXEA"

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE instance (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE policies (digest TEXT PRIMARY KEY, bundle BLOB NOT NULL, stored_at TEXT NOT NULL)",
        """CREATE TABLE activations (
            id INTEGER PRIMARY KEY, digest TEXT NOT NULL REFERENCES policies (digest), previous TEXT, at TEXT NOT NULL,
            actor TEXT NOT NULL, files TEXT NOT NULL, seq INTEGER)""",
        """CREATE TABLE secrets (
            tenant TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB, thumb TEXT NOT NULL,
            at TEXT NOT NULL, actor TEXT NOT NULL, PRIMARY KEY (tenant, name, version))""",
        """CREATE TABLE orders (
            epoch INTEGER PRIMARY KEY, act TEXT NOT NULL CHECK (act IN ('revoke', 'restore', 'void')),
            kind TEXT NOT NULL, tenant TEXT, name TEXT, at TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL)""",
        """CREATE TABLE credentials (
            credential TEXT PRIMARY KEY, tenant TEXT NOT NULL, account TEXT NOT NULL, workflow TEXT NOT NULL,
            run TEXT NOT NULL, epoch INTEGER NOT NULL, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL)""",
        "CREATE INDEX credentials_by_expiry ON credentials (expires_at)",
        "CREATE TABLE commitment_keys (tenant TEXT PRIMARY KEY, sealed BLOB NOT NULL)",
        """CREATE TABLE pending_records (
            id INTEGER PRIMARY KEY AUTOINCREMENT, after_size INTEGER NOT NULL, type TEXT NOT NULL, tenant TEXT NOT NULL,
            content TEXT NOT NULL, withdrawn INTEGER NOT NULL DEFAULT 0)""",
        "CREATE TABLE newest_checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL)",
        """CREATE TABLE limits_snapshot (
            one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, state BLOB NOT NULL)""",
    ),
    ("ALTER TABLE activations ADD COLUMN declared TEXT NOT NULL DEFAULT '{}'",),
    (
        """CREATE TABLE alerts (
            id TEXT PRIMARY KEY, once TEXT UNIQUE, tenant TEXT NOT NULL, kind TEXT NOT NULL, severity TEXT NOT NULL,
            at REAL NOT NULL, text TEXT NOT NULL, detail TEXT NOT NULL)""",
        "CREATE INDEX alerts_by_time ON alerts (at)",
        """CREATE TABLE deliveries (
            alert TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE, tenant TEXT NOT NULL,
            destination TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL,
            at REAL NOT NULL, told TEXT NOT NULL DEFAULT '', PRIMARY KEY (alert, tenant, destination))""",
        "CREATE INDEX deliveries_by_state ON deliveries (state, next_at)",
        "CREATE INDEX deliveries_by_destination ON deliveries (tenant, destination, state, at)",
    ),
    (
        """CREATE TABLE suspensions (
            tenant TEXT NOT NULL, account TEXT NOT NULL, at TEXT NOT NULL, reason TEXT NOT NULL, actor TEXT NOT NULL,
            PRIMARY KEY (tenant, account)) WITHOUT ROWID""",
    ),
)
"""Statements that lead from schema N to N + 1. Released ones are never edited; a change is a new entry."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Which database a file is, and how it came to be what it is."""

    application_id: int
    migrations: tuple[tuple[str, ...], ...]
    synchronous: str = "FULL"
    """`NORMAL` where what a power failure takes of the last commits may be lost."""


STATE: Final = Schema(APPLICATION_ID, MIGRATIONS)


class StoreRefused(Exception):
    """The database must not be used as it is: exposed, corrupt, newer than this program. An operator has to look."""


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing of the transaction happened. The caller must not go on."""


class Database:
    """The only connection to the file. Any thread may use it; each transaction has it alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = RLock()
        self._broken: str | None = None

    @classmethod
    def open(cls, path: Path, schema: Schema = STATE) -> "Database":
        """The database at `path`, made first (mode 0600) where there is none, brought to the newest schema.

        Raises `StoreRefused` or `StoreUnavailable`. The caller holds the lock of the state folder.
        """
        try:
            _create(path)
            _refuse_exposed(path)
            connection = sqlite3.connect(path, timeout=2, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"{path}: {error}") from error
        try:
            # Before the first access, so that WAL runs without a shared-memory file that others could join.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StoreRefused(f"{path}: this file system allows no write-ahead log ({mode}); use a local disk")
            connection.execute(f"PRAGMA synchronous = {schema.synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA secure_delete = ON")  # what was removed is overwritten
            _check(connection, path, schema)
            _migrate(connection, path, schema)
        except sqlite3.DatabaseError as error:
            connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise StoreUnavailable(f"{path}: {error}") from error
            raise StoreRefused(f"{path}: {error}; restore it from its backup") from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All statements inside are durable when the block ends, or none of them happened.

        Raises `StoreUnavailable` when they could not be made so, `sqlite3.IntegrityError` for a row that contradicts
        another (a defect of the caller). Never wait for anything inside the block.
        """
        with self._lock:
            if self._broken is not None:
                raise StoreUnavailable(self._broken)
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.IntegrityError:
                self._roll_back()
                raise
            except sqlite3.Error as error:
                self._failed(error)
                raise StoreUnavailable(str(error)) from error
            except BaseException:
                self._roll_back()
                raise

    def query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows. Raises `StoreUnavailable`."""
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise StoreUnavailable(str(error)) from error

    def fold(self) -> None:
        """The log is folded into the file and emptied: what was removed stands in neither.

        Raises `StoreUnavailable`.
        """
        with self._lock:
            if self._broken is not None:
                raise StoreUnavailable(self._broken)
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error as error:
                self._failed(error)
                raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        """The log is folded into the file and the file released. Idempotent."""
        with self._lock:
            self._broken = self._broken or "the database is closed"
            self._connection.close()

    def _failed(self, error: sqlite3.Error) -> None:
        # A failed sync cannot be repeated: the kernel may have marked the pages clean. A full disk is no such failure.
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR:
            self._broken = f"the database failed earlier ({error}); restart to recover"
        self._roll_back()

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._broken = f"the database failed earlier ({error}); restart to recover"


def _create(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)


def _refuse_exposed(path: Path) -> None:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise StoreRefused(f"{path} is not a regular file; put the database itself there")
    if status.st_uid != os.geteuid():
        raise StoreRefused(f"{path} belongs to uid {status.st_uid}; run: chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StoreRefused(f"others can open {path}; run: chmod 600 {path}")


def _check(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    identity = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if identity != schema.application_id and tables:
        raise StoreRefused(f"{path} is a database of another program")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreRefused(f"{path} is corrupt ({found}); restore it from its backup")


def _migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    known = len(schema.migrations)
    if version > known:
        raise StoreRefused(f"{path} has schema {version}, this program knows {known}; use the newer program")
    for number, statements in enumerate(schema.migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application_id}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
