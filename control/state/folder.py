"""The state's folder: where its files are, who may open it, and who holds it now."""

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from control.state.errors import StateInvalid, StateLocked

_FILES: Final = frozenset(
    (
        *("LOCK", "exeat.sqlite", "exeat.sqlite-wal", "exeat.sqlite-shm", "inputs.sqlite", "inputs.sqlite-wal"),
        *("register.sqlite", "register.sqlite-wal", "keys", "ledger", "trust.policy"),
        *("operators.sock", "ledger.sock", "workers.sock", "ledger-resume"),
        *("followed.sqlite", "followed.sqlite-wal"),
    )
)


class Folder:
    """A state folder that this process holds until `close`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.keys = path / "keys"
        self.database = path / "exeat.sqlite"
        self.inputs = path / "inputs.sqlite"
        self.input_keys = self.keys / "inputs.sqlite"
        self.ledger = path / "ledger"
        self.register = path / "register.sqlite"
        self.followed = path / "followed.sqlite"
        self.resume = path / "ledger-resume"
        self.trust = path / "trust.policy"
        self._lock: int | None = lock

    @classmethod
    def take(cls, path: Path, *, create: bool) -> "Folder":
        """The folder is ours alone: no other process opens it, no other user reads it.

        Raises `StateLocked` with the holder's pid; `StateInvalid` when there is none (and `create` is false), when
        others can open it, or when it holds something else.
        """
        path = path.absolute()
        if not path.exists() and not path.is_symlink():
            if not create:
                raise StateInvalid(f"there is no state in {path}", "Start with `exeat up` or `exeat init`.")
            try:
                path.mkdir(mode=0o700, parents=True)
            except OSError as error:
                raise StateInvalid(f"{path} cannot be made: {error.strerror}", "Choose another folder.") from error
        _refuse_exposed(path)
        found = {entry.name for entry in path.iterdir()}
        if "exeat.sqlite" not in found:
            if not create:
                raise StateInvalid(f"there is no state in {path}", "Start with `exeat up` or `exeat init`.")
            if found - _FILES:
                raise StateInvalid(f"{path} holds other files and no state", "Choose a new folder for the state.")
        lock = _lock(path / "LOCK")
        folder = cls(path, lock)
        try:
            folder.keys.mkdir(mode=0o700, exist_ok=True)
            _refuse_exposed(folder.keys)
        except BaseException:
            folder.close()
            raise
        return folder

    def close(self) -> None:
        """Another process may open the folder. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _refuse_exposed(path: Path) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise StateInvalid(f"{path} is not a folder", "Name the folder itself, not a link or a file.")
    if status.st_uid != os.geteuid():
        raise StateInvalid(f"{path} belongs to uid {status.st_uid}", f"Run: chown -R {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StateInvalid(f"others can open {path}", f"Run: chmod 700 {path}")


def _lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateInvalid(f"{path} cannot be opened: {error.strerror}", "Remove it, or repair its owner.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        pid = int(text) if text.isdecimal() else None
        holder = "another process" if pid is None else f"process {pid}"
        raise StateLocked(f"{path.parent} is held by {holder}", pid) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
