"""What a process has given to the sequencer and has no answer for yet, and what has to be said when an answer is lost.

No I/O: `client` moves the bytes. The rules, when a connection ends with a submission unanswered:

- never sent, or behind the last that the sequencer says it took: it waits for the next connection as if new;
- an intent: its call is told that it cannot go on, so nothing leaves; it is *withdrawn*, and the next hello says so;
- an outcome: it is submitted again, whatever its caller was told meanwhile, for it is what happened;
- anything else: its caller is told that it is not known to be recorded.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

import orjson

from control.sequencing.wire import FRAME_FILL
from ledger import LedgerError, LedgerUnavailable, Receipt, RecordRefused, canonical
from ledger.schema import MAX_RECORD_BYTES, OWN_TYPES

type Result = Receipt | LedgerError
type Orphaned = Callable[[Result], None]

INTENT: Final = "call.intent"
OUTCOME: Final = "call.outcome"
_LOST: Final = "the sequencer went away before it answered: it is not known whether the record is durable"


class Submission:
    """One record on its way."""

    __slots__ = ("after", "again", "attempt", "call", "data", "future", "intent", "loop", "orphaned", "tenant", "type")

    def __init__(
        self,
        type_: str,
        tenant: str,
        content: Mapping[str, object],
        future: asyncio.Future[Receipt] | Future[Receipt] | None,
        loop: asyncio.AbstractEventLoop | None,
        orphaned: Orphaned | None,
    ) -> None:
        """Raises `RecordRefused` for what no ledger would take."""
        if type_ in OWN_TYPES:
            raise RecordRefused("type_reserved", f"only the ledger itself writes {type_}")
        try:
            self.data = canonical.encode(content)
        except canonical.NotCanonical as error:
            raise RecordRefused("encoding", str(error)) from None
        if len(self.data) > MAX_RECORD_BYTES:
            raise RecordRefused("too_long", f"{len(self.data)} bytes; a record has at most {MAX_RECORD_BYTES}")
        self.type = type_
        self.tenant = tenant
        self.call = str(content.get("call", ""))
        self.attempt = content.get("attempt")
        self.intent = content.get("intent")
        self.future = future
        self.loop = loop
        self.orphaned = orphaned
        self.again = False
        """True for an outcome that was sent before."""
        self.after = 0
        """The log had so many records when it was first sent."""

    @property
    def cancelled(self) -> bool:
        """True when nobody waits for it any more."""
        return self.future is not None and self.future.cancelled()


class Submissions:
    """See the module's text. For the thread of one event loop."""

    def __init__(self) -> None:
        self.waiting: deque[Submission] = deque()
        """Not sent on this connection."""
        self.sent: dict[int, Submission] = {}
        """By number, in order, of this connection."""
        self.held: dict[int, None] = {}
        """Seqs of durable intents whose outcome is not known to be."""
        self.withdrawn: dict[tuple[str, int], None] = {}
        """Intents whose calls were told that nothing is recorded."""
        self._number = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.sent)

    def next_frame(self, size: int) -> tuple[bytes | None, list[Submission]]:
        """A message with what waits, as far as one frame goes, None when nothing does; and what nobody wants any more.

        `size` is the number of records that the log has now.
        """
        fresh: list[object] = []
        again: list[object] = []
        dropped: list[Submission] = []
        filled = 0
        while self.waiting and filled < FRAME_FILL:
            one = self.waiting.popleft()
            if one.cancelled and one.type != OUTCOME:
                dropped.append(one)
                continue
            self._number = number = self._number + 1
            self.sent[number] = one
            filled += len(one.data)
            content = orjson.Fragment(one.data)
            if one.again:
                again.append([number, one.tenant, content, one.after])
                # Numbers go up from frame to frame and in a frame's one list, so the lists do not mix.
                if fresh or (self.waiting and not self.waiting[0].again):
                    break
            else:
                one.after = size
                fresh.append([number, one.type, one.tenant, content])
                if self.waiting and self.waiting[0].again:
                    break
        if not fresh and not again:
            return None, dropped
        return orjson.dumps({"submit": fresh} if fresh else {"again": again}), dropped

    def answered(self, number: int, what: Result) -> Submission | None:
        """The submission that this answers; None for one that is not known."""
        one = self.sent.pop(number, None)
        if one is not None and isinstance(what, Receipt):
            if one.type == INTENT:
                self.held[what.seq] = None
            elif one.type == OUTCOME and isinstance(one.intent, int):
                self.held.pop(one.intent, None)
        elif (
            one is not None and one.type == OUTCOME and isinstance(what, RecordRefused) and isinstance(one.intent, int)
        ):
            self.held.pop(one.intent, None)  # it will not be recorded; what is open is closed by others
        return one

    def lost(self, taken: int | None) -> list[Submission]:
        """The connection has ended; returns whose callers have to be told `unknown`.

        `taken` is the last number that the sequencer said it took and answered; None when it said nothing.
        """
        back: list[Submission] = []
        unknown: list[Submission] = []
        for number, one in self.sent.items():
            if taken is not None and number > taken:
                back.append(one)
            elif one.type == OUTCOME:
                one.again = True
                back.append(one)
            else:
                if one.type == INTENT and isinstance(one.attempt, int):
                    self.withdrawn[one.call, one.attempt] = None
                unknown.append(one)
        self.sent.clear()
        self._number = 0
        self.waiting.extendleft(reversed(back))
        return unknown

    def given_up(self) -> list[Submission]:
        """The sequencer has been away for too long: returns whose callers have to be told. Outcomes stay anyway."""
        told = [one for one in self.waiting if one.future is not None]
        self.waiting = deque(one for one in self.waiting if one.type == OUTCOME)
        return told

    def welcomed(self, closed: list[int]) -> None:
        """The sequencer has done what the hello asked for."""
        self.withdrawn.clear()
        for seq in closed:
            self.held.pop(seq, None)


def unknown() -> LedgerUnavailable:
    """What the caller of a record that may or may not be there is told."""
    return LedgerUnavailable(_LOST)


def tell(told: list[tuple[Submission, Result]], home: asyncio.AbstractEventLoop) -> None:
    """Every caller gets its result; each other loop is woken once."""
    others: dict[asyncio.AbstractEventLoop, list[tuple[Submission, Result]]] = {}
    here: list[tuple[Submission, Result]] = []
    for one, result in told:
        if one.loop is None or one.loop is home:
            here.append((one, result))
        else:
            others.setdefault(one.loop, []).append((one, result))
    _deliver(here)
    for loop, theirs in others.items():
        try:
            loop.call_soon_threadsafe(_deliver, theirs)
        except RuntimeError:
            continue  # the loop has been closed: nobody waits there any more; the records stay


def _deliver(told: list[tuple[Submission, Result]]) -> None:
    for one, result in told:
        future, orphaned = one.future, one.orphaned
        one.future = one.orphaned = None
        if future is None:
            continue
        if isinstance(future, Future):
            if not future.set_running_or_notify_cancel():
                continue  # its caller no longer waits; the record stays
        elif future.done():
            if orphaned is not None:
                orphaned(result)  # cancelled meanwhile; the record stays
            continue
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)
