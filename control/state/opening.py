"""What a state stands on: database, keys, ledger. Made in an order in which a crash leaves what can be gone on with."""

import os
import secrets
from dataclasses import dataclass

from control.state.errors import StateInvalid
from control.state.folder import Folder
from control.stores.lock_store import SqliteLockStore
from control.stores.sqlite import Database, StoreRefused, StoreUnavailable
from credentials.envelope import KeyEncryptionKey
from credentials.keyfile import KeyFileRefused
from credentials.tokens import SigningKey
from ledger import Ledger, LedgerError
from ledger.keys import HOT_FILE, ROOT_FILE

KEK_FILE = "kek.key"
TOKEN_FILE = "token.pem"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Ground:
    """Open, ours, and fitting together."""

    database: Database
    ledger: Ledger
    kek: KeyEncryptionKey
    signing: SigningKey
    instance: str
    origin: str
    """Of the ledger, and issuer of the credentials: `exeat/<instance>`."""


def open_ground(folder: Folder) -> Ground:
    """Database, keys and ledger of the folder; each made first where the state is new. Raises `StateInvalid`."""
    _refuse_lost(folder)
    try:
        database = Database.open(folder.database)
    except StoreRefused as error:
        raise StateInvalid(str(error)) from error
    except StoreUnavailable as error:
        raise StateInvalid(
            f"the database cannot be opened: {error}", "Look at the disk and its permissions."
        ) from error
    try:
        kek, instance = _identity(database, folder)
        signing = SigningKey.load_or_create(folder.keys / TOKEN_FILE)
        origin = f"exeat/{instance}"
        ledger = _ledger(database, folder, origin)
    except KeyFileRefused as error:
        database.close()
        raise StateInvalid(f"{error.path}: {error.problem}", error.fix) from error
    except (StoreUnavailable, OSError) as error:
        database.close()
        raise StateInvalid(f"the state cannot be opened: {error}", "Look at the disk and its permissions.") from error
    except LedgerError as error:
        database.close()
        raise StateInvalid(f"the ledger cannot be opened: {error}") from error
    except BaseException:
        database.close()
        raise
    try:
        _write_trust(folder, ledger)
    except BaseException:
        ledger.close()
        database.close()
        raise
    return Ground(database, ledger, kek, signing, instance, origin)


def _refuse_lost(folder: Folder) -> None:
    """A database that is gone is not made anew where there was a ledger.

    Credentials and revocations count from epoch 0 again in a new one: what was revoked would be good. The database is
    made before any key of a ledger, so a creation that a crash interrupted is no such case.
    """
    if os.path.lexists(folder.database):
        return
    for left in (
        folder.ledger,
        folder.trust,
        *(folder.keys / name for name in (ROOT_FILE, HOT_FILE, TOKEN_FILE, KEK_FILE)),
    ):
        if os.path.lexists(left):
            raise StateInvalid(
                f"{folder.database} is missing, but {left} is there: this state has lost its database",
                f"Restore {folder.path} from a backup, or remove the whole folder to start anew.",
            )


def _identity(database: Database, folder: Folder) -> tuple[KeyEncryptionKey, str]:
    """The instance and the key its secrets are sealed with, which must be the one they were sealed with."""
    path = folder.keys / KEK_FILE
    known = dict(database.query("SELECT key, value FROM instance"))
    if not known:
        # The key before the row that names it: a crash between them leaves a key that nothing is sealed with yet.
        kek = KeyEncryptionKey.load(path) if os.path.lexists(path) else KeyEncryptionKey.create(path)
        known = {"instance": f"i_{secrets.token_hex(8)}", "kek": kek.id.hex()}
        with database.transaction() as connection:
            connection.executemany("INSERT INTO instance (key, value) VALUES (?, ?)", known.items())
        return kek, known["instance"]
    kek = KeyEncryptionKey.load(path)
    if kek.id.hex() != known["kek"]:
        raise StateInvalid(
            f"{path} is key {kek.id.hex()}, this state's secrets need {known['kek']}", "Restore it from its backup."
        )
    return kek, known["instance"]


def _ledger(database: Database, folder: Folder, origin: str) -> Ledger:
    register = SqliteLockStore(database)
    if (folder.ledger / "LEDGER.json").exists():
        ledger = Ledger.open(folder.ledger, keys=folder.keys, lock_store=register)
        if ledger.origin != origin:
            ledger.close()
            raise StateInvalid(
                f"the ledger is {ledger.origin}, the database belongs to {origin}", "Restore both from one backup."
            )
        return ledger
    return Ledger.create(folder.ledger, keys=folder.keys, lock_store=register, origin=origin)


def _write_trust(folder: Folder, ledger: Ledger) -> None:
    """The trust file for auditors stands beside the ledger. It is never overwritten: an auditor may have it already."""
    if folder.trust.exists():
        return
    unfinished = folder.trust.with_name(".trust.policy.new")
    unfinished.write_text(ledger.trust_text(), encoding="utf-8")
    unfinished.replace(folder.trust)
