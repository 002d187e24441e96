"""An agent of bare sockets that sends what no client library would, and returns every byte that comes back."""

import base64
import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class RawAgent:
    """At the door with a credential (None: without one)."""

    door: tuple[str, int]
    authority: Path
    """PEM of the product's authority."""
    token: str | None

    def authorization(self) -> bytes:
        """The proxy's credential as a header line; nothing without one."""
        if self.token is None:
            return b""
        return b"Proxy-Authorization: Basic " + base64.b64encode(b"agent:" + self.token.encode()) + b"\r\n"

    def at_the_door(self, raw: bytes) -> bytes:
        """What the door answers to these bytes: one counted answer, or all until it closes."""
        with socket.create_connection(self.door, SECONDS) as sock:
            return _exchange(sock, raw)

    def tunnel(self, host: str) -> ssl.SSLSocket:
        """An open tunnel to the host. The caller closes it."""
        sock = socket.create_connection(self.door, SECONDS)
        sock.sendall(b"CONNECT %b:443 HTTP/1.1\r\nHost: %b:443\r\n" % (host.encode(), host.encode()))
        sock.sendall(self.authorization() + b"\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(1)
            assert data, head
            head += data
        assert head.startswith(b"HTTP/1.1 200 "), head
        return ssl.create_default_context(cafile=str(self.authority)).wrap_socket(sock, server_hostname=host)

    def inside(self, host: str, raw: bytes) -> bytes:
        """What comes back through a tunnel to the host for these bytes: as above."""
        with self.tunnel(host) as tunnel:
            return _exchange(tunnel, raw)

    def get(self, host: str, target: str, *more: bytes) -> bytes:
        """The whole answer to one ordinary request."""
        lines = [f"GET {target} HTTP/1.1".encode(), b"Host: " + host.encode(), b"Connection: close", *more]
        return self.inside(host, b"\r\n".join(lines) + b"\r\n\r\n")


def code_of(answer: bytes) -> str | None:
    """The code in an answer's headers."""
    for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name == b"Exeat-Code":
            return value.decode()
    return None


def _exchange(sock: socket.socket, raw: bytes) -> bytes:
    received = b""
    # A door that has read enough closes while we still send: what it answered before counts.
    with contextlib.suppress(OSError):
        sock.sendall(raw)
    with contextlib.suppress(OSError):
        while not _whole(received) and (data := sock.recv(65536)):
            received += data
    return received


def _whole(received: bytes) -> bool:
    """True for a counted answer that is there to its end. A tunnel's 200 has no length: what follows is read on."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\nContent-Length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])
