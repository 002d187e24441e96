"""Steps 6 and 8 of one attempt: an intent that is durable before anything leaves, and exactly one outcome.

An attempt never waits for its agent: what has been begun here is finished in tasks of its own when the call is
cancelled, so that no intent stays open and no reservation leaks while the process lives. When the process dies, the
ledger's recovery closes the intent.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Final

from ledger import LedgerError, Receipt
from proxy.costs import Cost
from proxy.metrics import Metrics
from proxy.records import Content, Recorder
from rules.claims import Reservations, Reserved
from rules.codes import Code
from rules.swift import swift

logger = logging.getLogger("exeat.gate")

_HALTED: Final = "the record could not be made durable"


class CommitFailed(Exception):
    """The intent is not known to be durable: nothing may be sent."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable intent and the digest of exactly the bytes it lets out."""

    receipt: Receipt
    digest: bytes


@swift
@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended."""

    status: str
    """confirmed, failed, timeout, aborted or indeterminate (the ledger's words)."""
    sent: bool
    """False only if certainly no byte reached the origin."""
    http: int | None = None
    code: Code | None = None
    err: str | None = None
    """For operators; no secret, no payload."""
    reply: Content | None = None
    """The record's `resp`."""

    @property
    def refused(self) -> bool:
        """Whether the service said that it did not do it: 4xx, and its last byte."""
        return self.status == "confirmed" and self.http is not None and 400 <= self.http < 500


class Books:
    """Where attempts are written down: the ledger, the reservations, the counters; and the tasks that outlive calls."""

    def __init__(self, recorder: Recorder, reservations: Reservations, metrics: Metrics) -> None:
        self.recorder = recorder
        self.reservations = reservations
        self.metrics = metrics
        self.orphans = 0
        """Intents on their way into the ledger whose calls are over."""
        self._tasks: set[asyncio.Task[None]] = set()

    def finish_later(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        """The work goes on when the call that began it is over. Await the task shielded, or not at all."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Nothing is left to finish."""
        while self._tasks or self.orphans:
            if self._tasks:
                await asyncio.wait(tuple(self._tasks))
            else:
                await asyncio.sleep(0.005)  # the ledger answers every submission, with its failure if need be


class Attempt:
    """One attempt of one call."""

    def __init__(self, books: Books, tenant: str, call: str, number: int, cost: Cost | None) -> None:
        self._books = books
        self._tenant = tenant
        self._call = call
        self.number = number
        self._cost = cost
        self._began = time.time_ns() // 1000
        self._receipt: Receipt | None = None
        self._closed = False
        self.upload: Callable[[], Content] | None = None
        """What was sent of a streamed body so far, for the outcome."""
        self._abandoned = False
        """True once `_abandon` sees to the outcome: nobody else does then."""

    async def commit(self, intent: Content, digest: bytes) -> Committed:
        """(6) The intent is durable when this returns.

        Raises `CommitFailed` when it cannot be. Cancelled (also by the phase's deadline), an intent that becomes
        durable afterwards is closed as `aborted`, not sent.
        """
        books = self._books
        try:
            # Not shielded: a cancelled wait cancels no record, and the ledger tells `_abandon` when it is durable.
            future = books.recorder.submit_async(
                asyncio.get_running_loop(), "call.intent", self._tenant, intent, self._abandon
            )
            self._receipt = receipt = await future
        except LedgerError as error:
            raise CommitFailed(_HALTED) from error
        except asyncio.CancelledError:
            if future.cancelled():
                books.orphans += 1
            elif future.exception() is None:
                # Durable in the very moment in which the call was stopped: nobody else will hear of it.
                self._receipt = future.result()
            raise
        return Committed(receipt, digest)

    def _abandon(self, what: Receipt | LedgerError) -> None:
        """The call was over before its intent was durable: one that is now is closed as what it is, not sent."""
        self._books.orphans -= 1
        if isinstance(what, Receipt):
            self._receipt = what
            self._abandoned = True
            self._books.finish_later(self.conclude(Result("aborted", sent=False)))

    def outcome(self, result: Result, spent: Mapping[str, int]) -> "asyncio.Future[Receipt]":
        """(8) The outcome is on its way to the ledger; the future is done when it is durable. At most once.

        `spent`: what is due of the call's cost, by meter.
        """
        if self._receipt is None or self._closed:
            raise RuntimeError("an outcome needs its intent, and there is only one")
        self._closed = True
        self._books.metrics.settled(result.status)
        content: Content = {
            "call": self._call,
            "attempt": self.number,
            "intent": self._receipt.seq,
            "result": {
                "status": result.status,
                "http": result.http,
                "err": result.err,
                "code": None if result.code is None else str(result.code),
                "sent": result.sent,
                "started_us": self._began,
                "ended_us": max(self._began, time.time_ns() // 1000),
            },
            "resp": result.reply,
            "cost": None if self._cost is None else self._cost.content(spent),
        }
        if self.upload is not None:
            content["upload"] = self.upload()
        return self._books.recorder.submit_async(asyncio.get_running_loop(), "call.outcome", self._tenant, content)

    @property
    def open(self) -> bool:
        """True while there is a durable intent without an outcome."""
        return self._receipt is not None and not self._closed and not self._abandoned

    @property
    def ended(self) -> bool:
        """True once its outcome is on its way: whatever else becomes of the call is another attempt."""
        return self._closed

    async def conclude(self, result: Result, spent: Mapping[str, int] | None = None) -> None:
        """The outcome is durable, or the failure to make it so is logged: recovery will close the intent.

        `spent`: what is due of its cost, by meter; what was sent is charged at its maximum where nobody says.
        """
        if spent is None:
            spent = {} if self._cost is None else self._cost.due(result)
        try:
            await self.outcome(result, spent)
        except LedgerError as error:
            logger.error("call %s: outcome %s could not be recorded: %s", self._call, result.status, error)


class Hold:
    """A call's reservation, given back exactly once."""

    __slots__ = ("_charged", "_reservations", "_reserved")

    def __init__(self, reservations: Reservations, reserved: Reserved) -> None:
        self._reservations = reservations
        self._reserved: Reserved | None = reserved
        self._charged: Mapping[str, int] | None = None

    def charge(self, spent: Mapping[str, int]) -> None:
        """So much is due, by meter, whatever becomes of the call: an attempt of it may have been delivered."""
        self._charged = spent

    def release(self) -> None:
        """Nothing was spent but what was charged. Idempotent."""
        reserved, self._reserved = self._reserved, None
        if reserved is None:
            return
        if self._charged is None:
            self._reservations.release(reserved)
        else:
            self._reservations.settle(reserved, self._charged)

    def settle(self, spent: Mapping[str, int], *, refused: bool = False) -> None:
        """So much was spent, by meter, or what had been charged before. Idempotent.

        `refused`: the service did not do it; of a call that may have been delivered before, that is not known.
        """
        reserved, self._reserved = self._reserved, None
        if reserved is not None and self._charged is None:
            self._reservations.settle(reserved, spent, refused=refused)
        elif reserved is not None and self._charged is not None:
            self._reservations.settle(reserved, self._charged)
