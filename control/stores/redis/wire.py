"""One connection to the server. Commands are pipelined: answers come in the order of what was asked.

An answer that does not come in time ends the connection with everything that was asked on it, so that a late one can
never be taken for another's.
"""

import asyncio
from collections import deque
from typing import Any, Final

import hiredis

MAX_WAITING: Final = 16_384
"""More unanswered commands than that are not taken: the server is not keeping up."""


class Lost(Exception):
    """The connection ended before the answer came. Whether the server has done what was asked is not known."""


class Crowded(Exception):
    """Too much is unanswered; nothing was sent."""


class Wire(asyncio.Protocol):
    """Bytes and answers of one connection; belongs to one loop."""

    def __init__(self, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._why = ""
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done, with the reason, when the connection has ended."""
        self.run_id = b""
        """Of the server process at the other end; set by whoever has asked."""

    def ask(self, *command: bytes | str | int) -> "asyncio.Future[Any]":
        """The answer, an error of the server (`hiredis.ReplyError`) as a value too.

        The future raises `Lost`. Raises `Lost` or `Crowded` at once when nothing can be sent. Cancel it freely.
        """
        if self.lost.done() or self._transport is None:
            raise Lost(self._why)
        if len(self._waiting) >= MAX_WAITING:
            raise Crowded("the server is not keeping up")
        if not self._out:
            self._loop.call_soon(self._flush)  # one write for all that is asked in this turn of the loop
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        answer: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + self._answer_seconds
        self._waiting.append((answer, deadline))
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)
        return answer

    def abort(self, why: str) -> None:
        """The connection is gone, now."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - narrows for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    raise hiredis.ProtocolError("an answer to nothing")
                answer, _ = self._waiting.popleft()
                if not answer.done():
                    answer.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"does not speak the protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._why = self._why or f"the connection was closed{'' if error is None else f': {error}'}"
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost.done():
            self.lost.set_result(self._why)  # first: whoever is told below must not find this wire in use
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(Lost(self._why))
                answer.exception()  # nobody has to look at it: a caller that was cancelled does not

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        deadline = self._waiting[0][1]
        if deadline <= self._loop.time():
            self.abort(f"no answer within {self._answer_seconds * 1000:.0f} ms")
        else:
            self._timer = self._loop.call_at(deadline, self._look)
