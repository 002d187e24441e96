"""One accepted connection: the `Wire` on an asyncio transport, first plain, then inside TLS."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from OpenSSL import SSL

from proxy.engine.tls import AgentTls
from proxy.wire import HandshakeRefused, WireClosed

HIGH_WATER: Final = 256 * 1024
"""Unread bytes above which the agent's socket is no longer read."""
LOW_WATER: Final = 64 * 1024


class AgentConnection(asyncio.Protocol):
    """Implements `proxy.wire.Wire`."""

    def __init__(
        self, context_for: Callable[[str, str], SSL.Context], accept: "Callable[[AgentConnection], None]"
    ) -> None:
        self._context_for = context_for
        self._accept = accept
        self._tls: AgentTls | None = None
        self._handshake: asyncio.Future[None] | None = None
        self._inbox: list[bytes] = []
        self._unread = 0
        self._reader: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._loss: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._ended = False
        self.peer = "local"
        self.secure = False
        self.lost = False
        self.on_lost: Callable[[], None] | None = None
        self.defer: Callable[[Callable[[], None]], bool] | None = None
        self._late = b""
        """Received and not yet decrypted: the account's other work comes first."""
        self._late_end = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = str(name[0])
        self._accept(self)

    def data_received(self, data: bytes) -> None:
        if self._late:
            self._late += data  # it was on its way while reading was being paused
        elif self.defer is not None and self._handshake is None and self.defer(self._catch_up):
            self._late = bytes(data)
            self._transport.pause_reading()
        else:
            self._take(data)

    def _catch_up(self) -> None:
        data, self._late = self._late, b""
        if self.lost or self._transport.is_closing():
            return
        if not self._reading_paused:
            self._transport.resume_reading()
        self._take(data)
        if self._late_end:
            self._end()

    def _take(self, data: bytes) -> None:
        if self._tls is None:
            self._received(data)
            return
        try:
            self._tls.feed(data)
        except HandshakeRefused as error:
            self._fail_handshake(error)
        except SSL.Error as error:
            if self._handshake is not None:
                self._fail_handshake(HandshakeRefused(f"TLS: {error!r}"))
            else:
                self.abort()
        else:
            if self._handshake is not None and self._tls.established:
                if not self._handshake.done():
                    self._handshake.set_result(None)
                self._handshake = None

    def eof_received(self) -> bool:
        if self._late:
            self._late_end = True
            return True  # the transport stays until what came before the end was taken
        self._end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._loss is not None and not self._loss.done():
            self._loss.set_result(None)
        self._end()
        if self._handshake is not None:
            self._fail_handshake(HandshakeRefused("closed during the handshake"))
        self._wake_drainer()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake_drainer()

    # Wire

    @property
    def unread(self) -> int:
        return self._unread

    async def peek(self) -> bytes:
        while not self._inbox and not self._ended:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._inbox[0] if self._inbox else b""

    def unread_first(self, data: bytes) -> None:
        self._inbox.insert(0, data)
        self._unread += len(data)

    async def read(self) -> bytes:
        if not self._inbox and not await self.peek():
            return b""
        data = self._inbox[0] if len(self._inbox) == 1 else b"".join(self._inbox)
        self._inbox.clear()
        self._unread = 0
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def start_tls(self, host: str, tenant: str) -> None:
        self._handshake = handshake = asyncio.get_running_loop().create_future()
        try:
            self._tls = AgentTls(
                host,
                lambda name: self._context_for(tenant, name),
                send=self._transport.write,
                received=self._received,
                ended=self._end,
            )
            early = b"".join(self._inbox)
            self._inbox.clear()
            self._unread = 0
            if early:
                self._take(early)
            elif self._ended:
                raise HandshakeRefused("closed before the handshake")
            await handshake
        finally:
            self._handshake = None

    def write(self, data: bytes) -> None:
        if self.lost:
            return
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._tls.encrypt(data)
        except SSL.Error:
            self.abort()

    async def drain(self) -> None:
        if self.lost:
            raise WireClosed
        if self._writing_paused:
            self._drainer = asyncio.get_running_loop().create_future()
            try:
                await self._drainer
            finally:
                self._drainer = None
            if self.lost:
                raise WireClosed

    @property
    def backlogged(self) -> bool:
        return self._writing_paused

    async def wait_lost(self) -> None:
        while not self.lost:
            self._loss = asyncio.get_running_loop().create_future()
            try:
                await self._loss
            finally:
                self._loss = None

    def close(self) -> None:
        if self._tls is not None and self._tls.established and not self.lost:
            self._tls.shut_down()
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def refuse(self, data: bytes) -> None:
        """The bytes are on their way and nothing follows them; whoever accepted the connection cuts it later."""
        self._transport.write(data)
        self._transport.write_eof()

    # inside

    def _received(self, data: bytes) -> None:
        self._inbox.append(data)
        self._unread += len(data)
        if self._unread > HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._wake_reader()
        if self.on_lost is not None:
            self.on_lost()

    def _fail_handshake(self, error: HandshakeRefused) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None and not handshake.done():
            handshake.set_exception(error)
        else:
            self.abort()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_drainer(self) -> None:
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)
