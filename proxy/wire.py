"""The agent's side of one connection, as the rest of the enforcement point sees it: bytes, not layers."""

from collections.abc import Callable
from typing import Protocol


class WireClosed(Exception):
    """The agent is gone, or the wire was cut; nothing more can be read or written."""


class HandshakeRefused(Exception):
    """TLS with the agent did not come about. `detail` is for operators."""

    def __init__(self, detail: str, *, mismatch: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.mismatch = mismatch
        """True when the agent asked for another name inside than outside."""


class Wire(Protocol):
    """One accepted connection. All methods belong to the proxy's event loop.

    Reading pauses by itself when more than its bound lies unread, so an agent that pushes faster than its calls are
    answered fills its own socket and not our memory.
    """

    peer: str
    """The agent's address without its port; `local` for a Unix socket."""

    secure: bool
    """True where the agent reached the listener itself through TLS."""

    on_lost: Callable[[], None] | None
    """Called once when the agent goes away (also half-closed), even while nobody reads."""

    defer: Callable[[Callable[[], None]], bool] | None
    """Asked before received bytes are decrypted: True if they have to wait, and what it was given is called later."""

    @property
    def unread(self) -> int:
        """Bytes received and not yet taken."""
        ...

    async def read(self) -> bytes:
        """The next bytes; empty when the agent will send no more."""
        ...

    async def peek(self) -> bytes:
        """What `read` would return, left where it is; empty when the agent will send no more."""
        ...

    def unread_first(self, data: bytes) -> None:
        """The bytes will be read next: they had been taken too early."""
        ...

    async def start_tls(self, host: str, tenant: str) -> None:
        """TLS is established as `host`, with a certificate of this tenant's alone.

        Bytes read and written from here on are inside it.

        Raises `HandshakeRefused` when what came is no TLS, when the server name differs from `host`, or when the
        agent rejects our certificate.
        """
        ...

    def write(self, data: bytes) -> None:
        """The bytes are on their way; call `drain` after large ones. Silently nothing on a lost wire."""
        ...

    async def drain(self) -> None:
        """Little enough is waiting to be sent. Raises `WireClosed` when the agent is gone."""
        ...

    @property
    def backlogged(self) -> bool:
        """True while more than a little waits to be sent: the agent does not read."""
        ...

    async def wait_lost(self) -> None:
        """The wire is gone, in both directions."""
        ...

    def close(self) -> None:
        """Closed after what was written has been sent; nothing more is read."""
        ...

    def abort(self) -> None:
        """Cut at once; what was written and not yet sent is thrown away."""
        ...
