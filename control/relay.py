"""The relay: gives an agent a proxy on loopback whose password is worth nothing elsewhere.

    agent --(account:password of this run)--> relay --(account:credential)--> door

A program that ignores proxies calls the relay itself, `/to/<connection>/...`, with the password for its API key.

(1) The agent knows a random password that lives as long as the run; only this relay accepts it.
(2) The relay exchanges it for the credential of the moment in the head of each connection, then pipes bytes blindly,
    reading from one side only as fast as the other takes them.
(3) The credential is renewed elsewhere (`control.renewal`); connections opened from then on carry the new one. The door
    ends tunnels whose credential grows old between two responses, so a client's keep-alive pool comes back here.

The credential is never in the agent's environment, in an argument list, or in anything printed.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from control.relay_head import (
    MAX_HEAD_BYTES,
    Form,
    HeadRefused,
    RelayHead,
    encode_basic,
    for_the_door,
    parse_relay_head,
)
from control.relay_password import PasswordMissing, PasswordWrong, without_password
from credentials.secret import Secret

logger = logging.getLogger("exeat.relay")

HEAD_TIMEOUT_SECONDS = 30.0
"""As long as the door waits for a head."""
CONNECT_TIMEOUT_SECONDS = 5.0
"""The door is on this machine or near it; a longer wait hides that it is gone."""
LINGER_SECONDS = 2.0
"""How long a refused agent may go on sending before it is cut; closing at once would reset the answer away."""
MAX_CONNECTIONS = 512
"""More than any SDK's pool opens; below the usual limit of 1,024 file descriptors with two for each connection."""


@dataclass(slots=True)
class RelayCounts:
    """What this relay has seen since it started."""

    opened: int = 0
    challenged: int = 0
    """Heads without a password; many clients ask first and present it second."""
    refused: int = 0
    """Heads with a wrong password, malformed heads, and connections beyond the bound."""
    door_unreachable: int = 0


@dataclass(slots=True)
class DoorAccess:
    """Where the door is and what to present there; replaced in place when the credential is renewed."""

    host: str
    port: int
    account: str
    token: Secret
    tls: ssl.SSLContext | None = None
    """Set where the door speaks TLS: verifies it, for `server_name`."""
    server_name: str | None = None


@dataclass(slots=True)
class Relay:
    """A loopback listener for one run."""

    access: DoorAccess
    host: str = "127.0.0.1"
    """An address of this machine's loopback: what is sent to a relay is not encrypted."""
    fixed_port: int = 0
    """0: any free one."""
    password: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(32)))
    counts: RelayCounts = field(default_factory=RelayCounts)
    trust_folder: Path | None = None
    """Where this run's certificates were written; written anew when there are others to trust."""
    _server: asyncio.Server | None = None
    _open: set["_AgentSide"] = field(default_factory=set)
    _left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection has ended."""

    async def start(self, listener: socket.socket | None = None) -> None:
        """The relay listens: on `listener`, of any network namespace, if there is one. Raises `OSError` when the port
        is taken."""
        loop = asyncio.get_running_loop()
        if listener is not None:
            self._server = await loop.create_server(lambda: _AgentSide(self), sock=listener)
            return
        self._server = await loop.create_server(lambda: _AgentSide(self), self.host, self.fixed_port)

    @property
    def port(self) -> int:
        """The listening port; only after `start`."""
        if self._server is None:
            raise RuntimeError("the relay has not been started")
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self, seconds: float) -> None:
        """No new connection is taken; those open have ended, or the time is over."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    async def close(self) -> None:
        """No new connection is taken and those open are cut."""
        if self._server is not None:
            self._server.close()
        for side in tuple(self._open):
            side.cut()
        await asyncio.sleep(0)

    def _admit(self, head: RelayHead) -> RelayHead:
        return without_password(head, self.access.account.encode("ascii"), self.password.reveal(), self._authorities)

    @property
    def _authorities(self) -> tuple[bytes, ...]:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(f"{name}:{self.port}".encode("ascii") for name in (shown, "localhost"))


class _Side(asyncio.Protocol):
    """One end of a pipe: what arrives goes to the other end, no faster than that takes it."""

    transport: asyncio.Transport | None = None
    other: "_Side | None" = None
    ended = False
    _through_tls = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._through_tls = transport.get_extra_info("sslcontext") is not None

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            with contextlib.suppress(RuntimeError):  # the other side is closing already
                self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other is None or other.transport is None or other.transport.is_closing():
            return False
        if other.ended:
            other.transport.close()
            return False
        if self._through_tls or not other.transport.can_write_eof():
            # TLS has no half-closed state here, and the door takes one for an agent that is gone.
            other.transport.close()
            return False
        other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            if exc is None:
                other.transport.close()
            else:
                other.transport.abort()

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class _AgentSide(_Side):
    """The agent's end: a bounded head first, then a pipe."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._buffer = bytearray()
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._inside = False
        """True in a tunnel to this relay itself."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        relay = self._relay
        if len(relay._open) >= MAX_CONNECTIONS:
            relay.counts.refused += 1
            self._refuse(503, "too many connections through this relay")
            return
        relay._open.add(self)
        relay.counts.opened += 1
        self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_SECONDS, self.cut)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        if self._refused:
            return  # discarded until the agent ends or lingering does
        self._buffer += data
        if self._opening is not None:
            return  # at most what was in flight when reading was paused
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                self._relay.counts.refused += 1
                self._refuse(431, "the header section is too large")
            return
        if end > MAX_HEAD_BYTES:
            self._relay.counts.refused += 1
            self._refuse(431, "the header section is too large")
            return
        self._read_head(end)

    def _read_head(self, end: int) -> None:
        relay = self._relay
        head: RelayHead | None = None
        try:
            head = parse_relay_head(bytes(self._buffer[:end]))
            admitted = relay._admit(head)
        except HeadRefused as refused:
            relay.counts.refused += 1
            self._refuse(400, str(refused), "credential_invalid" if head else "malformed_request")
            return
        except PasswordMissing:
            relay.counts.challenged += 1
            self._refuse(_unproven(head), "this relay wants the password of its run", "credential_missing")
            return
        except PasswordWrong:
            relay.counts.refused += 1
            self._refuse(_unproven(head), "that is not the password of this run", "credential_invalid")
            return
        del self._buffer[: end + 4]
        if admitted.form is Form.TUNNEL and admitted.target in relay._authorities and not self._inside:
            self._begin_inside()
            return
        self._stop_timer()
        if self.transport is not None:
            self.transport.pause_reading()
        self._opening = asyncio.get_running_loop().create_task(self._open_door(admitted))

    def _begin_inside(self) -> None:
        """Clients that tunnel plain http as well (undici does) reach the base URL like this: the next head is theirs.

        It is read like a first one, and the password in it is proven again.
        """
        self._inside = True
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        if self._buffer:
            self.data_received(b"")

    async def _open_door(self, head: RelayHead) -> None:
        access = self._relay.access
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                _, door = await loop.create_connection(
                    _Side, access.host, access.port, ssl=access.tls, server_hostname=access.server_name
                )
        except ssl.SSLError as error:
            self._relay.counts.door_unreachable += 1
            logger.error("the door's TLS is refused: %s", error)
            self._refuse(503, "the door cannot be verified: its certificate is not the one expected")
            return
        except (OSError, TimeoutError):
            self._relay.counts.door_unreachable += 1
            self._refuse(503, "the door cannot be reached: Exeat is not running or restarting", code="draining")
            return
        if self.transport is None or self.transport.is_closing() or door.transport is None:
            door.cut()
            return
        door.other, self.other = self, door
        # Read now and not when the connection was accepted: the credential may have been renewed while we dialled.
        authorization = encode_basic(access.account, access.token.reveal())
        door.transport.write(for_the_door(head, authorization) + bytes(self._buffer))
        self._buffer.clear()
        self.transport.resume_reading()

    def _refuse(self, status: int, detail: str, code: str | None = None) -> None:
        """An answer that is readable, then the end of the connection."""
        self._refused = True
        self._stop_timer()
        if self.transport is None:
            return
        self.transport.write(_refusal(status, detail, code))
        with contextlib.suppress(OSError):
            self.transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.cut)
        with contextlib.suppress(RuntimeError):
            self.transport.resume_reading()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._relay._open.discard(self)
        self._relay._left.set()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        super().connection_lost(exc)


def _unproven(head: RelayHead | None) -> int:
    """A base-URL client knows of no proxy: it is asked as a server asks (RFC 9110 section 15.5.2)."""
    return 401 if head is not None and head.form is Form.BASE_URL else 407


_REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    407: b"Proxy Authentication Required",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def _refusal(status: int, detail: str, code: str | None) -> bytes:
    """A problem document (RFC 9457). Nothing in it needs escaping: every text is a constant of this package.

    It has an `error` too: stripe-node takes any answer without one for a success, whatever its status.
    """
    member = f', "code": "{code}"' if code else ""
    error = f'{{"type": "exeat_error", "message": "{detail}"{member}}}'
    body = f'{{"type": "about:blank", "status": {status}, "detail": "{detail}"{member}, "error": {error}}}\n'.encode()
    head = [
        b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
        b"Content-Type: application/problem+json",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
    ]
    # RFC 9110 sections 11.6.1 and 11.7.1: a 401 and a 407 must carry a challenge.
    if status == 401:
        head.append(b'WWW-Authenticate: Basic realm="exeat run", charset="UTF-8"')
    if status == 407:
        head.append(b'Proxy-Authenticate: Basic realm="exeat run", charset="UTF-8"')
    if code:
        head.append(b"Exeat-Code: " + code.encode("ascii"))
    return b"\r\n".join(head) + b"\r\n\r\n" + body
