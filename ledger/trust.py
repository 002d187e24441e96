"""The trust file: all that an auditor pins, in one small text, and its fingerprint to compare by another way.

    # exeat trust file
    format exeat-trust/v1
    origin acme.example/ledger-7f3a
    root acme.example/ledger-7f3a/root+1f0c8f2a+AZ...
    genesis 5f3c...
    rung 0

`rung` is what the auditor demands of anchoring: a verification that reaches less ends with exit code 4.
"""

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ledger.note import NoteInvalid, Verifier, is_name

FORMAT: Final = "exeat-trust/v1"
MAX_RUNG: Final = 4
MAX_TRUST_BYTES: Final = 64 * 1024


class TrustInvalid(ValueError):
    """The text is no trust file; names the line."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What is pinned: who signs, which log, its first record, and how well it must be anchored."""

    origin: str
    root: Verifier
    genesis: bytes
    """Leaf hash of record 0."""
    rung: int

    @classmethod
    def parse(cls, text: str) -> "Trust":
        """The trust of a file's text; raises `TrustInvalid`. Every line counts: unknown or repeated ones are errors."""
        if len(text) > MAX_TRUST_BYTES:
            raise TrustInvalid("the trust file is too long")
        found: dict[str, str] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            key, _, value = stripped.partition(" ")
            if key not in ("format", "origin", "root", "genesis", "rung"):
                raise TrustInvalid(f"line {number}: unknown word {key[:40]!r}")
            if key in found:
                raise TrustInvalid(f"line {number}: {key} is given twice")
            found[key] = value.strip()
        missing = [key for key in ("format", "origin", "root", "genesis", "rung") if key not in found]
        if missing:
            raise TrustInvalid(f"missing: {', '.join(missing)}")
        if found["format"] != FORMAT:
            raise TrustInvalid(f"format {found['format'][:40]!r} is not {FORMAT}")
        if not is_name(found["origin"]):
            raise TrustInvalid("origin is not a log's name")
        try:
            root = Verifier.parse(found["root"])
        except NoteInvalid as error:
            raise TrustInvalid(f"root: {error}") from None
        if len(found["genesis"]) != 64 or set(found["genesis"]) - set("0123456789abcdef"):
            raise TrustInvalid("genesis is not the hex of a hash")
        if found["rung"] not in {str(rung) for rung in range(MAX_RUNG + 1)}:
            raise TrustInvalid(f"rung is a number from 0 to {MAX_RUNG}")
        return cls(found["origin"], root, bytes.fromhex(found["genesis"]), int(found["rung"]))

    @property
    def text(self) -> str:
        """The file's text, with its fingerprint as a comment for people."""
        return (
            "# exeat trust file: give it to auditors, and tell them the fingerprint by another way\n"
            f"# fingerprint {self.fingerprint}\n"
            f"{self._body}"
        )

    @property
    def _body(self) -> str:
        return (
            f"format {FORMAT}\norigin {self.origin}\nroot {self.root.vkey}\n"
            f"genesis {self.genesis.hex()}\nrung {self.rung}\n"
        )

    @property
    def fingerprint(self) -> str:
        """160 bits over what is pinned, in eight groups of four letters and digits, to be read aloud."""
        digest = base64.b32encode(sha256(self._body.encode("ascii")).digest()[:20]).decode("ascii").lower()
        return " ".join(digest[index : index + 4] for index in range(0, 32, 4))
