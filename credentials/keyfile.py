"""Key files: readable by us alone, or refused with the fix."""

import os
import stat
from pathlib import Path
from typing import Final

MAX_KEY_FILE_BYTES: Final = 16384
"""An Ed25519 key in PEM is 119 bytes; a file larger than this is no key."""


class KeyFileRefused(Exception):
    """A key file is missing, exposed or not a key. The operator has to follow `fix`; nothing may start without it."""

    def __init__(self, path: Path, problem: str, fix: str) -> None:
        super().__init__(f"{path}: {problem}. {fix}")
        self.path = path
        self.problem = problem
        self.fix = fix


def read_key_file(path: Path) -> bytes:
    """The content of a regular file that belongs to us and that nobody else can open.

    Judged through the open descriptor, so that what was judged is what is read. Raises `KeyFileRefused`.
    """
    try:
        # O_NOFOLLOW: a link could be turned to a file of the attacker's choice. O_NONBLOCK: opening a pipe would hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyFileRefused(path, "the key file does not exist", "Restore it from its backup.") from None
    except OSError as error:
        if path.is_symlink():
            fix = "Put the file itself there."
            raise KeyFileRefused(path, "the key file is a symbolic link", fix) from None
        fix = f"Make it readable: chown {os.geteuid()} {path} && chmod 600 {path}"
        raise KeyFileRefused(path, f"the key file cannot be opened ({error.strerror})", fix) from None
    try:
        _judge(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(descriptor)


def _judge(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileRefused(path, "the key file is not a regular file", "Put a regular file there.")
    if status.st_uid != os.geteuid():
        owner = f"it belongs to uid {status.st_uid}, we run as {os.geteuid()}"
        raise KeyFileRefused(path, owner, f"Run: chown {os.geteuid()} {path}")
    if mode & 0o077:
        fix = f"Run: chmod 600 {path}; and replace the key if others could have read it."
        raise KeyFileRefused(path, f"others can open it (mode {mode:04o})", fix)
    if status.st_size > MAX_KEY_FILE_BYTES:
        raise KeyFileRefused(path, "it is too large to be a key", "Restore it from its backup.")


def create_key_file(path: Path, content: bytes) -> None:
    """A new file, mode 0600, whole and durable, is at `path`; raises `FileExistsError` rather than replace one.

    Only one process may create key files of a folder at a time; the owner of the state's lock does.
    """
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)  # left by a crash during an earlier creation; never in use
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask says
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.link(unfinished, path)  # unlike rename, never replaces
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
