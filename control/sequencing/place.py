"""A state folder as the sequencer sees it: another process holds it, and most of it is none of its business.

This imports nothing of the state, which brings policies and all that they can say: calls wait while a sequencer starts.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from control.sequencing.wire import SOCKET_NAME
from control.startup import StartRefused


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are; the names are those of `control.state.folder`."""

    path: Path

    @classmethod
    def of(cls, path: Path) -> "Place":
        """The folder, private and with a ledger and its register in it. Raises `StartRefused`."""
        place = cls(path.absolute())
        try:
            status = os.lstat(place.path)
        except OSError as error:
            raise StartRefused(f"there is no state in {place.path}: {error.strerror}", "") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StartRefused(f"{place.path} is not a folder", "Name the folder itself, not a link or a file.")
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise StartRefused(f"others can open {place.path}", f"Run: chmod 700 {place.path}")
        if not place.register.exists():
            raise StartRefused(
                f"{place.register} is missing", "Let one `exeat up` without workers open the state first."
            )
        return place

    @property
    def ledger(self) -> Path:
        """The ledger's folder."""
        return self.path / "ledger"

    @property
    def keys(self) -> Path:
        """Where its hot key is."""
        return self.path / "keys"

    @property
    def register(self) -> Path:
        """The newest checkpoint, outside the ledger's folder."""
        return self.path / "register.sqlite"

    @property
    def resume(self) -> Path:
        """Where the next opening of the ledger begins to read."""
        return self.path / "ledger-resume"

    @property
    def socket(self) -> Path:
        """Where workers are served."""
        return self.path / SOCKET_NAME

    def holder(self) -> int | None:
        """The pid that the last process to take the folder wrote into its lock; None when it is not readable."""
        try:
            text = (self.path / "LOCK").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return None
        return int(text) if text.isdecimal() else None
