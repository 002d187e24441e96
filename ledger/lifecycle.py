"""What may follow what in the life of a call; one state machine, used by the sequencer and the verifier alike.

    call.rejected                                  terminal, alone
    call.denied (attempt k)                        terminal; attempts 1..k-1 have ended
    call.intent (attempt k) -> call.outcome        exactly one outcome an intent; attempts 1..k-1 have ended

An `indeterminate` outcome costs what its intent said at most: never success, never free. An intent with `streamed` says
nothing of its body; a confirmed outcome then does, and no other outcome may.

Memory is bounded: open intents, and at least the last 32,768 (at most 65,536) ended calls. An attempt beyond the first
must come within that window. A call's first record is counted by the verifier over the whole log, so an identifier
used again later than the window is found there.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

REMEMBERED: Final = 32_768
"""Ended calls a generation; part of the format: it decides which later attempts are legal."""

_TERMINAL: Final = -1

CALL_TYPES: Final = frozenset({"call.intent", "call.outcome", "call.denied", "call.rejected"})


class LifecycleBroken(ValueError):
    """The record cannot follow those before it."""


class OpenIntent(NamedTuple):
    """An intent whose outcome is not recorded yet."""

    seq: int
    tenant: str
    call: str
    attempt: int
    cost: Mapping[str, Any] | None
    streamed: bool = False
    """True where the intent commits to the head alone, and the outcome to the body."""
    worker: str = ""
    """Who made it (`env.worker`): of several writers' fronts the only one that may end it."""

    def ended_unseen(self, status: str, err: str, *, sent: bool | None = None) -> dict[str, Any]:
        """The content of an outcome that another than its maker writes: at its maximum, unless nothing was sent."""
        cost = None if self.cost is None else dict(self.cost)
        if cost is not None and sent is False:
            cost["micro"] = 0
        return {
            "call": self.call,
            "attempt": self.attempt,
            "intent": self.seq,
            "result": {
                "status": status,
                "http": None,
                "err": err,
                "code": None,
                "sent": sent,
                "started_us": None,
                "ended_us": None,
            },
            "resp": None,
            "cost": cost,
        }


class CallBook:
    """The calls of a log up to some record."""

    __slots__ = ("_by_call", "older", "open", "recent")

    def __init__(self) -> None:
        self.open: dict[int, OpenIntent] = {}
        """By the intent's seq, in log order."""
        self._by_call: dict[str, int] = {}
        self.recent: dict[str, int] = {}
        """The last attempt of each call that ended lately; `_TERMINAL` where there cannot be another."""
        self.older: dict[str, int] = {}
        """The same of the generation before."""

    @classmethod
    def of(cls, open_intents: Iterable[OpenIntent], recent: dict[str, int], older: dict[str, int]) -> "CallBook":
        """A book that says what another one said."""
        book = cls()
        for intent in open_intents:
            book.open[intent.seq] = intent
            book._by_call[intent.call] = intent.seq
        book.recent, book.older = recent, older
        return book

    def copy(self) -> "CallBook":
        """An independent book that says the same."""
        return CallBook.of(self.open.values(), self.recent.copy(), self.older.copy())

    def admit(self, type_: str, seq: int, tenant: str, content: Mapping[str, Any]) -> None:
        """The record of a call type is entered, or `LifecycleBroken` is raised and nothing has changed.

        `content` conforms to its schema.
        """
        if type_ == "call.outcome":
            self._end(tenant, content)
        elif type_ == "call.intent":
            call = self._next_attempt(content)
            cost = content["cost"]
            kept = None if cost is None else dict(cost)  # the caller's own object may change
            streamed = content["req"].get("streamed") is True
            if content["req"]["len"] is None and not streamed:
                raise LifecycleBroken("only the length of a streamed body may be unknown")
            worker = content["env"]["worker"]
            self.open[seq] = OpenIntent(seq, tenant, call, content["attempt"], kept, streamed, worker)
            self._by_call[call] = seq
        elif type_ == "call.denied":
            self._remember(self._next_attempt(content), _TERMINAL)
        elif type_ == "call.rejected" and "call" in content:
            call = content["call"]
            if call in self._by_call or self._last(call) is not None:
                raise LifecycleBroken("a rejected call has other records")
            self._remember(call, _TERMINAL)

    def _next_attempt(self, content: Mapping[str, Any]) -> str:
        call: str = content["call"]
        if call in self._by_call:
            raise LifecycleBroken("an earlier attempt of this call is still open")
        last = self._last(call)
        if last == _TERMINAL:
            raise LifecycleBroken("this call has been denied or rejected")
        if content["attempt"] != (last or 0) + 1:
            raise LifecycleBroken("attempts of a call are numbered from 1 without a gap")
        return call

    def _end(self, tenant: str, content: Mapping[str, Any]) -> None:
        seq = content["intent"]
        intent = self.open.get(seq)
        if intent is None:
            raise LifecycleBroken("this outcome has no open intent")
        if intent.call != content["call"] or intent.attempt != content["attempt"] or intent.tenant != tenant:
            raise LifecycleBroken("this outcome names another call, attempt or tenant than its intent")
        result = content["result"]
        if "upload" in content and not intent.streamed:
            raise LifecycleBroken("only the body of an intent that says so is streamed")
        if intent.streamed and result["status"] == "confirmed" and "upload" not in content:
            raise LifecycleBroken("a confirmed outcome of a streamed body says what was sent")
        if result["status"] == "indeterminate":
            cost = content["cost"]
            before = intent.cost
            if (cost is None) != (before is None) or (
                cost is not None
                and before is not None
                and any(cost.get(member) != before.get(member) for member in ("micro", "cur", "units"))
            ):
                raise LifecycleBroken("an indeterminate outcome costs what its intent said")
        del self.open[seq]
        del self._by_call[intent.call]
        self._remember(intent.call, intent.attempt)

    def _last(self, call: str) -> int | None:
        last = self.recent.get(call)
        return self.older.get(call) if last is None else last

    def _remember(self, call: str, attempt: int) -> None:
        recent = self.recent
        if len(recent) >= REMEMBERED:
            self.older = recent
            self.recent = recent = {}
        recent[call] = attempt
