"""Control's side of the line to one worker."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.fleet.frames import Message
from control.fleet.snapshot import Snapshot, changes

MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""A worker that takes nothing any more is let go: its lease ends, and it has to come anew."""
SLOW_SECONDS: Final = 30.0
"""How long a worker may take to put into force what it was told (a large policy is compiled) and still be believed."""

_numbers = itertools.count()


def next_number(last: int) -> int:
    """Greater than every number before, also those of an earlier control."""
    return max(last + 1, time.time_ns())


@dataclass(slots=True, eq=False)
class Member:
    """One worker that is connected. Belongs to the control loop."""

    worker: str
    slot: int
    pid: int
    writer: asyncio.StreamWriter
    serves: list[tuple[str, int]] = field(default_factory=list)
    """Where it takes agents; empty before it does."""
    sent: Snapshot | None = None
    told: dict[int, float] = field(default_factory=dict)
    """Numbers of snapshots that it has not put into force yet, with when they were sent."""
    asked: dict[int, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)
    agreed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while everything that it was told is in force there."""

    def tell(self, now: Snapshot, number: int, key: Ed25519PrivateKey) -> bool:
        """What has changed since it was last told is on its way. False where nothing has."""
        message = changes(self.sent, now, number, key)
        if message is None:
            return False
        self.sent = now
        self.told[number] = time.monotonic()
        self.agreed.clear()
        self._write(message)
        return True

    def beat(self, away: Callable[[], Mapping[str, int | None]]) -> None:
        """It is heard by control, unless it has not done for long what it was told. `away` gives `Shares.word`."""
        at = time.monotonic()  # before the word: a process that was stopped in between says an old one as of then
        oldest = min(self.told.values(), default=None)
        if oldest is None or at - oldest < SLOW_SECONDS:
            self._write(Message("beat", {"at": at, "away": dict(away())}))

    def ask(self, kind: str, **body: Any) -> "asyncio.Future[dict[str, Any]]":
        """An order or a question is on its way; the future has the answer, or is cancelled when the worker is gone."""
        number = next(_numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.asked[number] = answer
        answer.add_done_callback(lambda _: self.asked.pop(number, None))
        self._write(Message(kind, {"id": number, **body}))
        return answer

    def heard(self, message: Message) -> None:
        """What the worker says about what it was told or asked."""
        if message.kind == "in_force":
            self.told.pop(message.body["number"], None)
            if not self.told:
                self.agreed.set()
        elif message.kind == "answer":
            answer = self.asked.get(message.body["id"])
            if answer is not None and not answer.done():
                answer.set_result(message.body)
        elif message.kind == "serves":
            self.serves = [(str(host), int(port)) for host, port in message.body["addresses"]]

    def want_report(self) -> None:
        """It says what it has in flight."""
        self._write(Message("report"))

    def granted(self, body: dict[str, Any]) -> None:
        """It has the answer to a reserve."""
        self._write(Message("granted", body))

    def gone(self) -> None:
        """Nobody answers any more."""
        for answer in tuple(self.asked.values()):
            answer.cancel()

    def _write(self, message: Message) -> None:
        transport = self.writer.transport
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
        elif not transport.is_closing():
            self.writer.write(message.encoded())
