"""Secrets at rest: AES-256-GCM under a key of their own, which is wrapped by the key-encryption key (KEK).

A sealed secret opens only under the tenant, name and version it was sealed for: moved to another row, it is
refused. Format: docs/formats/sealed-secret.md. AES-GCM: NIST SP 800-38D; both nonces are 96 random bits, and a data
key encrypts once.
"""

import hmac
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from credentials.keyfile import KeyFileRefused, create_key_file, read_key_file
from credentials.secret import MAX_SECRET_BYTES, Secret

MAGIC: Final = b"EXS1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_KEK_ID_BYTES: Final = 8
_WRAPPED_BYTES: Final = _KEY_BYTES + _TAG_BYTES
_OVERHEAD: Final = len(MAGIC) + _KEK_ID_BYTES + _NONCE_BYTES + _WRAPPED_BYTES + _NONCE_BYTES + _TAG_BYTES
_FILE_PREFIX: Final = "exeat-kek-v1:"


class SealBroken(Exception):
    """A sealed secret does not open: wrong KEK, moved, or changed. The operator restores the KEK or sets it anew."""


class KeyEncryptionKey:
    """The key that wraps every data key of one state folder. Never leaves this object."""

    __slots__ = ("__key", "id")

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            del key
            raise ValueError(f"a key-encryption key is {_KEY_BYTES} bytes")
        self.__key = key
        self.id = sha256(b"exeat/kek-id/v1\0" + key).digest()[:_KEK_ID_BYTES]
        """Names the key without telling it; a sealed secret carries it."""

    @classmethod
    def create(cls, path: Path) -> "KeyEncryptionKey":
        """A new random key stands at `path`, mode 0600. Raises `FileExistsError` rather than replace one."""
        create_key_file(path, f"{_FILE_PREFIX}{os.urandom(_KEY_BYTES).hex()}\n".encode())
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "KeyEncryptionKey":
        """The key at `path`. Raises `KeyFileRefused` when it is missing, exposed or not a key."""
        key = _parse_key(read_key_file(path))
        if key is None:
            raise KeyFileRefused(path, "it is not a key-encryption key", "Restore it from its backup.")
        return cls(key)

    def wrap(self, data_key: bytes, nonce: bytes, associated: bytes) -> bytes:
        """The data key under this key."""
        return AESGCM(self.__key).encrypt(nonce, data_key, associated)

    def unwrap(self, wrapped: bytes, nonce: bytes, associated: bytes) -> bytes:
        """The data key again. Raises `InvalidTag`."""
        return AESGCM(self.__key).decrypt(nonce, wrapped, associated)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for another purpose, from which this key cannot be found."""
        return hmac.digest(self.__key, b"exeat/derive/v1\0" + purpose.encode(), "sha256")

    def __repr__(self) -> str:
        return f"KeyEncryptionKey(id={self.id.hex()})"

    def __getstate__(self) -> Never:
        raise TypeError("a KeyEncryptionKey cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What may be stored: useless without the KEK."""

    tenant: str
    name: str
    version: int
    sealed: bytes
    """Format `EXS1`."""


def seal(kek: KeyEncryptionKey, tenant: str, name: str, version: int, secret: Secret) -> SealedSecret:
    """The secret under a fresh data key, bound to tenant, name and version."""
    wrap_nonce, nonce = os.urandom(_NONCE_BYTES), os.urandom(_NONCE_BYTES)
    cipher, wrapped = _new_cipher(kek, wrap_nonce, _associated("wrap", kek.id, tenant, name, version))
    encrypted = cipher.encrypt(nonce, secret.reveal(), _associated("secret", kek.id, tenant, name, version))
    return SealedSecret(tenant, name, version, MAGIC + kek.id + wrap_nonce + wrapped + nonce + encrypted)


def unseal(kek: KeyEncryptionKey, sealed: SealedSecret, *, thumbprint_key: bytes | None = None) -> Secret:
    """The secret again. Raises `SealBroken` unless tenant, name, version, KEK and every byte are as sealed."""
    data = sealed.sealed
    if not _OVERHEAD < len(data) <= _OVERHEAD + MAX_SECRET_BYTES or data[: len(MAGIC)] != MAGIC:
        raise SealBroken(f"the sealed secret {sealed.name} is not in a format this version knows")
    parts = []
    start = len(MAGIC)
    for size in (_KEK_ID_BYTES, _NONCE_BYTES, _WRAPPED_BYTES, _NONCE_BYTES):
        parts.append(data[start : start + size])
        start += size
    kek_id, wrap_nonce, wrapped, nonce = parts
    if kek_id != kek.id:
        raise SealBroken(f"the sealed secret {sealed.name} needs the key {kek_id.hex()}, this is {kek.id.hex()}")
    where = (kek.id, sealed.tenant, sealed.name, sealed.version)
    try:
        # The data key has no name of its own: an exception's frame would show it.
        cipher = AESGCM(kek.unwrap(wrapped, wrap_nonce, _associated("wrap", *where)))
        return Secret(cipher.decrypt(nonce, data[start:], _associated("secret", *where)), thumbprint_key=thumbprint_key)
    except InvalidTag:
        raise SealBroken(f"the sealed secret {sealed.name} was moved or changed") from None


def _new_cipher(kek: KeyEncryptionKey, nonce: bytes, associated: bytes) -> tuple[AESGCM, bytes]:
    data_key = AESGCM.generate_key(bit_length=256)
    return AESGCM(data_key), kek.wrap(data_key, nonce, associated)


def _associated(purpose: str, kek_id: bytes, tenant: str, name: str, version: int) -> bytes:
    # Each part with its length before it, so that no two different tuples give the same bytes.
    parts = (b"exeat/sealed-secret/v1", purpose.encode(), kek_id, tenant.encode(), name.encode(), str(version).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _parse_key(content: bytes) -> bytes | None:
    try:
        text = content.decode("ascii").removesuffix("\n")
        key = bytes.fromhex(text.removeprefix(_FILE_PREFIX))
    except ValueError:
        return None
    # One spelling: `fromhex` would also take spaces and capitals.
    return key if len(key) == _KEY_BYTES and text == _FILE_PREFIX + key.hex() else None
