"""The ledger's register, in the database: outside the ledger's own folder, so that a restored copy is noticed."""

from control.stores.sqlite import Database, StoreUnavailable


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
