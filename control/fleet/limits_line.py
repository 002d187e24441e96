"""A worker's side of what control says and grants about limits, between the gate's thread and the channel's.

Control says with each beat which tenants' counters are not the shared ones now. The word holds for as long as control's
word about revocations does: who has not heard it for so long uses no counters at all. So control knows from when on
nobody asks the shared store, also of a worker that it cannot reach.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from control.fleet.claim_frames import claims_body
from control.fleet.frames import Message
from rules.claims import Claim, ReservationsUnavailable

ASK_SECONDS: Final = 0.4
"""As long as the shared store has, and before the pipeline's own deadline for the step."""
MAX_KEPT: Final = 100_000

type Holds = Callable[[], list[list[Any]]]
"""The calls in flight: name, whether control granted it, claims."""


@dataclass(frozen=True, slots=True)
class Word:
    """What control said last. Replaced whole."""

    until: float = -math.inf
    """Until when it holds (`time.monotonic`)."""
    away: Mapping[str, int | None] = field(default_factory=dict)
    """Tenants whose limits the shared store does not count now: by which epoch control grants them; None: nobody."""

    @property
    def holds(self) -> bool:
        """Whether it was said lately enough."""
        return time.monotonic() <= self.until


class LimitsLine:
    """One worker's. What is said of a thread is the one that it is called from."""

    def __init__(self) -> None:
        self.word = Word()
        """Any thread reads it."""
        self.holds: Holds = list
        """Set before the gate serves."""
        self.asking: Callable[[], list[str]] = list
        """The calls that control may have granted, and that are not among those in flight yet. Set as `holds`."""
        self.ended: Callable[[str], None] = _nothing
        """Called when control does not grant of a tenant's limits any more. Set before the gate serves."""
        self._asked: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Future[dict[str, Any]]]] = {}
        self._kept: deque[Message] = deque(maxlen=MAX_KEPT)
        """Ends that could not be said yet; of one that is forgotten control learns by the next report."""
        self._send: Callable[[Message], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # the channel's thread

    def connected(self, send: Callable[[Message], None]) -> None:
        """Control is there, and knows what ended meanwhile and what is in flight."""
        self._loop, self._send = asyncio.get_running_loop(), send
        self._say()
        self.report()

    def lost(self) -> None:
        """Control is not there: nobody waits for its answers."""
        self._send = None
        for name in tuple(self._asked):
            self.answered({"name": name, "unavailable": "the line to control was lost"})

    def heard(self, until: float, away: Mapping[str, int | None]) -> None:
        """This holds from now on."""
        before, self.word = self.word, Word(until, away)
        if before.away != away:
            for tenant, epoch in before.away.items():
                if epoch is not None and away.get(tenant) != epoch:
                    self.ended(tenant)

    def report(self) -> None:
        """Control knows what is in flight."""
        if self._send is not None:
            asking = self.asking()  # first: what is granted goes from here to those in flight
            self._send(Message("holds", {"calls": self.holds(), "asking": asking}))

    def answered(self, body: dict[str, Any]) -> None:
        """Control's answer to what was asked."""
        if (asked := self._asked.pop(body["name"], None)) is not None:
            loop, answer = asked
            loop.call_soon_threadsafe(_answer, answer, body)

    def _say(self) -> None:
        while self._send is not None and self._kept:
            self._send(self._kept.popleft())

    # the gate's thread

    async def ask(self, tenant: str, epoch: int, name: str, claims: tuple[Claim, ...]) -> dict[str, Any]:
        """Control's answer to a reserve. Raises `ReservationsUnavailable`; it may have been taken all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._asked[name] = loop, answer
        body = {"name": name, "tenant": tenant, "epoch": epoch, "claims": claims_body(claims)}
        try:
            if self._send is None:
                raise ReservationsUnavailable("control cannot be asked")
            self.post(Message("reserve", body))
            async with asyncio.timeout(ASK_SECONDS):
                return await answer
        except TimeoutError:
            raise ReservationsUnavailable("control did not answer in time") from None
        finally:
            self._asked.pop(name, None)

    def post(self, message: Message) -> None:
        """It is said as soon as control is there, in the order of what is posted."""
        self._kept.append(message)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._say)


def _nothing(_: str) -> None:
    """Nobody serves yet."""


def _answer(answer: "asyncio.Future[dict[str, Any]]", body: dict[str, Any]) -> None:
    if not answer.done():
        answer.set_result(body)
