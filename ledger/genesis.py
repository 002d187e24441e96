"""Statements by which the root key certifies log keys; the only use of the root key."""

import base64
from hashlib import sha256

from ledger.note import Signer, Verifier


def genesis_statement(origin: str, key: Verifier, blinding: str) -> bytes:
    """What the root key signs in the genesis record."""
    return f"ledger-genesis/v1\n{origin}\n{key.vkey}\n{blinding}\n".encode("ascii")


def genesis_content(origin: str, root: Signer, key: Verifier, blinding: bytes, software: str) -> dict[str, object]:
    """The content of record 0: the first log key, certified by the root key, and a commitment to the blinding key."""
    digest = "sha256:" + sha256(blinding).hexdigest()
    signature = root.sign(genesis_statement(origin, key, digest))
    return {
        "root": root.verifier.vkey,
        "key": key.vkey,
        "blinding": digest,
        "software": software,
        "certificate": base64.b64encode(signature).decode("ascii"),
    }


def key_statement(origin: str, key: Verifier, from_size: int) -> bytes:
    """What the old log key and the root key sign in a key.add record."""
    return f"ledger-key/v1\n{origin}\n{key.vkey}\n{from_size}\n".encode("ascii")


def key_content(origin: str, root: Signer, old: Signer, key: Verifier, from_size: int) -> dict[str, object]:
    """The content of a key.add record: the new key signs from the record after this one on."""
    text = key_statement(origin, key, from_size)
    return {
        "key": key.vkey,
        "from_size": from_size,
        "by_key": base64.b64encode(old.sign(text)).decode("ascii"),
        "by_root": base64.b64encode(root.sign(text)).decode("ascii"),
    }


def revoke_statement(origin: str, key_id: str, from_size: int) -> bytes:
    """What the root key signs in a key.revoke record."""
    return f"ledger-revoke/v1\n{origin}\n{key_id}\n{from_size}\n".encode("ascii")
