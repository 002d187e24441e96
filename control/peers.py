"""A Unix socket that only its owner and root may speak to, and that knows who speaks."""

import os
import pwd
import socket
import stat
import struct
from asyncio import BaseTransport, Transport
from pathlib import Path
from typing import Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from credentials.actor import Actor

_UCRED: Final = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid, as the kernel saw them when the peer connected."""
MAX_SOCKET_PATH_BYTES: Final = 107
"""sun_path of unix(7) is 108 bytes with its final NUL."""


class SocketRefused(Exception):
    """The socket cannot be made where it was wanted; the message says how to mend it."""


def check_path(path: Path) -> None:
    """The path fits into a socket's address. Raises `SocketRefused`."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise SocketRefused(
            f"{path} is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a Unix socket's path; use a shorter --state"
        )


def listen(path: Path) -> socket.socket:
    """A listening socket, mode 0600. What a process that died left there is removed; the state's lock says it died."""
    check_path(path)
    if path.exists() or path.is_symlink():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketRefused(f"{path} is not a socket; move it away")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode is set before anybody can connect: between bind and listen every connect is refused.
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end, from the kernel (SO_PEERCRED, unix(7))."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def peer_pid(connection: socket.socket) -> int:
    """The pid of the process that connected, from the kernel as well."""
    pid, _, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid)


def actor_of(uid: int) -> Actor:
    """The operator behind a uid, by the machine's user database."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Actor("uid", str(uid), name)


def admits(uid: int) -> bool:
    """Our own user and root; root could become us anyway."""
    return uid in (os.geteuid(), 0)


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, for admitted peers only; `scope["client"]` is `(uid, 0)`."""

    def connection_made(self, transport: BaseTransport) -> None:
        stream = cast("Transport", transport)
        uid = peer_uid(stream.get_extra_info("socket"))
        super().connection_made(stream)
        if not admits(uid):
            # Not one byte of a stranger is parsed.
            stream.abort()
            return
        self.client = (str(uid), 0)
