"""Whether a program is another user than the one that holds the keys: the line that the system draws for us."""

import os
from pathlib import Path

from control.remote import SOCKET_NAME


def readable_keys(state: Path) -> tuple[Path, ...]:
    """The files in the state's keys folder that this process can open for reading. Nothing of them is read."""
    try:
        files = sorted((state / "keys").iterdir())
    except OSError:
        # Not even the folder can be listed; the names are no secret.
        files = [state / "keys" / name for name in ("ca.pem", "kek.key", "token.pem")]
    found = []
    for path in files:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            continue
        found.append(path)
    return tuple(found)


def shares_user(state: Path, uid: int) -> bool:
    """True when a program of `uid` could open what the process behind the state's socket can."""
    try:
        owner = (state / SOCKET_NAME).lstat().st_uid
    except OSError:
        owner = os.geteuid()
    return uid in (owner, 0)
