"""The ledger's register, in a database of its own: outside the ledger's folder, so that a restored copy is noticed.

It has its own file because its writer does: with several workers the ledger belongs to the sequencer's process, while
the state's database stays with the control process, each in exclusive mode.
"""

from pathlib import Path
from typing import Final

from control.stores.sqlite import Database, Schema, StoreRefused, StoreUnavailable

REGISTER: Final = Schema(
    0x45584152,  # "EXAR"
    (("CREATE TABLE newest_checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL)",),),
)


def open_register(path: Path) -> Database:
    """The register's database, made first where there is none. Raises `StoreRefused` or `StoreUnavailable`."""
    return Database.open(path, REGISTER)


def take_over(state: Database, register: Database) -> None:
    """What earlier versions kept in the state's database is in the register, and no longer in the other.

    First written, then removed: a crash between them leaves both the same. Raises `StoreRefused` when they differ, for
    then one of the files is not of this state, and `StoreUnavailable`.
    """
    old = state.query("SELECT note FROM newest_checkpoint")
    if not old:
        return
    note, held = bytes(old[0][0]), SqliteLockStore(register).load()
    if held is not None and held != note:
        raise StoreRefused(
            "the state's database and register.sqlite name two newest checkpoints; restore the folder from one backup"
        )
    with register.transaction() as connection:
        connection.execute("INSERT INTO newest_checkpoint (one, note) VALUES (1, ?) ON CONFLICT DO NOTHING", (note,))
    with state.transaction() as connection:
        connection.execute("DELETE FROM newest_checkpoint")


class SqliteLockStore:
    """Implements `ledger.LockStore`: the newest checkpoint, replaced atomically and durably. Raises `OSError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> bytes | None:
        """The newest checkpoint note, or None when there has never been one."""
        try:
            rows = self._database.query("SELECT note FROM newest_checkpoint")
        except StoreUnavailable as error:
            raise OSError(str(error)) from error
        return bytes(rows[0][0]) if rows else None

    def compare_and_swap(self, old: bytes | None, new: bytes) -> bool:
        """True when the register held `old` and now holds `new`, durably; False, unchanged, when it held another."""
        try:
            with self._database.transaction() as connection:
                if old is None:
                    statement = "INSERT INTO newest_checkpoint (one, note) VALUES (1, ?) ON CONFLICT DO NOTHING"
                    changed = connection.execute(statement, (new,)).rowcount
                else:
                    statement = "UPDATE newest_checkpoint SET note = ? WHERE note = ?"
                    changed = connection.execute(statement, (new, old)).rowcount
                return changed == 1
        except StoreUnavailable as error:
            raise OSError(str(error)) from error
