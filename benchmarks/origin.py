"""The service that is called: TLS 1.3, HTTP/1.1 keep-alive, one constant reply. A process of its own.

`python -m benchmarks.origin CERTIFICATE` prints its port on the first line and serves until its standard input closes.
Written on epoll by hand because it shares a core with the client: every microsecond here is missing there. It answers
401 to a request without the secret, so a proxy that lost it cannot be measured as if it worked.
"""

import os
import re
import select
import socket
import ssl
import sys
from typing import Final

from benchmarks.wire import REPLY, SECRET

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_UNAUTHORIZED: Final = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LENGTH_REQUIRED: Final = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_HEADS_REMEMBERED: Final = 64


class _Served:
    """One connection of a proxy."""

    __slots__ = ("buffer", "greeted", "sock")

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.greeted = False
        self.buffer = b""


class Origin:
    """Serves until `stdin` ends."""

    def __init__(self, certificate: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._served: dict[int, _Served] = {}
        self._heads: dict[bytes, int] = {}

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        listening, commands = self._listener.fileno(), sys.stdin.fileno()
        self._epoll.register(listening, select.EPOLLIN)
        self._epoll.register(commands, select.EPOLLIN | select.EPOLLHUP)
        while True:
            for number, _ in self._epoll.poll():
                served = self._served.get(number)
                if served is not None:
                    self._advance(number, served)
                elif number == listening:
                    self._accept()
                elif not os.read(commands, 1):
                    return

    def _accept(self) -> None:
        try:
            plain, _ = self._listener.accept()
        except BlockingIOError:
            return
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._served[sock.fileno()] = _Served(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _advance(self, number: int, served: _Served) -> None:
        try:
            if not served.greeted:
                served.sock.do_handshake()
                served.greeted = True
            data = served.sock.recv(65536)
            if data:
                served.buffer += data
                self._answer(served)
                return
        except _WAITING:
            return
        except OSError:
            pass  # a peer that goes away ends its connection, as at any server
        del self._served[number]
        self._epoll.unregister(number)
        served.sock.close()

    def _answer(self, served: _Served) -> None:
        while (end := served.buffer.find(b"\r\n\r\n")) >= 0:
            head = served.buffer[:end]
            length = self._heads.get(head)
            if length is None:
                length = self._read_head(served, head)
                if length is None:
                    return
            total = end + 4 + length
            if len(served.buffer) < total:
                return
            served.buffer = served.buffer[total:]
            served.sock.send(REPLY)  # 540 bytes into an empty socket buffer: never partial

    def _read_head(self, served: _Served, head: bytes) -> int | None:
        found = _LENGTH.search(head)
        if SECRET.encode() not in head or found is None:
            served.sock.send(_LENGTH_REQUIRED if found is None else _UNAUTHORIZED)
            served.buffer = b""
            return None
        if len(self._heads) >= _HEADS_REMEMBERED:
            self._heads.clear()
        self._heads[head] = int(found[1])
        return int(found[1])


def main() -> None:
    origin = Origin(sys.argv[1])
    print(origin.port, flush=True)
    origin.serve()


if __name__ == "__main__":
    main()
