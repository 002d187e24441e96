"""Ends of reservations on their way to the server.

Whoever ends a call does not wait for the server. What could not be delivered is tried again, bounded; what never
arrives is ended by the server itself when its time to live is over. Each command is idempotent there.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Final

import hiredis

from control.stores.redis.link import Link
from control.stores.redis.scripts import Script, forgotten
from control.stores.redis.wire import Crowded, Lost

logger = logging.getLogger("exeat.limits")

MAX_KEPT: Final = 100_000
MAX_TRIES: Final = 10
AGAIN_SECONDS: Final = 0.5
"""After an error of the server; a lost connection is waited for instead."""


@dataclass(slots=True)
class _Letter:
    script: Script
    root: bytes
    arguments: tuple[bytes | str | int, ...]
    tries: int = 0
    whole: bool = False
    """The script's text is sent, because the server did not know its name."""


class Outbox:
    """Delivers in the background; belongs to the link's loop."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kept: deque[_Letter] = deque()
        self._flying = 0
        self._later: asyncio.TimerHandle | None = None
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        """Given up since the start."""

    @property
    def undelivered(self) -> int:
        """Sent and unanswered, or kept."""
        return self._flying + len(self._kept)

    def post(self, script: Script, root: bytes, *arguments: bytes | str | int) -> None:
        """It will be delivered, or counted as dropped. Never raises, never waits."""
        self._send(_Letter(script, root, arguments))

    def flush(self) -> None:
        """The link is up: everything kept is sent."""
        kept, self._kept = self._kept, deque()
        for letter in kept:
            self._send(letter)

    async def settled(self, timeout_seconds: float) -> bool:
        """True when nothing is undelivered; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _send(self, letter: _Letter) -> None:
        self._idle.clear()
        wire = self._link.up
        if wire is None:
            self._keep(letter)
            return
        name = (b"EVAL", letter.script.text) if letter.whole else (b"EVALSHA", letter.script.digest)
        try:
            answer = wire.ask(*name, b"1", letter.root, *letter.arguments)
        except (Lost, Crowded):
            self._keep(letter)
            return
        self._flying += 1
        answer.add_done_callback(lambda answer: self._answered(letter, answer))

    def _answered(self, letter: _Letter, answer: "asyncio.Future[object]") -> None:
        self._flying -= 1
        if answer.cancelled() or isinstance(answer.exception(), Lost):
            self._keep(letter)
        elif isinstance(reply := answer.result(), hiredis.ReplyError):
            letter.tries += 1
            if forgotten(reply):
                letter.whole = True
                self._send(letter)
            elif letter.tries >= MAX_TRIES:
                self._drop(f"the server refuses it: {reply}")
            else:
                self._keep(letter)
                if self._later is None:
                    self._later = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again)
        elif self.undelivered == 0:
            self._idle.set()

    def _again(self) -> None:
        self._later = None
        if self._link.up is not None:
            self.flush()

    def _keep(self, letter: _Letter) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._drop("too many are waiting")
        else:
            self._kept.append(letter)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped == 1 or self.dropped % 1000 == 0:
            logger.error("the end of a reservation is left to its expiry (%s); %d so far", why, self.dropped)
        if self.undelivered == 0:
            self._idle.set()
