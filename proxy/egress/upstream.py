"""One connection to one origin, and the exchange it carries.

    upstream = await pool.acquire(route)
    upstream.begin("POST")
    upstream.write(head + body, last=True)
    head = await upstream.next_head()
    while piece := await upstream.next_body():
        ...
    pool.release(upstream)

Nothing is read from the origin while more than `pause_bytes` are unread; `drain()` waits while the origin does not
read. A response that came before an error is handed out before the error is raised. `abort()` cuts at once and may be
called at any time; every waiter then gets UpstreamBroken. A connection that receives a byte nobody asked for is cut.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable

from proxy.egress.denied_keys import KeyDenied
from proxy.egress.errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable, UpstreamUntrusted
from proxy.egress.route import PoolLimits, Route
from proxy.egress.tls import TlsSession
from proxy.http.errors import ResponseRefused
from proxy.http.limits import HttpLimits
from proxy.http.response import ResponseHead, ResponseParser


class Upstream(asyncio.BufferedProtocol):
    """See the module. Made by the pool's dialling; used by one exchange at a time."""

    def __init__(
        self, route: Route, sock: socket.socket, limits: PoolLimits, http_limits: HttpLimits, buffer: memoryview
    ) -> None:
        self.route = route
        self.peer: tuple[str, int] = sock.getpeername()[:2]
        self.reused = False
        """True where an earlier exchange has used this connection."""
        self.bytes_received = 0
        """Response bytes of this exchange, in any state of reading: 0 means that the origin has not answered at all."""
        self.on_lost: Callable[[Upstream], None] | None = None
        self.on_news: Callable[[], None] | None = None
        """Called when the response's head is here and when the connection ends, for who is busy sending."""
        self.lost = False
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self.idle_since = 0.0
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._limits = limits
        self._http_limits = http_limits
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._tls: TlsSession | None = None
        self._parser: ResponseParser | None = None
        self._request_sent = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._read_paused = False
        self._goodbye = False
        self._deadline = 0.0
        self._watch: asyncio.TimerHandle | None = None

    # --- one exchange -------------------------------------------------------------------------------------------------

    def begin(self, method: str) -> None:
        """Start an exchange whose request has this method. Raises UpstreamBroken where the connection is gone."""
        if self._error is not None or self.lost:
            raise self._error or UpstreamBroken("the origin closed the connection")
        self._parser = ResponseParser(method, self._http_limits)
        self._request_sent = False
        self.bytes_received = 0

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send request bytes; `last` with the final ones, without which the connection is not used again.

        Follow with `drain()` when streaming. Raises the connection's error.
        """
        if self._error is not None or self._transport is None or self._parser is None:
            raise self._error or UpstreamBroken("the origin closed the connection")
        if last:
            self._request_sent = True
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self._fail(UpstreamBroken("the origin broke TLS", str(error)))
            raise self._error or UpstreamBroken("the origin broke TLS") from None
        self._transport.write(self._tls.outgoing())

    async def drain(self) -> None:
        """Return when the origin has taken enough that more may be written. Raises the connection's error."""
        while self._write_paused and self._error is None:
            if self._writable is None:
                self._writable = self._loop.create_future()
            # As a reader waits, so does a writer: an origin that takes nothing for that long is gone.
            self._arm(self._loop.time() + self._limits.body_timeout_seconds)
            await asyncio.shield(self._writable)
        if self._error is not None:
            raise self._error

    async def next_head(self) -> ResponseHead:
        """The final response's head. Raises UpstreamTimeout or UpstreamBroken.

        The time is for the whole head: an origin that sends it byte by byte has no more of it than a silent one.
        """
        parser = self._exchange()
        deadline = self._loop.time() + self._limits.head_timeout_seconds
        while parser.head is None:
            await self._wait(deadline)
        return parser.head

    async def next_body(self) -> bytes:
        """The next piece of the body, b"" at its end. Raises UpstreamTimeout or UpstreamBroken."""
        parser = self._exchange()
        deadline = self._loop.time() + self._limits.body_timeout_seconds
        while True:
            piece = parser.take_body()
            if piece:
                if self._read_paused and self._transport is not None and not self.lost:
                    self._read_paused = False
                    self._transport.resume_reading()
                return piece
            if parser.complete:
                return b""
            await self._wait(deadline)

    @property
    def answered(self) -> bool:
        """True where the final response's head is here."""
        return self._parser is not None and self._parser.head is not None

    @property
    def awaits_body(self) -> bool:
        """False once it is pointless to go on sending: the connection is gone, or the origin refused before it had all.

        RFC 9112 section 9.5: a client that sees an error response while it sends SHOULD stop. Any other
        early answer may need the rest.
        """
        if self._error is not None or self.lost:
            return False
        head = None if self._parser is None else self._parser.head
        return head is None or (head.status < 400 and head.keep_alive)

    @property
    def response_complete(self) -> bool:
        """True where the response's last byte has been received, read or not."""
        return self._parser is not None and self._parser.complete

    @property
    def reusable(self) -> bool:
        """True where the connection stands exactly between two exchanges and is sound."""
        return (
            self._error is None
            and not self.lost
            and self._request_sent
            and self._parser is not None
            and self._parser.reusable
            and self._parser.buffered == 0
            and self._transport is not None
            and not self._transport.is_closing()
            and self._transport.get_write_buffer_size() == 0
        )

    def rest(self) -> None:
        """The exchange is over: from now on any byte from the origin is one too many."""
        self._parser = None
        self._request_sent = False
        self.idle_since = self._loop.time()

    @property
    def healthy(self) -> bool:
        """True for a resting connection that the origin has neither closed nor spoken on, also not in this very
        moment."""
        if self._error is not None or self.lost or self._transport is None or self._transport.is_closing():
            return False
        # Anything to read on a resting connection, also its end, disqualifies it. Without this look a POST would go
        # out on a connection whose close is in the kernel but not yet in the loop, and end as indeterminate.
        return not self._poll.poll(0)

    def abort(self) -> None:
        """Cut at once: nothing buffered is sent, nothing more is read, every waiter gets UpstreamBroken."""
        self._fail(UpstreamBroken("the connection was cut"))

    def close(self) -> None:
        """Close in order after a complete exchange; cut where the origin has not even taken the request."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size():
            self.abort()
            return
        if self._tls is not None:
            transport.write(self._tls.goodbye())
        if self._error is None:
            self._error = UpstreamBroken("the connection was closed")
        transport.close()

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _exchange(self) -> ResponseParser:
        if self._parser is None:
            raise RuntimeError("no exchange has begun")
        return self._parser

    async def _wait(self, deadline: float) -> None:
        """Return after the next thing has happened. Raises the connection's error."""
        if self._error is not None:
            raise self._error
        self._arm(deadline)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _arm(self, deadline: float) -> None:
        # One lazy timer a connection: most waits end long before it, so it is moved when it fires and not at every
        # wait.
        self._deadline = deadline
        if self._watch is None or self._watch.when() > deadline:
            if self._watch is not None:
                self._watch.cancel()
            self._watch = self._loop.call_at(deadline, self._on_watch)

    def _on_watch(self) -> None:
        self._watch = None
        waiting = self._waiter is not None or (self._writable is not None and not self._writable.done())
        if not waiting or self._error is not None:
            return
        if self._loop.time() < self._deadline:
            self._watch = self._loop.call_at(self._deadline, self._on_watch)
            return
        self._fail(UpstreamTimeout("the origin did not answer in time"))

    def _wake(self) -> None:
        if self.on_news is not None:
            self.on_news()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _release_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()
        self._release_writer()

    # --- the transport's side -----------------------------------------------------------------------------------------

    async def handshake(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Verify the origin for `server_hostname`. Raises UpstreamUntrusted or UpstreamUnreachable; the caller
        aborts then."""
        if self._transport is None:
            raise RuntimeError("not connected")
        self._tls = TlsSession(context, server_hostname, self.route.denied_keys)
        self._step_handshake(self._tls)
        while not self._tls.established:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error

    def _step_handshake(self, tls: TlsSession) -> None:
        try:
            done = tls.handshake()
        except ssl.SSLCertVerificationError as error:
            self._refuse_peer(tls, "the origin's certificate does not verify", error.verify_message)
            return
        except KeyDenied as error:
            self._refuse_peer(tls, "the origin's certificate rests on a key that must not be trusted", str(error))
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            self._refuse_peer(tls, "no TLS session could be established", str(error))
            return
        self._flush(tls)
        if done:
            self._wake()

    def _refuse_peer(self, tls: TlsSession, detail: str, operator_detail: str) -> None:
        self._flush(tls)  # the alert
        self._fail(UpstreamUntrusted(detail, operator_detail))

    def _flush(self, tls: TlsSession) -> None:
        data = tls.outgoing()
        if data and self._transport is not None:
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        # One buffer for all connections of a loop: it is emptied before the loop reads another socket.
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._error is not None:
            return
        data = self._buffer[:nbytes]
        tls = self._tls
        if tls is None:
            self._received(bytes(data))
            return
        tls.receive(data)
        if not tls.established:
            self._step_handshake(tls)
            if not tls.established:
                return
        try:
            while (plain := tls.read()) is not None:
                if not plain:
                    self._goodbye = True
                    self._ended()
                    return
                if not self._received(plain):
                    return
        except ssl.SSLError as error:
            self._fail(UpstreamBroken("the origin broke TLS", str(error)))
            return
        self._flush(tls)

    def _received(self, data: bytes) -> bool:
        """Take plaintext; False where the connection failed over it."""
        parser = self._parser
        if parser is None:
            self._fail(UpstreamBroken("the origin spoke unasked"))
            return False
        self.bytes_received += len(data)
        try:
            parser.feed(data)
        except ResponseRefused as refusal:
            self._fail(UpstreamBroken("the origin broke HTTP", refusal.detail))
            return False
        if parser.buffered > self._limits.pause_bytes and not self._read_paused and self._transport is not None:
            self._read_paused = True
            self._transport.pause_reading()
        self._wake()
        return True

    def eof_received(self) -> bool:
        self._ended()
        return False  # the transport closes

    def _ended(self) -> None:
        """The origin sends no more."""
        parser = self._parser
        if self._tls is not None and not self._tls.established and self._error is None:
            self._error = UpstreamUnreachable("the origin broke off the TLS handshake")
        if parser is not None and not parser.complete and self._error is None:
            try:
                parser.eof(clean=self._tls is None or self._goodbye)
            except ResponseRefused as refusal:
                self._error = UpstreamBroken("the origin closed the connection", refusal.detail)
        if self._error is None:
            self._error = UpstreamBroken("the origin closed the connection")
        if self._transport is not None:
            self._transport.abort()
        self._wake()
        self._release_writer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._error is None:
            self._ended()
        self.lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.on_lost is not None:
            self.on_lost(self)
        self._wake()
        self._release_writer()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._release_writer()
