"""Delivers what the outbox has, on a thread and an event loop of its own: whatever a receiver does, nobody waits.

One attempt at a time for each destination. Where one fails, the others for the same destination wait a little too, so
that a receiver that is down is not asked a thousand times.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from control.alerts.sending import SecretOf, Sender, Sent, log
from control.state.errors import StateUnavailable
from control.state.outbox import Due, Outbox
from control.threads import ControlThread
from rules.alerts.destination import LOG

logger = logging.getLogger("exeat.alert")

LOOK_SECONDS: Final = 5.0
"""At least so often it is looked for what is due: also after a failure of the database."""
REST_SECONDS: Final = 60.0
"""The longest that a destination rests after a failure, while others of its alerts wait."""
PRUNE_SECONDS: Final = 3600.0

type Listeners = Callable[[], frozenset[tuple[str, int]]]


class Deliverer:
    """`start` and `stop` from any thread."""

    def __init__(self, outbox: Outbox, secret_of: SecretOf, own_listeners: Listeners) -> None:
        self._outbox = outbox
        self._secret_of = secret_of
        self._own_listeners = own_listeners
        self._thread = ControlThread("exeat-alerts")
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._resting: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._wanted: asyncio.Event | None = None
        self.attempts = 0
        self.failed = 0

    def start(self) -> None:
        """What is due is delivered from now on."""
        self._thread.start()
        self._outbox.wake = self.wake
        self._thread.submit(self._run)

    def stop(self) -> None:
        """Nothing is sent any more; what was in the middle of it is tried again after the next start."""
        self._outbox.wake = lambda: None
        self._thread.stop()

    def wake(self) -> None:
        """Something may be due. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._thread.loop.call_soon_threadsafe(self._look)

    def gauges(self) -> dict[str, float]:
        """For the metrics. From any thread."""
        found: dict[str, float] = {"alert_attempts": self.attempts, "alert_attempts_failed": self.failed}
        with contextlib.suppress(StateUnavailable):
            counts = self._outbox.read.counts()
            found |= {
                "alerts_waiting": counts.waiting,
                "alerts_delivered": counts.delivered,
                "alerts_given_up": counts.given_up,
                "alerts_dropped": counts.dropped,
                "alerts_oldest_waiting_seconds": counts.oldest_seconds if counts.waiting else 0,
            }
        return found

    def _look(self) -> None:
        if self._wanted is not None:
            self._wanted.set()

    async def _run(self) -> None:
        self._wanted = asyncio.Event()
        sender = Sender(self._secret_of, self._own_listeners)
        loop = asyncio.get_running_loop()
        pruned = loop.time()
        try:
            while True:
                self._wanted.clear()
                pause = LOOK_SECONDS
                try:
                    pause = await self._begin(sender)
                    if loop.time() - pruned > PRUNE_SECONDS:
                        pruned = loop.time()
                        await asyncio.to_thread(self._outbox.prune)
                except StateUnavailable as error:
                    logger.error("alerts cannot be looked at now: %s", error.message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wanted.wait()
        finally:
            sender.close()

    async def _begin(self, sender: Sender) -> float:
        """What is due has been begun; how long nothing else will be."""
        now = asyncio.get_running_loop().time()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        due, later = await asyncio.to_thread(self._outbox.due, (*self._busy, *self._resting))
        for one in due:
            key = (one.tenant, one.destination)
            self._busy[key] = asyncio.create_task(self._deliver(sender, one))
        rests = [until - now for until in self._resting.values()]
        return max(0.05, min(LOOK_SECONDS, *(rests or [LOOK_SECONDS]), LOOK_SECONDS if later is None else later))

    async def _deliver(self, sender: Sender, due: Due) -> None:
        key = (due.tenant, due.destination)
        try:
            sent, for_good = await self._send(sender, due)
            self.attempts += 1
            if sent.ok:
                self._failures.pop(key, None)
                await asyncio.to_thread(self._outbox.delivered, due, sent.told)
                return
            self.failed += 1
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            rest = min(REST_SECONDS, self._outbox.patience.pause(failures))
            self._resting[key] = asyncio.get_running_loop().time() + rest
            state = await asyncio.to_thread(lambda: self._outbox.failed(due, sent.told, for_good=for_good))
            logger.warning("alert %s to %s/%s: %s; %s", due.alert.id, *key, sent.told, state)
        except StateUnavailable as error:
            logger.error("alert %s to %s/%s: %s", due.alert.id, *key, error.message)
            self._resting[key] = asyncio.get_running_loop().time() + LOOK_SECONDS
        finally:
            self._busy.pop(key, None)
            self._look()

    async def _send(self, sender: Sender, due: Due) -> tuple[Sent, bool]:
        if due.destination == LOG:
            log(due.alert)
            return Sent(True, "in the log"), False
        destination = self._outbox.destination(due)
        if destination is None:
            return Sent(False, "the policy has no such destination any more"), True
        return await sender.send(destination, due.alert), False
