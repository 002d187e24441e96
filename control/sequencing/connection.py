"""One worker's connection, at the sequencer: what it may say, and what it is told.

Nothing of a connection is trusted but its uid, which the kernel tells, and the name that it proves. A frame of another
shape, out of turn or too long ends this connection and touches no other.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from control import peers
from control.sequencing.wire import (
    CONTROL,
    MAX_UNANSWERED,
    VERSION,
    WORKER,
    FrameBad,
    Frames,
    batch_values,
    failure_values,
    frame,
    proven,
)
from ledger import Batch, Ledger, LedgerError, LedgerUnavailable, Receipt, RecordRefused

HELLO_SECONDS: Final = 5.0
"""A connection that has not said who it is by then is closed."""

WORKER_TYPES: Final = frozenset({"call.intent", "call.outcome", "call.denied", "call.rejected", "reject.summary"})
_NAMED: Final = frozenset({"call.intent", "call.denied", "call.rejected"})
"""Records that name the worker that made them."""


class House(Protocol):
    """What a connection asks of the service."""

    ledger: Ledger

    def greet(self, connection: "Connection") -> None:
        """It has said who it is."""
        ...

    def look_up(self, connection: "Connection", items: list[list[Any]]) -> None:
        """Outcomes without an open intent are answered from the files."""
        ...

    def ended(self, connection: "Connection") -> None:
        """The connection is over, and everything that it submitted has been answered by the ledger."""
        ...

    def head(self) -> list[object]:
        """Where the log stands, as it travels."""
        ...


class Connection(asyncio.Protocol):
    """See the module's text."""

    def __init__(self, house: House, admits: Callable[[int], bool]) -> None:
        self.name = ""
        self.control = False
        self.pid = 0
        self.held: frozenset[int] = frozenset()
        """Open intents that its hello named."""
        self.withdrawn: frozenset[tuple[str, int]] = frozenset()
        self.left_for_good = False
        self.welcomed = False
        self.closed = False
        """True once nothing more is read or written."""
        self.unanswered = 0
        self._house = house
        self._admits = admits
        self._frames = Frames()
        self._greeted = False
        self._leaving = False
        self._last = 0
        """The number of the last submission that was taken."""
        self._out: list[tuple[int, Receipt | LedgerError]] = []
        self._flushing = False
        self._impatient: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A stranger is sent away before one byte of it is read."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if not self._admits(peers.peer_uid(sock)):
            self.closed = True
            self._transport.abort()
            return
        self.pid = peers.peer_pid(sock)
        self._impatient = self._loop.call_later(HELLO_SECONDS, self.refuse, "no hello came")

    def data_received(self, data: bytes) -> None:
        """What was said is done, or the connection ends."""
        if self._leaving:
            return  # nothing of it is taken: the other end says it to the next sequencer
        try:
            for message in self._frames.feed(data):
                if self.closed or self._leaving:
                    return
                self._heard(message)
        except FrameBad as bad:
            self.refuse(str(bad))

    def pause_writing(self) -> None:
        """Who does not read answers is not listened to."""
        if not self._leaving:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """As before."""
        if not self.closed and not self._leaving:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """What it had submitted goes on; its intents have their grace."""
        self.closed = True
        self._quiet()
        if self._greeted and not self.unanswered:
            self._house.ended(self)

    # --- what it says ---

    def _heard(self, message: dict[str, Any]) -> None:
        if not self._greeted:
            self._hello(message)
        elif not self.welcomed:
            raise FrameBad("a frame before the welcome")
        elif "submit" in message:
            self._each(message["submit"], 4, self._submit)
        elif "again" in message:
            self._again(message["again"])
        elif "bye" in message:
            self.left_for_good = True
            self._transport.close()
        else:
            raise FrameBad("a frame of an unknown kind")

    def _hello(self, message: dict[str, Any]) -> None:
        if message.get("hello") != VERSION:
            raise FrameBad(f"another version of this protocol; this program speaks {VERSION}")
        name, proof, role = message.get("name"), message.get("proof"), message.get("role")
        held, withdrawn = message.get("open"), message.get("withdrawn")
        if not isinstance(name, str) or not isinstance(proof, str) or not proven(name, proof):
            raise FrameBad("a name that is not proven")
        if role not in (WORKER, CONTROL) or not isinstance(held, list) or not isinstance(withdrawn, list):
            raise FrameBad("a hello of another shape")
        try:
            self.held = frozenset(int(seq) for seq in held)
            self.withdrawn = frozenset((str(call), int(attempt)) for call, attempt in withdrawn)
        except (TypeError, ValueError) as error:
            raise FrameBad("a hello of another shape") from error
        self.name, self.control = name, role == CONTROL
        self._greeted = True
        self._quiet()
        self._house.greet(self)

    def _each(self, items: object, length: int, take: Callable[[int, list[Any]], None]) -> None:
        if not isinstance(items, list):
            raise FrameBad("submissions that are no list")
        for item in items:
            if type(item) is not list or len(item) != length or type(item[0]) is not int or item[0] <= self._last:
                raise FrameBad("a submission of another shape, or out of order")
            self._last = item[0]
            take(item[0], item)

    def _submit(self, number: int, item: list[Any]) -> None:
        _, type_, tenant, content = item
        if not isinstance(type_, str) or not isinstance(tenant, str) or type(content) is not dict:
            raise FrameBad("a submission of another shape")
        try:
            if self.unanswered >= MAX_UNANSWERED:
                raise LedgerUnavailable("too many records of this worker wait for the disk")
            self._refuse_foreign(type_, content)
            self._house.ledger.submit_told(self._loop, type_, tenant, content, _Told(self, number))
        except LedgerError as error:
            self.answer(number, error)
        else:
            self.unanswered += 1

    def _again(self, items: object) -> None:
        absent: list[list[Any]] = []

        def take(number: int, item: list[Any]) -> None:
            _, tenant, content, after = item
            if type(content) is not dict or type(content.get("intent")) is not int:
                raise FrameBad("a submission of another shape")
            if type(after) is not int or after < 0:
                raise FrameBad("a submission of another shape")
            if self._house.ledger.open_intent(_seq(content)) is None:
                absent.append(item)
            else:
                self._submit(number, [number, "call.outcome", tenant, content])

        self._each(items, 4, take)
        if absent:
            self.unanswered += len(absent)
            self._house.look_up(self, absent)

    def _refuse_foreign(self, type_: str, content: dict[str, Any]) -> None:
        """A worker writes of its own calls alone, the control side of none. Raises `RecordRefused`."""
        if self.control:
            if type_.startswith("call."):
                raise RecordRefused("type_foreign", f"the control side makes no calls, so it writes no {type_}")
            return
        if type_ not in WORKER_TYPES:
            raise RecordRefused("type_foreign", f"a worker writes no {type_}")
        if type_ == "call.outcome":
            # Its intent's receipt came first, so one that is not open now has ended, or never was.
            intent = self._house.ledger.open_intent(_seq(content))
            if intent is None:
                raise RecordRefused("lifecycle", "this outcome has no open intent")
            if intent.worker != self.name:
                raise RecordRefused("worker_foreign", "another worker made this intent")
        elif type_ in _NAMED and ("env" in content or type_ != "call.rejected"):
            env = content.get("env")
            if type(env) is not dict or env.get("worker") != self.name:
                raise RecordRefused("worker_foreign", "the record names another worker")

    # --- what it is told ---

    def told(self, number: int, what: Receipt | LedgerError) -> None:
        """The ledger has answered."""
        self.unanswered -= 1
        if not self.closed:
            self.answer(number, what)
        elif not self.unanswered and self._greeted:
            self._house.ended(self)

    def answer(self, number: int, what: Receipt | LedgerError) -> None:
        """What became of a submission is sent, with the others of its group."""
        self._out.append((number, what))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, self._out = self._out, []
        if self.closed or not out:
            return
        groups: list[list[object]] = []
        failed: list[list[object]] = []
        numbers: list[list[int]] = []
        batch: Batch | None = None
        for number, what in out:
            if isinstance(what, LedgerError):
                failed.append(failure_values(number, what))
                continue
            if what.batch is not batch:
                batch, numbers = what.batch, []
                groups.append([batch_values(batch, what.ts), numbers])
            numbers.append([number, what.seq])
        self._transport.write(frame({"head": self._house.head(), "groups": groups, "failed": failed}))

    def say(self, message: dict[str, Any]) -> None:
        """The message is on its way."""
        if not self.closed:
            self._transport.write(frame(message))

    def leave(self) -> None:
        """Nothing more is taken; once all that was is answered, call `bye`."""
        if not self._leaving and not self.closed:
            self._leaving = True
            self._transport.pause_reading()

    def bye(self) -> None:
        """It is told where to go on with another sequencer, and ends the connection once it has read that.

        Nobody but it does: a connection that is closed here, with something of the other end's unread, can end there
        before the last answers are read, and then nobody knows what was taken.
        """
        if not self.closed:
            self._flush()
            self.say({"bye": self._last})
            self._transport.resume_reading()

    def refuse(self, why: str) -> None:
        """It is told why, and the connection ends."""
        if not self.closed:
            self.say({"refused": why})
            self.closed = True
            self._transport.close()

    def drop(self) -> None:
        """The connection ends; what was not read of it is nothing."""
        self.closed = True
        self._transport.abort()

    def _quiet(self) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None


class _Told:
    """Remembers which submission it was."""

    __slots__ = ("_connection", "_number")

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._number = number

    def __call__(self, what: Receipt | LedgerError) -> None:
        self._connection.told(self._number, what)


def _seq(content: dict[str, Any]) -> int:
    """The seq that an outcome names; one that no intent has when it names none."""
    seq = content.get("intent")
    return seq if type(seq) is int else -1
