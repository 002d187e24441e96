"""What a state stands on: database, keys, ledger. Made in an order in which a crash leaves what can be gone on with."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from control.state.errors import StateInvalid
from control.state.folder import Folder
from control.state.ledger_port import LedgerPort
from control.stores.lock_store import SqliteLockStore, open_register, take_over
from control.stores.sqlite import Database, StoreRefused, StoreUnavailable
from credentials.envelope import KeyEncryptionKey
from credentials.keyfile import KeyFileRefused
from credentials.tokens import SigningKey
from ledger import FileResumeStore, Ledger, LedgerError, PosixFiles
from ledger.keys import HOT_FILE, ROOT_FILE

KEK_FILE = "kek.key"
TOKEN_FILE = "token.pem"  # noqa: S105

type Join = Callable[[Folder], LedgerPort]
"""Gives the ledger of a folder that another process writes. Raises `LedgerError`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Open, ours, and fitting together."""

    database: Database
    ledger: LedgerPort
    register: Database | None
    """Of the ledger that this process writes itself; None where the sequencer's process does."""
    kek: KeyEncryptionKey
    signing: SigningKey
    instance: str
    origin: str
    """Of the ledger, and issuer of the credentials: `exeat/<instance>`."""


def open_ground(folder: Folder, join: Join | None = None) -> Ground:
    """Database, keys and ledger of the folder; each made first where the state is new. Raises `StateInvalid`.

    With `join` the ledger is the one that it gives, which another process writes and which has to be there.
    """
    _refuse_lost(folder)
    register: Database | None = None
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
        if join is None:
            register = open_register(folder.register)
            ledger: LedgerPort = _ledger(database, register, folder, origin)
        else:
            ledger = _joined(join(folder), origin)
    except KeyFileRefused as error:
        _close(database, register)
        raise StateInvalid(f"{error.path}: {error.problem}", error.fix) from error
    except StoreRefused as error:
        _close(database, register)
        raise StateInvalid(str(error)) from error
    except (StoreUnavailable, OSError) as error:
        _close(database, register)
        raise StateInvalid(f"the state cannot be opened: {error}", "Look at the disk and its permissions.") from error
    except LedgerError as error:
        _close(database, register)
        raise StateInvalid(f"the ledger cannot be opened: {error}") from error
    except BaseException:
        _close(database, register)
        raise
    try:
        _write_trust(folder, ledger)
    except BaseException:
        ledger.close()
        _close(database, register)
        raise
    return Ground(database, ledger, register, kek, signing, instance, origin)


def _close(database: Database, register: Database | None) -> None:
    if register is not None:
        register.close()
    database.close()


def _refuse_lost(folder: Folder) -> None:
    """A database that is gone is not made anew where there was a ledger.

    Credentials and revocations count from epoch 0 again in a new one: what was revoked would be good. The database is
    made before any key of a ledger, so a creation that a crash interrupted is no such case.
    """
    if os.path.lexists(folder.database):
        return
    for left in (
        folder.ledger,
        folder.register,
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


def _ledger(database: Database, register: Database, folder: Folder, origin: str) -> Ledger:
    take_over(database, register)
    store, resume = SqliteLockStore(register), FileResumeStore(folder.resume, PosixFiles())
    if (folder.ledger / "LEDGER.json").exists():
        ledger = _joined(Ledger.open(folder.ledger, keys=folder.keys, lock_store=store, resume=resume), origin)
    elif database.query("SELECT 1 FROM instance WHERE key = 'ledger'"):
        # The register's file may be gone with it; the database remembers.
        raise StateInvalid(
            f"{folder.ledger} is missing: this state has lost its ledger", f"Restore {folder.path} from a backup."
        )
    else:
        ledger = Ledger.create(folder.ledger, keys=folder.keys, lock_store=store, origin=origin, resume=resume)
    try:
        with database.transaction() as connection:
            connection.execute("INSERT INTO instance (key, value) VALUES ('ledger', 'made') ON CONFLICT DO NOTHING")
    except BaseException:
        ledger.close()
        raise
    return ledger


def _joined[L: LedgerPort](ledger: L, origin: str) -> L:
    """The ledger, if it is of this database."""
    if ledger.origin != origin:
        ledger.close()
        raise StateInvalid(
            f"the ledger is {ledger.origin}, the database belongs to {origin}", "Restore both from one backup."
        )
    return ledger


def _write_trust(folder: Folder, ledger: LedgerPort) -> None:
    """The trust file for auditors stands beside the ledger. It is never overwritten: an auditor may have it already."""
    if folder.trust.exists():
        return
    unfinished = folder.trust.with_name(".trust.policy.new")
    unfinished.write_text(ledger.trust_text(), encoding="utf-8")
    unfinished.replace(folder.trust)
