"""TLS on a listener that agents reach from other machines: everything an agent sends is inside it, CONNECT too.

    TCP --(TLS as this gate)--> OuterTls --> AgentConnection --(CONNECT, TLS as the service)--> session

To the connection behind it, `OuterTls` is a transport like a plain socket's: it pauses and resumes, closes with a
close_notify and cuts without one. A connection is handed on when its handshake is done. Until then it counts as one of
a few handshakes in progress, of which the oldest gives way: an honest one takes milliseconds, and whoever opens
connections to leave them hanging pushes out his own.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, cast

from OpenSSL import SSL

from proxy.engine.connection import AgentConnection
from proxy.engine.tls import AgentTls
from proxy.wire import HandshakeRefused

logger = logging.getLogger("exeat.gate")

_TLS_HANDSHAKE: Final = 0x16
"""ContentType of the record a ClientHello comes in (RFC 8446 5.1)."""
PLAIN_HTTP: Final = "this listener speaks TLS: the address begins with https://"
_PLAIN_HTTP_BODY: Final = (
    b'{"type": "about:blank", "title": "Bad Request", "status": 400, "code": "protocol_refused", "detail": "this '
    b"listener speaks TLS: the address begins with https://. A credential in this request has crossed the network in "
    b'plain text; have it revoked."}\n'
)
_PLAIN_HTTP_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nExeat-Code: protocol_refused\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(_PLAIN_HTTP_BODY)
) + _PLAIN_HTTP_BODY
"""Whoever spoke plain HTTP gets an answer that he can read, as nginx gives one."""
_LINGER_SECONDS: Final = 2.0
"""For that answer to be taken; closing at once on unread bytes would reset it away."""


class Handshakes:
    """The handshakes in progress on all TLS listeners of a gate."""

    def __init__(self, context: Callable[[], SSL.Context], *, seconds: float, at_most: int) -> None:
        self.context = context
        """Gives the context of this gate's own certificate, fresh for each handshake."""
        self.seconds = seconds
        self._at_most = at_most
        self._open: OrderedDict[OuterTls, None] = OrderedDict()
        self.given_way = 0
        """Handshakes that were cut because too many newer ones came."""

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, outer: "OuterTls") -> None:
        """The handshake counts; the oldest one is cut where there are too many."""
        self._open[outer] = None
        while len(self._open) > self._at_most:
            oldest, _ = self._open.popitem(last=False)
            self.given_way += 1
            oldest.abort()

    def end(self, outer: "OuterTls") -> None:
        """The handshake is over, one way or the other."""
        self._open.pop(outer, None)

    def abort(self) -> None:
        """Every handshake in progress is cut."""
        for outer in tuple(self._open):
            outer.abort()


class OuterTls(asyncio.Protocol, asyncio.Transport):
    """One accepted connection of a TLS listener: a protocol to the socket, a transport to the `AgentConnection`."""

    def __init__(
        self,
        handshakes: Handshakes,
        new_connection: Callable[[], AgentConnection],
        refused: Callable[[str, str], None],
    ) -> None:
        """`refused` is told the peer and, for operators, why a handshake that had begun did not come about."""
        super().__init__()
        self._handshakes = handshakes
        self._new_connection = new_connection
        self._refused = refused
        self._inner: AgentConnection | None = None
        self._early: list[bytes] = []
        self._heard = False
        self._rejected = False
        self._agent_ended = False
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol: towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        self._handshakes.begin(self)
        self._timer = asyncio.get_running_loop().call_later(self._handshakes.seconds, self._late)
        self._tls = AgentTls(
            None,
            lambda _: self._handshakes.context(),
            send=self._tcp.write,
            received=self._plain,
            ended=self._ended,
        )

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return  # What a refused peer still sends is thrown away.
        if not self._heard:
            self._heard = True
            if data[0] != _TLS_HANDSHAKE:
                self._answer_plain_http()
                return
        try:
            self._tls.feed(data)
        except HandshakeRefused as error:
            self._fail(error.detail)
        except SSL.Error as error:
            self._fail(f"TLS: {error!r}")
        else:
            if self._inner is None and self._tls.established:
                self._hand_on()

    def eof_received(self) -> bool:
        if self._inner is not None:
            return self._inner.eof_received()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        self._handshakes.end(self)
        if self._inner is not None:
            self._inner.connection_lost(error)
        elif self._heard and not self._rejected:
            self._report("closed during the handshake")

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # asyncio.Transport: towards the connection

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        try:
            self._tls.encrypt(bytes(data))
        except SSL.Error:
            self.abort()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """What was written is followed by a close_notify; what still comes is thrown away."""
        self._rejected = True
        self._tls.shut_down()
        self._tcp.write_eof()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def close(self) -> None:
        """What was written is sent, then a close_notify: the agent can tell this end from a cut."""
        if not self._tcp.is_closing():
            self._tls.shut_down()
            self._tcp.close()

    def abort(self) -> None:
        self._tcp.abort()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._tcp.get_extra_info(name, default)

    # inside

    def _hand_on(self) -> None:
        """The handshake is done: from here on this is a connection like any other."""
        self._stop_timer()
        self._handshakes.end(self)
        self._inner = inner = self._new_connection()
        inner.secure = True
        inner.connection_made(self)
        early, self._early = b"".join(self._early), []
        if early and not self.is_closing():
            inner.data_received(early)
        if self._agent_ended:
            self._pass_end_on(inner)

    def _plain(self, data: bytes) -> None:
        if self._inner is None:
            self._early.append(data)
        else:
            self._inner.data_received(data)

    def _ended(self) -> None:
        """The agent sent its close_notify."""
        self._agent_ended = True
        if self._inner is not None:
            self._pass_end_on(self._inner)

    def _pass_end_on(self, inner: AgentConnection) -> None:
        if not inner.eof_received():
            self.close()

    def _late(self) -> None:
        if self._heard and not self._rejected:
            self._report("no TLS handshake in time")
        self._rejected = True
        self.abort()

    def _fail(self, detail: str) -> None:
        if self._inner is None:
            self._report(detail)
        self._rejected = True
        self.abort()

    def _answer_plain_http(self) -> None:
        self._report(PLAIN_HTTP)
        self._rejected = True
        self._stop_timer()
        self._tcp.write(_PLAIN_HTTP_ANSWER)
        if self._tcp.can_write_eof():
            self._tcp.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.abort)

    def _report(self, detail: str) -> None:
        name = self._tcp.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else "local"
        logger.info("a TLS handshake with %s failed: %s", peer, detail)
        self._refused(peer, detail)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
