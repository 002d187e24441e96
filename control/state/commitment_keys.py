"""The keys of commitments in the ledger, one a tenant: erasing a tenant's key makes its commitments untestable."""

import os
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from control.state.errors import StateInvalid
from control.stores.sqlite import Database
from credentials.envelope import KeyEncryptionKey, SealBroken, SealedSecret, seal, unseal
from credentials.secret import Secret

_NAME: Final = "commitment-key"
_VERSION: Final = 1
KEY_BYTES: Final = 32


class CommitmentKeys:
    """Makes, seals and opens the keys. Reading is a dictionary look-up; the caller serialises changes."""

    def __init__(self, database: Database, kek: KeyEncryptionKey) -> None:
        self._database = database
        self._kek = kek
        self.current: Mapping[str, bytes] = MappingProxyType({})

    def load(self) -> None:
        """Every key is usable. Raises `StateInvalid` when one does not open: its commitments could not be made."""
        keys: dict[str, bytes] = {}
        for tenant, sealed in self._database.query("SELECT tenant, sealed FROM commitment_keys"):
            try:
                keys[tenant] = unseal(self._kek, SealedSecret(tenant, _NAME, _VERSION, bytes(sealed))).reveal()
            except SealBroken as error:
                raise StateInvalid(str(error), "Restore the database from its backup.") from error
        self.current = MappingProxyType(keys)

    def ensure(self, connection: sqlite3.Connection, tenants: tuple[str, ...]) -> None:
        """Each tenant has a key once the transaction of `connection` is committed; `load` then makes it usable."""
        for tenant in tenants:
            if tenant not in self.current:
                sealed = seal(self._kek, tenant, _NAME, _VERSION, Secret(os.urandom(KEY_BYTES))).sealed
                connection.execute(
                    "INSERT INTO commitment_keys (tenant, sealed) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (tenant, sealed),
                )

    def make(self, tenant: str) -> bytes:
        """The key of a tenant that has none yet. Raises `StoreUnavailable`."""
        with self._database.transaction() as connection:
            self.ensure(connection, (tenant,))
        self.load()
        return self.current[tenant]
