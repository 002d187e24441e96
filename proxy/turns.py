"""Turns: how the one event loop's processor time is shared among accounts.

A piece of work that costs the processor (a handshake, a call from its identity to its last byte) is done while holding
a turn; whoever waits for something slow (a body, an origin) gives it back and takes it again. An account that is alone
gets as many turns as keep the ledger's groups full. As soon as another one is there too, each gets a few, and those
who want more wait in line behind themselves: others meet a loop with a handful of things to do, however many
connections one agent has opened.

Belongs to the proxy's event loop.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

ALONE: Final = 32
"""Turns of an account while no other is about. Twice what saturates the loop, so that group commits stay full."""
SHARED: Final = 4
"""Turns that all accounts share while several are about; a call has some five visits to the loop of 60 us each."""
AT_LEAST: Final = 2
"""What an account has however many others there are: one call to wait for the ledger, one to use the processor."""
ABOUT_SECONDS: Final = 10.0
"""An account is about for so long after its last turn, so that who calls once a second meets no full loop."""
REST_SECONDS: Final = 0.001
"""Between two grants to an account that waits behind itself, while another is about that does not. A loop that is never
idle keeps the ledger's thread from the interpreter, and every call of everybody waits for that thread twice. The least
that epoll can wait."""


class Key(NamedTuple):
    """Who takes turns."""

    tenant: str
    account: str


NOBODY: Final = Key("-", "")
"""Who has proven nothing yet: all of them share one place in the line."""
STRANGERS: Final = Key("-", "strangers")
"""Pieces received on connections that have shown no credential: all of them share one place in the line."""
_FIXED: Final = {NOBODY: 1, STRANGERS: 2}


class Turn:
    """A place in the line of one account, and the turn when it has come. Give it back on every path."""

    __slots__ = ("_held", "_key", "_turns")

    def __init__(self, turns: "Turns", key: Key) -> None:
        self._turns = turns
        self._key = key
        self._held = False

    async def take(self, *, first: bool = False) -> None:
        """The turn is held. `first` for work that has begun: it goes before the account's other work.

        Cancelled, nothing is held. Idempotent.
        """
        if self._held:
            return
        if not self._turns.take_now(self._key):
            await self._turns.wait(self._key, first=first)
        self._held = True

    def give_back(self) -> None:
        """The turn is the next one's. Idempotent."""
        if self._held:
            self._held = False
            self._turns.give_back(self._key)


type Errand = Callable[[], None]
type Defer = Callable[[Errand], bool]


class _Line:
    """Who of one account waits: what has begun before what has not, each in the order in which it came."""

    __slots__ = ("begun", "new")

    def __init__(self) -> None:
        self.begun: deque[asyncio.Future[None]] = deque()
        self.new: deque[asyncio.Future[None] | Errand] = deque()

    def __bool__(self) -> bool:
        return bool(self.begun or self.new)

    def pop(self) -> "asyncio.Future[None] | Errand":
        return self.begun.popleft() if self.begun else self.new.popleft()

    def remove(self, turn: "asyncio.Future[None]") -> None:
        """It waits no longer, if it does."""
        if turn in self.begun:
            self.begun.remove(turn)
        elif turn in self.new:
            self.new.remove(turn)


class Turns:
    """Grants turns: at once where an account holds fewer than its share, else one account after the other."""

    def __init__(self, *, alone: int = ALONE, shared: int = SHARED) -> None:
        self._alone = alone
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._held: dict[Key, int] = {}
        self._lines: dict[Key, _Line] = {}
        self._about: OrderedDict[Key, float] = OrderedDict()
        """When each account last had a turn; longest ago first."""
        self._resting: set[Key] = set()
        self.waiting = 0
        """Pieces of work that wait for a turn."""

    @property
    def held(self) -> int:
        """Turns held now."""
        return sum(self._held.values())

    def turn(self, tenant: str, account: str) -> Turn:
        """A place in this account's line; not taken yet."""
        return Turn(self, Key(tenant, account))

    def of(self, key: Key) -> Turn:
        """A place in the line of those who share `NOBODY`."""
        return Turn(self, key)

    def take_now(self, key: Key) -> bool:
        """The turn is taken if this account may hold one more and none of its own is waiting."""
        if key not in _FIXED:
            now = self._loop.time()
            about = self._about
            about[key] = now
            about.move_to_end(key)
            while now - next(iter(about.values())) > ABOUT_SECONDS:
                about.popitem(last=False)
        held = self._held.get(key, 0)
        if held >= self.share(key) or key in self._lines:
            return False
        self._held[key] = held + 1
        return True

    def share(self, key: Key) -> int:
        """How many turns the account may hold now."""
        fixed = _FIXED.get(key)
        if fixed is not None:
            return fixed
        about = len(self._about)
        return self._alone if about <= 1 else max(AT_LEAST, self._shared // about)

    async def wait(self, key: Key, *, first: bool) -> None:
        """A turn is held for the account; cancelled, none is."""
        turn: asyncio.Future[None] = self._loop.create_future()
        line = self._lines.setdefault(key, _Line())
        if first:
            line.begun.append(turn)
        else:
            line.new.append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(key)  # granted in the very moment in which the work was stopped
            else:
                self._leave_line(key, turn)
            raise
        finally:
            self.waiting -= 1

    def give_back(self, key: Key) -> None:
        """One turn of this account is free for its next piece of work."""
        held = self._held[key] - 1
        if held:
            self._held[key] = held
        else:
            del self._held[key]
        if key in self._lines and self._others_rest():
            if key not in self._resting:
                self._resting.add(key)
                self._loop.call_later(REST_SECONDS, self._rested, key)
            return
        self._grant(key)

    def rest(self) -> float:
        """Seconds to wait before another newcomer is taken."""
        return REST_SECONDS if self._others_rest() else 0.0

    def _others_rest(self) -> bool:
        """Whether an account is about that does not wait for turns: it wants to find the loop idle when it calls."""
        waiting = len(self._lines)
        for key in _FIXED:
            waiting -= key in self._lines
        return len(self._about) > waiting

    def _rested(self, key: Key) -> None:
        self._resting.discard(key)
        self._grant(key)

    def reader(self, key: Key) -> Defer:
        """For a connection of this account's, or a stranger's: asked with each piece received, whether it has to wait.

        False: it is taken at once. True: the errand will be run in a turn of the account's. Decrypting and parsing
        what sixty connections sent at once takes longer than others should wait for the loop.
        """

        def defer(errand: Errand) -> bool:
            if len(self._about) <= 1:
                return False
            if self.take_now(key):
                self._loop.call_soon(self.give_back, key)  # one turn of the loop: so many pieces at a time
                return False
            self._lines.setdefault(key, _Line()).new.append(errand)
            return True

        return defer

    def _grant(self, key: Key) -> None:
        line = self._lines.get(key)
        share = self.share(key)
        while line and self._held.get(key, 0) < share:
            turn = line.pop()
            if not isinstance(turn, asyncio.Future):
                self._held[key] = self._held.get(key, 0) + 1
                self._loop.call_soon(self._run, key, turn)
            elif not turn.done():
                self._held[key] = self._held.get(key, 0) + 1
                turn.set_result(None)
        if line is not None and not line:
            del self._lines[key]

    def _run(self, key: Key, errand: Errand) -> None:
        try:
            errand()
        finally:
            self.give_back(key)

    def _leave_line(self, key: Key, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(key)
        if line is not None:
            line.remove(turn)
            if not line:
                del self._lines[key]
