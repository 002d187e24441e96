"""The database: durable, private, one writer, versioned; and the register the ledger keeps in it."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from control.stores import sqlite
from control.stores.lock_store import SqliteLockStore
from control.stores.sqlite import Database, StoreRefused, StoreUnavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "exeat.sqlite"


def put(database: Database, key: str, value: str = "v") -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO instance VALUES (?, ?)", (key, value))


def keys(database: Database) -> list[str]:
    return [row[0] for row in database.query("SELECT key FROM instance ORDER BY key")]


def test_every_file_of_it_is_ours_alone_whatever_the_umask(path: Path) -> None:
    old = os.umask(0)
    try:
        database = Database.open(path)
        put(database, "a")
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
        database.close()
    finally:
        os.umask(old)
    assert modes == {"exeat.sqlite": 0o600, "exeat.sqlite-wal": 0o600}


def test_it_runs_with_the_settings_that_make_commits_durable(path: Path) -> None:
    database = Database.open(path)
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("locking_mode", "exclusive")):
        assert database.query(f"PRAGMA {pragma}") == [(value,)]
    for pragma, value in (("foreign_keys", 1), ("secure_delete", 1), ("trusted_schema", 0)):
        assert database.query(f"PRAGMA {pragma}") == [(value,)]
    database.close()


def test_a_second_connection_cannot_join(path: Path) -> None:
    database = Database.open(path)
    put(database, "a")
    with closing(sqlite3.connect(path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM instance")
    with pytest.raises(StoreUnavailable, match="locked"):
        Database.open(path)
    database.close()


def test_a_transaction_that_raises_leaves_nothing(path: Path) -> None:
    database = Database.open(path)

    def attempt() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO instance VALUES ('a', 'v')")
            raise KeyError

    with pytest.raises(KeyError):
        attempt()
    assert keys(database) == []
    put(database, "b")
    assert keys(database) == ["b"]
    database.close()


def test_a_failing_statement_is_told_and_leaves_nothing(path: Path) -> None:
    database = Database.open(path)

    def attempt() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO instance VALUES ('a', 'v')")
            connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StoreUnavailable):
        attempt()
    assert keys(database) == []
    database.close()


def test_a_broken_constraint_is_the_callers_and_leaves_nothing(path: Path) -> None:
    database = Database.open(path)
    put(database, "a")
    with pytest.raises(sqlite3.IntegrityError):
        put(database, "a")
    assert keys(database) == ["a"]
    database.close()


def test_a_full_disk_is_told_and_survived(path: Path) -> None:
    database = Database.open(path)
    pages = database.query("PRAGMA page_count")[0][0]
    database.query(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        put(database, "big", "x" * 100_000)
    assert keys(database) == []
    database.query("PRAGMA max_page_count = 100000")
    put(database, "big", "x" * 100_000)
    assert keys(database) == ["big"]
    database.close()


def test_after_a_failed_sync_nothing_is_written_any_more(path: Path) -> None:
    """PostgreSQL's lesson: a sync that failed once may succeed the next time without the data."""
    database = Database.open(path)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(StoreUnavailable), database.transaction():
        raise error
    with pytest.raises(StoreUnavailable, match="restart"):
        put(database, "a")
    database.close()


def test_threads_take_turns(path: Path) -> None:
    database = Database.open(path)

    def count_up() -> None:
        for _ in range(20):
            with database.transaction() as connection:
                value = connection.execute("SELECT value FROM instance WHERE key = 'n'").fetchone()[0]
                connection.execute("UPDATE instance SET value = ? WHERE key = 'n'", (str(int(value) + 1),))

    put(database, "n", "0")
    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.query("SELECT value FROM instance") == [("160",)]
    database.close()


def test_what_was_committed_is_there_after_reopening(path: Path) -> None:
    database = Database.open(path)
    put(database, "a")
    database.close()
    database.close()
    with pytest.raises(StoreUnavailable):
        put(database, "b")
    again = Database.open(path)
    assert keys(again) == ["a"]
    again.close()


class TestRefused:
    def test_exposed(self, path: Path) -> None:
        Database.open(path).close()
        path.chmod(0o640)
        with pytest.raises(StoreRefused, match="chmod 600"):
            Database.open(path)

    def test_a_link(self, path: Path) -> None:
        Database.open(path).close()
        link = path.with_name("link.sqlite")
        link.symlink_to(path)
        with pytest.raises(StoreRefused, match="regular"):
            Database.open(link)

    def test_garbage(self, path: Path) -> None:
        path.write_bytes(b"not a database" * 1000)
        path.chmod(0o600)
        with pytest.raises(StoreRefused):
            Database.open(path)

    def test_a_flipped_page(self, path: Path) -> None:
        database = Database.open(path)
        for number in range(200):
            put(database, f"key {number:03}", "x" * 100)
        database.close()
        content = bytearray(path.read_bytes())
        content[-4096:] = b"\xff" * 4096
        path.write_bytes(content)
        with pytest.raises(StoreRefused):
            Database.open(path)

    def test_of_another_program(self, path: Path) -> None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE t (a)")
        other.close()
        path.chmod(0o600)
        with pytest.raises(StoreRefused, match="another program"):
            Database.open(path)

    def test_of_a_newer_program(self, path: Path) -> None:
        Database.open(path).close()
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version = 999")
        other.close()
        with pytest.raises(StoreRefused, match="newer program"):
            Database.open(path)


class TestMigrations:
    def test_an_older_file_is_brought_up_and_keeps_its_rows(self, path: Path) -> None:
        database = Database.open(path)
        put(database, "a")
        database.close()
        more = (*sqlite.MIGRATIONS, ("CREATE TABLE later (a)", "INSERT INTO later SELECT key FROM instance"))
        newer = sqlite.Schema(sqlite.APPLICATION_ID, more)
        again = Database.open(path, newer)
        assert again.query("SELECT a FROM later") == [("a",)]
        assert again.query("PRAGMA user_version") == [(len(more),)]
        again.close()
        Database.open(path, newer).close()

    def test_one_that_fails_changes_nothing(self, path: Path) -> None:
        Database.open(path).close()
        broken = (*sqlite.MIGRATIONS, ("CREATE TABLE later (a)", "INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(StoreUnavailable):
            Database.open(path, sqlite.Schema(sqlite.APPLICATION_ID, broken))
        database = Database.open(path)
        assert database.query("SELECT name FROM sqlite_master WHERE name = 'later'") == []
        database.close()


class TestLockStore:
    def test_is_empty_at_first_and_swaps_only_what_it_holds(self, path: Path) -> None:
        database = Database.open(path)
        register = SqliteLockStore(database)
        assert register.load() is None
        assert not register.compare_and_swap(b"x", b"a")
        assert register.load() is None
        assert register.compare_and_swap(None, b"a")
        assert not register.compare_and_swap(None, b"b")
        assert not register.compare_and_swap(b"x", b"b")
        assert register.load() == b"a"
        assert register.compare_and_swap(b"a", b"b")
        database.close()
        again = Database.open(path)
        assert SqliteLockStore(again).load() == b"b"
        again.close()

    def test_one_of_many_wins(self, path: Path) -> None:
        database = Database.open(path)
        register = SqliteLockStore(database)
        register.compare_and_swap(None, b"0")
        won: list[int] = []
        barrier = threading.Barrier(16)

        def swap(number: int) -> None:
            barrier.wait()
            if register.compare_and_swap(b"0", b"n%d" % number):
                won.append(number)

        threads = [threading.Thread(target=swap, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert register.load() == b"n%d" % won[0]
        database.close()

    def test_a_database_that_cannot_be_asked_is_an_oserror(self, path: Path) -> None:
        database = Database.open(path)
        database.close()
        register = SqliteLockStore(database)
        with pytest.raises(OSError):  # noqa: PT011  the protocol promises no more
            register.compare_and_swap(None, b"a")
        with pytest.raises(OSError):  # noqa: PT011
            register.load()
