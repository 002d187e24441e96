"""mitmproxy's client TLS layer, driven directly: no tasks, no swallowed exceptions, no next-layer guessing.

The layer is sans-IO: events go in, commands come out. `AgentTls` feeds it the agent's bytes and carries out its
commands at once. Its two hooks (ClientHello seen; certificate wanted) are answered by plain calls whose exceptions
end the connection.
"""

from collections.abc import Callable
from typing import Final

from mitmproxy import options
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import tls
from OpenSSL import SSL

from proxy.wire import HandshakeRefused

_RECORD: Final = 16_384
"""The largest plaintext of one TLS record (RFC 8446 5.1); reads are done in twice that, not in mitmproxy's 64 KiB."""

_OPTIONS: Final = options.Options()
"""Frozen by never being handed out: mitmproxy's defaults, of which the TLS layer reads none that weakens it."""


_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_HEADER: Final = 5
_HANDSHAKE_HEADER: Final = 4
_MAX_HANDSHAKE_BYTES: Final = 32 * 1024
"""From the agent until the handshake is done. A ClientHello has some 300 to 2,000 bytes, a Finished 100."""
_MAX_HANDSHAKE_PIECES: Final = 64
_SLICE: Final = 1024
"""What may come with the end of the handshake is looked at in slices: `_guard` watches from the next one on."""
MAX_LATER_MESSAGES: Final = 128
"""Handshake messages after the handshake. Libraries change keys once in millions of records, if ever."""


def _count_message(connection: SSL.Connection, where: int, _result: int) -> None:
    """Called for each handshake message after the handshake.

    TLS 1.3 lets a peer change its key as often as it likes (RFC 8446 4.6.3); each time costs OpenSSL as much as a
    thousand bytes of data, all of them within one call. Who does it without end is taken for gone.
    """
    if not where & SSL.SSL_CB_LOOP:
        return
    messages = int(connection.get_app_data() or 0) + 1
    connection.set_app_data(messages)
    if messages > MAX_LATER_MESSAGES:
        connection.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)


_guard: Final = SSL.Context(SSL.TLS_SERVER_METHOD)
"""Takes a context's place when its handshake is done: a callback in every handshake would cost a tenth of it."""
_guard.set_info_callback(_count_message)


class _Root(layer.Layer):
    """mitmproxy's TLS layer wants a parent in the stack. This one does nothing."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from ()


class _ClientTls(tls.ClientTLSLayer):
    """The TLS layer with a byte pipe where the next layer would be."""

    def __init__(self, context: Context, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        super().__init__(context)
        self._received = received
        self._ended = ended

    def event_to_child(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self._received(event.data)
        elif isinstance(event, events.ConnectionClosed):
            self._ended()
        yield from ()

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        """As mitmproxy's, in record-sized reads and without an event for each."""
        connection = self.tls
        if data:
            connection.bio_write(data)
        parts: list[bytes] = []
        closed = False
        while True:
            try:
                parts.append(connection.recv(2 * _RECORD))
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                closed = True
                break
        # After recv(), which may have moved the state machine (key updates, alerts).
        yield from self.tls_interact()
        if parts:
            self._received(parts[0] if len(parts) == 1 else b"".join(parts))
        if closed:
            self._ended()

    def on_handshake_error(self, err: str) -> layer.CommandGenerator[None]:
        raise HandshakeRefused(err)


class AgentTls:
    """TLS with one agent, as `host`. Feed it what the socket receives; it writes what the socket shall send.

    `host` None takes any server name and none: what the certificate is for is then the caller's business.
    """

    def __init__(
        self,
        host: str | None,
        context_for: Callable[[str], SSL.Context],
        *,
        send: Callable[[bytes], None],
        received: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._host = host
        self._context_for = context_for
        self._send = send
        client = Client(peername=("agent", 0), sockname=("exeat", 0), timestamp_start=0.0, state=ConnectionState.OPEN)
        context = Context(client, _OPTIONS)
        _Root(context)
        self._client = client
        self._hello: bytearray | None = bytearray()
        """The ClientHello as far as it is here; None once it has been handed on."""
        self._handshake_bytes = 0
        self._handshake_pieces = 0
        self._layer = _ClientTls(context, received, ended)
        self._drive(events.Start())

    @property
    def established(self) -> bool:
        """True once the handshake is done."""
        return self._client.timestamp_tls_setup is not None

    def feed(self, data: bytes) -> None:
        """Handles bytes from the socket. Raises `HandshakeRefused` or `SSL.Error`; the caller must abort."""
        if self._client.timestamp_tls_setup is None:
            if self._handshake_bytes > _MAX_HANDSHAKE_BYTES:
                raise HandshakeRefused("the handshake is too long")
            self._handshake_bytes += len(data)
            self._handshake_pieces += 1
            if self._hello is not None:
                self._hello += data
                if not self._hello_is_whole(self._hello):
                    return
                data, self._hello = bytes(self._hello), None
                self._handshake_pieces = 0
                self._drive(events.DataReceived(self._client, data))
                return
            if self._handshake_pieces > _MAX_HANDSHAKE_PIECES:
                raise HandshakeRefused("the handshake comes in too many pieces")
            data = self._finish_handshake(data)
            if not data:
                return
        # Established: what the layer's dispatch would call in the end, without an event and two generators for each.
        for command in self._layer.receive_data(data):
            if isinstance(command, commands.SendData):
                self._send(command.data)

    def _finish_handshake(self, data: bytes) -> bytes:
        """What is left of `data` when the handshake is done; nothing while it is not."""
        for at in range(0, len(data), _SLICE):
            self._drive(events.DataReceived(self._client, data[at : at + _SLICE]))
            if self.established:
                self._layer.tls.set_context(_guard)
                return data[at + _SLICE :]
        return b""

    def encrypt(self, data: bytes) -> None:
        """Sends application data. Raises `SSL.Error`; the caller must abort."""
        connection = self._layer.tls
        connection.sendall(data)
        size = len(data) + 1024 if len(data) < 4 * _RECORD else 4 * _RECORD
        while True:
            try:
                encrypted = connection.bio_read(size)
            except SSL.WantReadError:
                return
            self._send(encrypted)
            if len(encrypted) < size:
                return  # A memory BIO gives all it has; asking an empty one costs an exception.

    def shut_down(self) -> None:
        """Tells the agent that no more data comes (close_notify), so that it can tell an end from a cut."""
        try:
            self._layer.tls.shutdown()
            self._send(self._layer.tls.bio_read(_RECORD))
        except SSL.Error:
            return  # The agent is gone already; there is nobody left to tell.

    def _drive(self, event: events.Event) -> None:
        pending: list[events.Event] = [event]
        while pending:
            for command in self._layer.handle_event(pending.pop(0)):
                if isinstance(command, commands.SendData):
                    self._send(command.data)
                elif isinstance(command, tls.TlsClienthelloHook):
                    self._check_server_name(command.data.client_hello.sni)
                    pending.append(events.HookCompleted(command))
                elif isinstance(command, tls.TlsStartClientHook):
                    connection = SSL.Connection(self._context_for(self._host or ""))
                    connection.set_accept_state()
                    command.data.ssl_conn = connection
                    pending.append(events.HookCompleted(command))
                elif isinstance(command, commands.StartHook):
                    pending.append(events.HookCompleted(command))
                elif isinstance(command, commands.CloseConnection):
                    raise HandshakeRefused("closed by the TLS layer")
                elif not isinstance(command, commands.Log):
                    raise HandshakeRefused(f"unexpected command {type(command).__name__}")

    @staticmethod
    def _hello_is_whole(received: bytearray) -> bool:
        """Whether the ClientHello can be handed on, in one piece. Raises `HandshakeRefused`.

        mitmproxy's layer parses all it has from the start with every segment that arrives: a hello in thousands of
        pieces would hold the event loop for seconds, and with it every revocation. It has to lie in one record, as
        every client of today sends it (RFC 8446 5.1 would allow more).
        """
        if len(received) < _RECORD_HEADER + _HANDSHAKE_HEADER:
            return False
        kind, length, message = received[0], int.from_bytes(received[3:5]), received[5]
        hello = int.from_bytes(received[6:9])
        if kind != _HANDSHAKE or message != _CLIENT_HELLO or length > _RECORD:
            raise HandshakeRefused("what came is no ClientHello")
        if hello + _HANDSHAKE_HEADER > length:
            raise HandshakeRefused("the ClientHello is spread over several records")
        return len(received) >= _RECORD_HEADER + length

    def _check_server_name(self, server_name: str | None) -> None:
        """RFC 6066 3: the server name is what the agent believes to talk to; it must be what it asked us for.

        An IP literal is never sent as server name, so none is right for one.
        """
        if self._host is None:
            return
        literal = ":" in self._host or self._host.replace(".", "").isdigit()
        if literal and server_name is None:
            return
        if server_name is None or server_name.lower() != self._host:
            raise HandshakeRefused("server name differs from the CONNECT host", mismatch=True)
