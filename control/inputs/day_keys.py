"""The keys of kept inputs, one a tenant and day, each sealed under the state's key-encryption key.

In a file of their own among the keys: what a back-up of the rows alone has of a day is dead once its key is destroyed.
"""

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from control.stores.sqlite import Database, Schema
from credentials.envelope import KeyEncryptionKey, SealBroken, SealedSecret, seal, unseal
from credentials.secret import Secret

KEYS: Final = Schema(
    0x45584B59,  # "EXKY"
    (
        (
            "CREATE TABLE day_keys (tenant TEXT NOT NULL, day TEXT NOT NULL, sealed BLOB NOT NULL, "
            "PRIMARY KEY (tenant, day)) WITHOUT ROWID",
        ),
    ),
)
_KEY_BYTES: Final = 32
_VERSION: Final = 1


class DayKeys:
    """Makes, opens and destroys the keys. The caller serialises."""

    def __init__(self, database: Database, kek: KeyEncryptionKey) -> None:
        self._database = database
        self._kek = kek
        self._open: dict[tuple[str, str], AESGCM] = {}

    def make(self, wanted: set[tuple[str, str]]) -> None:
        """Each of these tenants' days has a key, durably. Raises `StoreUnavailable`."""
        if missing := [one for one in sorted(wanted) if self.find(*one) is None]:
            made = [(tenant, day, AESGCM.generate_key(256)) for tenant, day in missing]
            with self._database.transaction() as connection:
                connection.executemany(
                    # A key that does not open any more is replaced: what it sealed is lost, what comes is not.
                    "INSERT OR REPLACE INTO day_keys (tenant, day, sealed) VALUES (?, ?, ?)",
                    [(t, d, seal(self._kek, t, _name(d), _VERSION, Secret(key)).sealed) for t, d, key in made],
                )
            self._open.update(((tenant, day), AESGCM(key)) for tenant, day, key in made)

    def find(self, tenant: str, day: str) -> AESGCM | None:
        """The cipher of the tenant's day; None where there is no key, or none that opens. Raises `StoreUnavailable`."""
        if (known := self._open.get((tenant, day))) is not None:
            return known
        rows = self._database.query("SELECT sealed FROM day_keys WHERE tenant = ? AND day = ?", (tenant, day))
        if not rows:
            return None
        try:
            key = unseal(self._kek, SealedSecret(tenant, _name(day), _VERSION, bytes(rows[0][0]))).reveal()
        except SealBroken:
            return None
        if len(key) != _KEY_BYTES:
            return None
        return self._open.setdefault((tenant, day), AESGCM(key))

    def days(self) -> list[tuple[str, str]]:
        """Every tenant and day that has a key. Raises `StoreUnavailable`."""
        return [(tenant, day) for tenant, day in self._database.query("SELECT tenant, day FROM day_keys")]

    def destroy(self, days: list[tuple[str, str]]) -> None:
        """These keys are gone, from the file and from its log. Raises `StoreUnavailable`."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM day_keys WHERE tenant = ? AND day = ?", days)
        self._database.fold()
        for one in days:
            self._open.pop(one, None)

    def close(self) -> None:
        """The file is released."""
        self._open.clear()
        self._database.close()


def _name(day: str) -> str:
    return f"inputs/{day}"


def new_nonce() -> bytes:
    """96 random bits (NIST SP 800-38D): a key of one day seals far fewer than 2^32."""
    return os.urandom(12)
