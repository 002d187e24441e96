"""The key that signs agents' credentials."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Never

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from credentials.keyfile import KeyFileRefused, create_key_file, read_key_file


class SigningKey:
    """The Ed25519 key that agents' credentials are signed with. Never leaves this object."""

    __slots__ = ("__key", "kid", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.__key = key
        self.public = key.public_key()
        self.kid = thumbprint_of(self.public)

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """The key at `path` (PKCS #8 PEM, mode 0600), made first where there is none. Raises `KeyFileRefused`."""
        if not path.exists() and not path.is_symlink():
            new = Ed25519PrivateKey.generate()
            create_key_file(path, new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """The key at `path`. Raises `KeyFileRefused` when it is missing, exposed or no Ed25519 key."""
        try:
            key = load_pem_private_key(read_key_file(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyFileRefused(path, "it is not a PEM private key", "Restore it from its backup.") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileRefused(path, "it is not an Ed25519 key", "Restore it from its backup.")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature (RFC 8032)."""
        return self.__key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid})"

    def __getstate__(self) -> Never:
        raise TypeError("a SigningKey cannot be pickled or copied")


def thumbprint_of(public: Ed25519PublicKey) -> str:
    """The key's JWK thumbprint (RFC 7638, RFC 8037 appendix A.3): its `kid`, derived and never chosen."""
    x = encode_segment(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
    return encode_segment(sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())


def encode_segment(data: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
