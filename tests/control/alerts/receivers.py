"""What alerts are sent to in these tests: real sockets that remember what came."""

import base64
import hmac
import socket
import ssl
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from types import TracebackType
from typing import Self

from tests.worlds.authority import Leaf
from tests.worlds.origin import Request


def wait_until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns once it is true; nothing is said of how long that takes."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def verified(request: Request, *keys: str) -> bool:
    """As a receiver verifies a webhook by the specification: some signature is of some key that it knows."""
    message_id, at = request.header("webhook-id"), request.header("webhook-timestamp")
    told = (request.header("webhook-signature") or "").split(" ")
    signed = f"{message_id}.{at}.".encode() + request.body
    for key in keys:
        mac = hmac.new(base64.b64decode(key.removeprefix("whsec_")), signed, sha256).digest()
        if any(hmac.compare_digest(one, "v1," + base64.b64encode(mac).decode()) for one in told):
            return abs(time.time() - int(at or 0)) < 300
    return False


class SyslogReceiver:
    """Takes syslog over a stream, in TLS with a `leaf`. `deaf`: cuts each connection before it has read anything."""

    def __init__(self, leaf: Leaf | None = None, *, deaf: bool = False) -> None:
        self._context = None if leaf is None else leaf.server_context()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.deaf = deaf
        self.messages: list[bytes] = []
        self.cut = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self.deaf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
                self.cut += 1
                continue
            try:
                stream = sock if self._context is None else self._context.wrap_socket(sock, server_side=True)
                with stream:
                    self._read(stream)
            except (OSError, ssl.SSLError):
                continue

    def _read(self, stream: socket.socket) -> None:
        held = b""
        while data := stream.recv(4096):
            held += data
            while b" " in held:
                length, _, rest = held.partition(b" ")
                if len(rest) < int(length):
                    break
                self.messages.append(rest[: int(length)])
                held = rest[int(length) :]
        if isinstance(stream, ssl.SSLSocket):
            stream.unwrap()
