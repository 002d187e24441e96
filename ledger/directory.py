"""The layout of a ledger's directory, and its description file."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ledger import canonical
from ledger.checks import Object, pattern
from ledger.note import NoteInvalid, Verifier, is_name

DESCRIPTION: Final = "LEDGER.json"
LOCK: Final = "LOCK"
BALLAST: Final = "BALLAST"
SEGMENTS: Final = "segments"
CHECKPOINTS: Final = "checkpoints"
QUARANTINE: Final = "quarantine"
FORMAT: Final = "exeat-ledger/v1"

_hash = pattern(r"[0-9a-f]{64}")
_SCHEMA = Object(
    {
        "format": lambda value: value == FORMAT,
        "origin": lambda value: isinstance(value, str) and is_name(value),
        "root": lambda value: isinstance(value, str),
        "genesis": _hash,
        "blinding": _hash,
    }
)


@dataclass(frozen=True, slots=True)
class Description:
    """What the directory says about itself. Nothing here is trusted: the genesis record and the trust file decide."""

    origin: str
    root: Verifier
    genesis: bytes
    blinding: bytes
    """Key that blinds tenants' names in heads. Whoever has the directory has it; a tenant's bundle never does."""

    def encode(self) -> bytes:
        """The file's bytes: canonical JSON and a newline."""
        value = {
            "format": FORMAT,
            "origin": self.origin,
            "root": self.root.vkey,
            "genesis": self.genesis.hex(),
            "blinding": self.blinding.hex(),
        }
        return canonical.encode(value) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> "Description":
        """The description of a file's bytes; raises ValueError. Only the exact bytes of `encode` are accepted."""
        if not data.endswith(b"\n"):
            raise ValueError("does not end with a newline")
        value = canonical.parse_typed(data[:-1])
        if not isinstance(value, dict) or not _SCHEMA(value):
            raise ValueError(_SCHEMA.explain(value) or "does not conform")
        try:
            root = Verifier.parse(value["root"])
        except NoteInvalid as error:
            raise ValueError(f"root: {error}") from None
        return cls(value["origin"], root, bytes.fromhex(value["genesis"]), bytes.fromhex(value["blinding"]))


def note_name(size: int) -> str:
    """The name of the checkpoint note of a size."""
    return f"{size:020d}.note"


def torn_name(last: int, segment: int, offset: int, data: bytes) -> str:
    """The name in quarantine of bytes cut off after record `last`, from this offset of this segment."""
    return f"{last:020d}-{segment:020d}-{offset}-{sha256(data).hexdigest()[:16]}.torn"


def segment_files(directory: Path) -> list[tuple[int, Path]]:
    """(first seq, path) of every segment, in order. Names that are no segment's are left out."""
    found: list[tuple[int, Path]] = []
    folder = directory / SEGMENTS
    if folder.is_dir():
        for path in folder.iterdir():
            stem = path.name.removesuffix(".seg")
            if path.name.endswith(".seg") and len(stem) == 20 and stem.isascii() and stem.isdigit():
                found.append((int(stem), path))
    return sorted(found)


def note_files(directory: Path) -> list[tuple[int, Path]]:
    """(size, path) of every checkpoint note, in order."""
    found: list[tuple[int, Path]] = []
    folder = directory / CHECKPOINTS
    if folder.is_dir():
        for path in folder.iterdir():
            stem = path.name.removesuffix(".note")
            if path.name.endswith(".note") and len(stem) == 20 and stem.isascii() and stem.isdigit():
                found.append((int(stem), path))
    return sorted(found)
