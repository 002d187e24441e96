"""What stands between an origin's answer and its agent, as the relay sees it."""

from collections.abc import Callable
from typing import Final, Protocol

from proxy.http.response_head import ResponseHead


class ReplyRefused(Exception):
    """What an origin answered must not reach the agent. `detail` quotes nothing of it.

    `request_id`: JSON text of the id that the answer names, where one is known.
    """

    def __init__(self, detail: str, request_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id


class ReplyFilter(Protocol):
    """Takes an answer's body in pieces, and gives what the agent gets of it. Raises nothing, whatever comes."""

    streams: bool
    """True where something is given before the end; else everything comes from `end`."""
    refused: str | None
    """Why the answer is not passed on, safe for an agent; from then on nothing more is given."""

    @property
    def held(self) -> int:
        """Bytes that wait for the rest of what they belong to."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What the agent gets now."""
        ...

    def end(self) -> bytes:
        """What the agent gets at the end of the answer."""
        ...


type Filtering = Callable[[ResponseHead], ReplyFilter]
"""The filter for the answer with this head."""

DROPPED: Final = frozenset(
    {b"etag", b"last-modified", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"accept-ranges"}
)
"""Fields of a filtered answer's head that speak of the bytes which the origin sent: they end here."""
