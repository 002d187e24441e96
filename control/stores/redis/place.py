"""Where the server is, and how to be let in: an address, a certificate's authority, a password from a file."""

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from credentials.secret import Secret

PORT: Final = 6379
MAX_FILE_BYTES: Final = 4096


class RedisRefused(Exception):
    """The server, or what leads to it, must not be used as it is. The operator has to look."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(f"{message}. {fix}")
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Place:
    """A server's address and what it asks of whoever connects."""

    host: str
    port: int
    path: str
    """Of a Unix socket; empty for TCP."""
    database: int
    tls: ssl.SSLContext | None
    user: str
    """Empty: the server's default user."""
    password: Secret | None

    @classmethod
    def parse(cls, url: str, *, auth_file: Path | None = None, ca_file: Path | None = None) -> "Place":
        """`redis://host:6379/0`, `rediss://host` (TLS) or `unix:///path`.

        `auth_file` holds `user:password` in one line, or the password alone. Raises `RedisRefused`.
        """
        parts = urlsplit(url)
        if parts.password is not None or parts.username is not None:
            raise RedisRefused(
                "a user or password in the address is seen by everybody who lists processes",
                "Put user:password into a file of mode 0600 and name the file.",
            )
        if parts.scheme not in ("redis", "rediss", "unix") or parts.query or parts.fragment:
            raise RedisRefused(
                f"{url} is no address of a server", "Write redis://HOST:PORT, rediss:// or unix:///PATH."
            )
        if ca_file is not None and parts.scheme != "rediss":
            raise RedisRefused(
                "a certificate authority is named, but the address is not TLS", "Write rediss://HOST:PORT."
            )
        user, password = ("", None) if auth_file is None else _read_auth(auth_file)
        if parts.scheme == "unix":
            return cls("", 0, unquote(parts.path), 0, None, user, password)
        try:
            port = parts.port or PORT
            database = int(parts.path.strip("/") or 0)
        except ValueError as error:
            raise RedisRefused(f"{url} is no address of a server", "The port and the database are numbers.") from error
        if not parts.hostname or database < 0:
            raise RedisRefused(f"{url} names no host or no database", "Write redis://HOST:PORT/0.")
        tls = _tls(ca_file) if parts.scheme == "rediss" else None
        return cls(parts.hostname, port, "", database, tls, user, password)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:  # ssl.SSLError is one
        raise RedisRefused(f"{ca_file}: {error}", "Name a file with certificates in PEM form.") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_auth(path: Path) -> tuple[str, Secret]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
                raise RedisRefused(f"others can read {path}, or it is no file", f"Run: chmod 600 {path}")
            line = file.read(MAX_FILE_BYTES).strip()
    except OSError as error:
        raise RedisRefused(f"{path}: {error.strerror}", "Name a readable file with user:password in it.") from error
    user, colon, password = line.partition(b":")
    if not colon:
        user, password = b"", line
    if not password or b"\n" in line or not user.isascii():
        raise RedisRefused(f"{path} holds no user:password", "Write one line: user:password.")
    return user.decode(), Secret(password)
