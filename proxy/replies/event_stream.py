"""A stream of Server-Sent Events in which each event's data is a message (WHATWG HTML section 9.2, MCP's transport).

An event is given on as soon as its empty line is here, and a comment outside of any event as soon as its line is. What
is given is written anew: lines end with LF, the byte order mark at the beginning and fields that the standard knows
not are gone, and the event that the stream breaks off in, which the standard drops, is not given either. So a client
that reads lines or fields more liberally than the standard reads the same events.

An event that cannot be judged ends the stream, with an error in its place where it is known whose answer it is.
"""

import json
import re
from typing import Final

from proxy.replies.messages import May, filtered
from proxy.replies.reply_filter import ReplyRefused
from rules.codes import TABLE, Code

MAX_EVENT_LINES: Final = 10_000
"""A line costs as much as a hundred bytes; messages are written in one, or in some hundred for people."""
MAX_EVENT_BYTES: Final = 1024 * 1024
"""As large as a held body; the Python SDK reads no larger event."""
_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OTHER_ENDS: Final = re.compile("[\x00\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What else some readers end a line at (Python's splitlines), or cut a text at."""
_KEPT: Final = frozenset({"id", "event", "retry"})


class Lines:
    """The complete lines of a stream, however it is cut into pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._after_return = False
        self._begun = False
        self.pending = 0
        """Bytes of the line that is not complete."""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        if self._after_return and data:
            # The CR has ended its line already; an LF behind it belongs to the same end.
            data = data.removeprefix(b"\n")
            self._after_return = False
        if not data:
            return []
        self._after_return = data.endswith(b"\r")
        first, *more = _END_OF_LINE.split(data)
        self._parts.append(first)
        self.pending += len(first)
        if not more:
            return []
        lines = [b"".join(self._parts), *more[:-1]]
        self._parts = [more[-1]]
        self.pending = len(more[-1])
        if not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines


class EventStreamFilter:
    """A `ReplyFilter`."""

    streams = True

    def __init__(self, may: May, request_id: str | int | None = None) -> None:
        """`request_id`: of the request that this is the answer to, where there is one."""
        self._may = may
        self._request_id = None if request_id is None else json.dumps(request_id)
        self._lines = Lines()
        self._event: list[bytes] = []
        self._size = 0
        self.refused: str | None = None

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete."""
        return self._size + self._lines.pending

    def feed(self, data: bytes) -> bytes:
        """The events that are complete now, with the tools that may stay."""
        if self.refused is not None:
            return b""
        given: list[bytes] = []
        try:
            for line in self._lines.feed(data):
                given.append(self._line(line))  # noqa: PERF401 - what stands before a refusal is given
            self._bound(self._lines.pending)
        except ReplyRefused as error:
            self.refused = error.detail
            self._forget()
            answered = error.request_id or self._request_id
            if answered is not None:
                given.append(b"data: %b\n\n" % refusal(error.detail, answered))
        return b"".join(given)

    def end(self) -> bytes:
        """Nothing: an event that is not complete is none."""
        self._forget()
        return b""

    def _forget(self) -> None:
        self._event, self._size, self._lines = [], 0, Lines()

    def _bound(self, pending: int) -> None:
        if self._size + pending > MAX_EVENT_BYTES:
            raise ReplyRefused(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        if len(self._event) > MAX_EVENT_LINES:
            raise ReplyRefused(f"an event has more than {MAX_EVENT_LINES} lines")

    def _line(self, line: bytes) -> bytes:
        if not line:
            if not self._event:
                return b""  # it ends no event
            lines, self._event, self._size = self._event, [], 0
            return self._dispatch([_text(one) for one in lines])
        self._bound(len(line))
        if line.startswith(b":") and not self._event:
            return _plain(_text(line)) + b"\n"
        self._event.append(line)
        self._size += len(line) + 1
        return b""

    def _dispatch(self, lines: list[str]) -> bytes:
        """One event."""
        data = "\n".join(_value(line) for line in lines if _field(line) == "data")
        replaced = filtered(data.encode("utf-8"), self._may) if data else None
        out: list[bytes] = []
        written = False
        for line in lines:
            field = _field(line)
            if field == "data":
                if replaced is None:
                    out.append(f"data: {_escaped(_value(line))}\n".encode())
                elif not written:  # the whole message, in the place of its first line
                    out.append(b"data: %b\n" % replaced)
                written = True
            elif field in _KEPT or not field:
                out.append(_plain(line) + b"\n")
        out.append(b"\n")
        return b"".join(out)


def refusal(detail: str, request_id: str) -> bytes:
    """A JSON-RPC error of ours to that request. `request_id` is JSON text.

    The number is the status that a whole answer would be refused with, as in every denial (rules/services/mcp.py).
    """
    code = Code.UPSTREAM_PROTOCOL
    data = {"code": str(code), "detail": detail}
    error = {"code": TABLE[code].status, "message": f"{code}: {detail}", "data": data}
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id.encode("ascii"), json.dumps(error).encode("ascii"))


def _field(line: str) -> str:
    return line.partition(":")[0]


def _value(line: str) -> str:
    return line.partition(":")[2].removeprefix(" ")


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise ReplyRefused("a line of an event is not UTF-8") from None


def _escaped(data: str) -> str:
    """A line of JSON that was read strictly: what other readers end a line at stands in text alone, where it may be
    written so."""
    return _OTHER_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", data)


def _plain(line: str) -> bytes:
    """The line, which nobody reads as two."""
    if _OTHER_ENDS.search(line) is not None:
        raise ReplyRefused("a line of an event that some readers take for two")
    return line.encode("utf-8")
