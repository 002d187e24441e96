"""One request on an agent's wire: its head, its body as it comes, and the place its answer goes to."""

import asyncio
from dataclasses import dataclass
from typing import Final

from credentials.principal import Principal
from proxy.base_url import Presented, is_base_url
from proxy.denials import Denial
from proxy.held import Held
from proxy.http.errors import RequestRefused
from proxy.http.request import RequestHead, RequestParser
from proxy.turns import Turn
from proxy.wire import Wire, WireClosed
from rules.codes import Code

_LINGER_BYTES: Final = 4 * 1024 * 1024
_LINGER_SECONDS: Final = 2.0
"""How much of a refused upload is read and thrown away so that the agent reads the refusal rather than a reset."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """What an agent asked for with CONNECT, and the credential it showed."""

    host: str
    port: int
    token: str
    principal: Principal
    """Whom the token proved at CONNECT; every request inside proves it anew."""


@dataclass(slots=True)
class Exchange:
    """A request being answered."""

    wire: Wire
    parser: RequestParser
    head: RequestHead
    tunnel: Tunnel | None
    """None for a request outside of any tunnel."""
    refusal: RequestRefused | None = None
    """What is wrong with the body, where that showed together with the head; raised when the body is asked for, so
    that the refusal has its agent's name on it."""
    presented: Presented | None = None
    """The credential of a base-URL request, once it was found."""
    principal: Principal | None = None
    """Whose request it is, as far as that is known: for the record of a refusal before there is a call."""
    turn: Turn | None = None
    """The call's, once there is one: an answer is part of the work, the wait for its reader is not."""

    def __post_init__(self) -> None:
        if self.tunnel is not None:
            self.principal = self.tunnel.principal

    @property
    def door(self) -> str:
        """Which of the two doors it came through, in the records' words."""
        return "base-url" if self.tunnel is None and is_base_url(self.head) else "forward"

    @property
    def at_origin(self) -> bool:
        """True where the agent believes to talk to the origin itself: inside a tunnel, and at the base-URL door."""
        return self.tunnel is not None or is_base_url(self.head)

    def ask_for_body(self) -> None:
        """An agent that waits to be asked for its body has been asked (RFC 9110 section 10.1.1)."""
        if self.head.expect_continue and not self.parser.complete:
            self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def refuse_longer(self, max_bytes: int) -> None:
        """The body is not known to be longer. Raises `RequestRefused`."""
        if self.parser.announced > max_bytes:
            raise RequestRefused(Code.BODY_TOO_LARGE, f"the body is longer than {max_bytes} bytes")

    async def hold_body(self, max_bytes: int, turn: Turn, held: Held) -> bytes:
        """The whole body, and the turn is held; without it while the agent is waited for. Raises `RequestRefused`,
        or `WireClosed` when it breaks off."""
        if self.refusal is not None:
            raise self.refusal
        self.refuse_longer(max_bytes)  # before it is asked for
        self.ask_for_body()
        parts: list[bytes] = []
        length = 0
        while True:
            self.refuse_longer(max_bytes)
            part = self.parser.take_body()
            if part:
                length += len(part)
                held.resize(length)
                parts.append(part)
            if self.parser.complete:
                return parts[0] if len(parts) == 1 else b"".join(parts)
            turn.give_back()
            await self.wire.peek()
            await turn.take(first=True)
            data = await self.wire.read()
            if not data:
                raise WireClosed
            self.parser.feed(data)

    async def refuse(self, denial: Denial, *, keep_alive: bool = True) -> bool:
        """The denial is sent. True if the wire can carry another request."""
        keep_alive = keep_alive and self.parser.complete and self.head.keep_alive
        self.wire.write(
            denial.render(
                in_tunnel=self.at_origin,
                keep_alive=keep_alive,
                head_only=self.head.method == "HEAD",
                # git prints the body of a refusal (as `remote: ...`) only if it is plain text.
                as_text=(self.head.get(b"user-agent") or b"").startswith(b"git/"),
                content_type=_media_type(self.head.get(b"content-type")),
            )
        )
        if not keep_alive:
            if self.turn is not None:
                self.turn.give_back()
            await linger(self.wire)
        return keep_alive


def _media_type(raw: bytes | None) -> str:
    return (raw or b"").partition(b";")[0].strip().lower().decode("latin-1")


async def linger(wire: Wire) -> None:
    """The wire is closed, after a bounded while in which the agent could read what was written.

    Closing a socket with unread bytes in it sends a reset, and the agent's kernel then throws our answer away.
    """
    discarded = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            await wire.drain()
            while discarded < _LINGER_BYTES:
                data = await wire.read()
                if not data:
                    break
                discarded += len(data)
    except (TimeoutError, WireClosed):
        pass
    wire.close()
