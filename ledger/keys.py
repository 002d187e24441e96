"""The log's private keys as files: PKCS#8 PEM, mode 0600, owned by who runs, or refused.

The root key certifies log keys and is needed only at genesis and for rotation: an operator may move its file to another
machine. The hot key signs batches and checkpoints.
"""

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.errors import LedgerRefused
from ledger.files import sync_directory
from ledger.note import Signer

ROOT_FILE: Final = "ledger-root.pem"
HOT_FILE: Final = "ledger-hot.pem"
MAX_KEY_BYTES: Final = 4096


def root_name(origin: str) -> str:
    """The key name of a log's root key; the hot key's name is the origin itself."""
    return f"{origin}/root"


def load_key(path: Path, name: str) -> Signer:
    """The key of a file. Raises `LedgerRefused` when the file is missing, not private, or holds no Ed25519 key."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise LedgerRefused(f"key file {path}: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LedgerRefused(f"key file {path} is not a regular file")
        if status.st_uid != os.geteuid():
            raise LedgerRefused(f"key file {path} belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o177:
            raise LedgerRefused(f"key file {path} has mode {stat.S_IMODE(status.st_mode):04o}; run: chmod 600 {path}")
        pem = os.read(descriptor, MAX_KEY_BYTES)
    finally:
        os.close(descriptor)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise LedgerRefused(f"key file {path} holds no readable private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerRefused(f"key file {path} does not hold an Ed25519 key")
    return Signer(name, key)


def create_key(path: Path, name: str) -> Signer:
    """A new key in a new file, durable. Raises FileExistsError when the file is there."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Under another name first: a key file is either whole or not there, also after a kill.
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, pem)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_directory(path.parent)
    return Signer(name, key)


def load_or_create_key(path: Path, name: str) -> Signer:
    """The key of a file, made first when there is none."""
    try:
        return create_key(path, name)
    except FileExistsError:
        return load_key(path, name)
