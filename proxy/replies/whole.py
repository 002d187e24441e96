"""An answer that is no stream: held until it is whole, and judged then."""

import re
from abc import ABC, abstractmethod
from typing import Final

from proxy.replies.messages import May, filtered, has_tools
from proxy.replies.reply_filter import ReplyRefused

MAX_BYTES: Final = 1024 * 1024
"""As large as a held body."""
_LIKE_EVENTS: Final = re.compile(rb"(?:^|[\r\n])[ \t]*data[ \t]*(?:[:\r\n]|$)", re.IGNORECASE)


class _Whole(ABC):
    """A `ReplyFilter` that gives everything at the end."""

    streams = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self.refused: str | None = None

    @property
    def held(self) -> int:
        """All of it."""
        return self._length

    def feed(self, data: bytes) -> bytes:
        """Nothing yet."""
        if self.refused is None:
            self._parts.append(data)
            self._length += len(data)
            if self._length > MAX_BYTES:
                self.refused = f"the answer is longer than {MAX_BYTES} bytes"
        if self.refused is not None:
            self._parts.clear()
            self._length = 0
        return b""

    def end(self) -> bytes:
        """The answer as the agent gets it; nothing where it is refused."""
        if self.refused is not None:
            return b""
        data = b"".join(self._parts)
        self._parts.clear()
        self._length = 0
        try:
            return self._judged(data) if data else b""
        except ReplyRefused as error:
            self.refused = error.detail
            return b""

    @abstractmethod
    def _judged(self, data: bytes) -> bytes:
        """What the agent gets. Raises `ReplyRefused`."""


class JsonFilter(_Whole):
    """One message or a batch, with the tools that may stay."""

    def __init__(self, may: May) -> None:
        super().__init__()
        self._may = may

    def _judged(self, data: bytes) -> bytes:
        replaced = filtered(data, self._may)
        return data if replaced is None else replaced


class OtherFilter(_Whole):
    """What no client of MCP reads as messages (the page of an error, `Accepted`), and nobody could.

    Refused where a reader that does not look at the type could find messages in it: a list of tools in JSON, JSON that
    cannot be read, events, and text in another encoding.
    """

    def _judged(self, data: bytes) -> bytes:
        if b"\x00" in data or data.startswith((b"\xff\xfe", b"\xfe\xff", b"+/v")):
            raise ReplyRefused("the answer is text in an encoding other than UTF-8")
        text = data.removeprefix(b"\xef\xbb\xbf")
        if _LIKE_EVENTS.search(text) is not None:
            raise ReplyRefused("the answer looks like events and is not declared as them")
        if text.lstrip()[:1] in (b"{", b"[") and has_tools(text):
            raise ReplyRefused("the answer has a list of tools and is not declared as JSON")
        return data


class Refusal(_Whole):
    """An answer of a kind that is not read at all: passed on only when it is empty."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self._why = why

    def _judged(self, data: bytes) -> bytes:
        raise ReplyRefused(self._why)
