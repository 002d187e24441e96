"""Whose intents are whose, and when nobody will end them any more.

An intent stays open while its worker may still end it. A worker is gone when its connection has ended and it has not
come back within its grace; after a start of the sequencer, when it has not come within the grace of the start. Then its
open intents are closed as `indeterminate`, at their maximum: once, for the ledger takes one outcome of an intent.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from ledger import Ledger, LedgerError, OpenIntent

logger = logging.getLogger("exeat.sequencer")

START_SECONDS: Final = 5.0
"""Workers try again four times a second."""
RETURN_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 1.0
CLOSED_AT_ONCE: Final = 512


class Graces:
    """Closes what is left open. For one event loop."""

    def __init__(self, ledger: Ledger, *, start_seconds: float, return_seconds: float) -> None:
        self._ledger = ledger
        self._start_seconds = start_seconds
        self._return_seconds = return_seconds
        self._present: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._ended = False

    def begin(self) -> None:
        """The grace of the start runs from now on, for every worker that has left something open."""
        for name in {intent.worker for intent in self._ledger.open_intents().values()}:
            self._expect(name, self._start_seconds)

    async def came(self, name: str) -> None:
        """The worker is there: nothing of it is closed behind its back. What was being closed is."""
        self._present.add(name)
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        closing = self._closing.get(name)
        if closing is not None:
            await asyncio.wait({closing})

    def went(self, name: str, *, for_good: bool) -> None:
        """The worker's connection has ended; `for_good` when it said so."""
        self._present.discard(name)
        self._expect(name, 0.0 if for_good else self._return_seconds)

    def end(self) -> None:
        """Nothing more is closed; the next start sees to it."""
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._closing.values():
            task.cancel()

    def intents_of(self, name: str) -> list[OpenIntent]:
        """What the worker has open."""
        return [intent for intent in self._ledger.open_intents().values() if intent.worker == name]

    async def close(self, intents: Iterable[OpenIntent], status: str, err: str, *, sent: bool | None = None) -> None:
        """Each has an outcome, durably: this one, or its own that was faster. Raises `LedgerUnavailable`."""
        loop = asyncio.get_running_loop()
        waiting = list(intents)
        for start in range(0, len(waiting), CLOSED_AT_ONCE):
            answers = await asyncio.gather(
                *(
                    self._ledger.submit_async(
                        loop, "call.outcome", intent.tenant, intent.ended_unseen(status, err, sent=sent)
                    )
                    for intent in waiting[start : start + CLOSED_AT_ONCE]
                ),
                return_exceptions=True,
            )
            for intent, answer in zip(waiting[start:], answers, strict=False):
                if isinstance(answer, BaseException) and self._ledger.open_intent(intent.seq) is not None:
                    raise answer

    def _expect(self, name: str, seconds: float) -> None:
        if self._ended or name in self._present or name in self._timers:
            return
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, self._gone, name)

    def _gone(self, name: str) -> None:
        self._timers.pop(name, None)
        intents = self.intents_of(name)
        if intents and name not in self._closing:
            logger.warning("worker %s is gone: %d calls of it are indeterminate", name, len(intents))
            task = self._closing[name] = asyncio.get_running_loop().create_task(self._close_all(name, intents))
            task.add_done_callback(lambda _: self._closing.pop(name, None))

    async def _close_all(self, name: str, intents: list[OpenIntent]) -> None:
        try:
            await self.close(intents, "indeterminate", "worker_lost")
        except LedgerError as error:
            logger.error("calls of worker %s could not be closed and are tried again: %s", name, error)
            self._expect(name, AGAIN_SECONDS)
