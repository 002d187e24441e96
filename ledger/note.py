"""C2SP signed notes and checkpoints.

Sources: c2sp.org/signed-note, c2sp.org/tlog-checkpoint. Trust in a key comes from outside: a note is checked against
verifiers the caller already trusts, and lines of unknown keys are ignored, as the specification demands.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519: Final = 0x01
MAX_NOTE_BYTES: Final = 64 * 1024
"""Well above a checkpoint with 16 signatures, the number c2sp.org/signed-note asks a verifier to accept."""
MAX_SIGNATURES: Final = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}").fullmatch
"""Stricter than the specification (no spaces, no plus): what we mint and accept for our own logs."""


class NoteInvalid(ValueError):
    """The text is no signed note, or no key that is trusted has signed it."""


def is_name(name: str) -> bool:
    """True for a key name or origin of the restricted form this project uses."""
    return _NAME(name) is not None and not name.startswith("ledger-")


def _b64decode(text: str) -> bytes:
    """Strict base64: only the canonical text of the bytes, so that no bit of it is slack."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("not base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise NoteInvalid("not canonical base64")
    return raw


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name."""

    name: str
    key_id: bytes
    public: bytes
    key: Ed25519PublicKey

    @classmethod
    def from_public(cls, name: str, public: bytes) -> "Verifier":
        """The verifier of a raw Ed25519 public key of 32 bytes."""
        if not is_name(name):
            raise NoteInvalid(f"not a key name: {name!r}")
        if len(public) != 32:
            raise NoteInvalid("an Ed25519 public key has 32 bytes")
        material = bytes([ED25519]) + public
        key_id = sha256(name.encode("ascii") + b"\n" + material).digest()[:4]
        return cls(name, key_id, public, Ed25519PublicKey.from_public_bytes(public))

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """The verifier of a vkey `name+hex(keyID)+base64(type||public)`; raises `NoteInvalid`."""
        parts = vkey.split("+", 2)
        if len(parts) != 3:
            raise NoteInvalid("a vkey has three parts")
        name, key_id, encoded = parts
        material = _b64decode(encoded)
        if not material or material[0] != ED25519:
            raise NoteInvalid("only Ed25519 keys (type 0x01) are known")
        verifier = cls.from_public(name, material[1:])
        if verifier.key_id.hex() != key_id:
            raise NoteInvalid("the key id does not belong to the key")
        return verifier

    @property
    def vkey(self) -> str:
        """The key as one line of text."""
        encoded = base64.b64encode(bytes([ED25519]) + self.public).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verify(self, message: bytes, signature: bytes) -> bool:
        """True when this key made the signature."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key with its name. Keeps the key out of every representation."""

    __slots__ = ("_key", "verifier")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier = Verifier.from_public(name, key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"Signer({self.verifier.name})"

    def sign(self, message: bytes) -> bytes:
        """64 bytes of signature."""
        return self._key.sign(message)

    def sign_note(self, text: str) -> bytes:
        """The signed note of a text that ends with a newline."""
        return signed_note(text, self.verifier, self.sign(text.encode("utf-8")))


def signed_note(text: str, verifier: Verifier, signature: bytes) -> bytes:
    """The note's bytes, from its parts."""
    if not text.endswith("\n"):
        raise ValueError("the text of a note ends with a newline")
    encoded = base64.b64encode(verifier.key_id + signature).decode("ascii")
    return f"{text}\n\u2014 {verifier.name} {encoded}\n".encode()


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> tuple[str, tuple[Verifier, ...]]:
    """The text of a note and which of the verifiers signed it.

    Raises `NoteInvalid` when the form is wrong, a known key's signature does not verify, or none of them signed.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise NoteInvalid("too long")
    try:
        whole = note.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise NoteInvalid("not UTF-8") from None
    if any(ord(char) < 0x20 and char != "\n" for char in whole):
        raise NoteInvalid("control characters")
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteInvalid("no signature block")
    text += "\n"
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteInvalid("too many signatures")
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signers: list[Verifier] = []
    for line in lines:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != "\u2014" or not parts[1]:
            raise NoteInvalid("a signature line is malformed")
        raw = _b64decode(parts[2])
        if len(raw) < 5:
            raise NoteInvalid("a signature is too short")
        verifier = known.get((parts[1], raw[:4]))
        if verifier is None:
            continue  # c2sp.org/signed-note: signatures from unknown keys are ignored
        if verifier in signers or not verifier.verify(text.encode("utf-8"), raw[4:]):
            raise NoteInvalid(f"the signature of {verifier.name} does not verify")
        signers.append(verifier)
    if not signers:
        raise NoteInvalid("no trusted key signed this note")
    return text, tuple(signers)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: what a checkpoint's signature commits to (c2sp.org/tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The checkpoint of a note's text; raises `NoteInvalid`. Extension lines are refused: this log writes none."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteInvalid("a checkpoint has three lines")
        origin, size, encoded = lines[:3]
        if not re.fullmatch(r"0|[1-9][0-9]{0,15}", size):
            raise NoteInvalid("the tree size is not a decimal number")
        root = _b64decode(encoded)
        if len(root) != 32:
            raise NoteInvalid("the root has 32 bytes")
        return cls(origin, int(size), root)


def unsafe_checkpoint_text(note: bytes) -> Checkpoint:
    """What a note claims, with no signature checked. Only for choosing which key to check it with."""
    text, separator, _ = note.decode("utf-8", "replace").rpartition("\n\n")
    if not separator:
        raise NoteInvalid("no signature block")
    return Checkpoint.parse(text + "\n")
