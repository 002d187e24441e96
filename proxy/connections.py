"""Agents' connections, counted: in all, for each account, and those whose owner is not known yet.

All agents of a host may share one address, so what bounds strangers is not the peer but the group of everybody who has
proven nothing: it is small, and its oldest member makes room for the newest. An account that is full makes room with
its own longest idle connection, or its newest one is refused readably. Belongs to the proxy's event loop.
"""

from collections import OrderedDict, deque
from typing import Final, Protocol

from proxy.denials import Denial
from proxy.journey import new_call_id
from proxy.turns import NOBODY, Key
from proxy.wire import Wire
from rules.codes import Code
from rules.decision import Reason

IDLE_AT_LEAST: Final = 5.0
"""An idle connection makes room only after so many seconds: one that rests between two calls is in use."""
_LOOK_AT: Final = 64
"""How many of an account's oldest connections are looked at for an idle one: bounded work for each newcomer."""
LINGERING: Final = 256
"""Refused connections that are kept open for a moment, so that the refusal is read; beyond it they are cut."""
LINGER_SECONDS: Final = 1.0
RETRY_AFTER_SECONDS: Final = 5


class Member(Protocol):
    """A connection's session, as far as it matters here."""

    idle: bool
    idle_since: float


class Refusable(Wire, Protocol):
    """A wire that can be refused without a session."""

    def refuse(self, data: bytes) -> None:
        """The bytes are on their way and nothing follows them; what is received is thrown away."""
        ...


class Connections:
    """Who is connected."""

    def __init__(self, *, in_all: int, per_account: int, unidentified: int) -> None:
        self._in_all = in_all
        self._per_account = per_account
        self._unidentified = unidentified
        self._owners: dict[Wire, Key] = {}
        self._groups: dict[Key, OrderedDict[Wire, Member]] = {}
        self._lingering: deque[tuple[float, Wire]] = deque()
        self.refused = 0
        """Connections that were refused before anything was read of them."""
        self.evicted = 0
        """Connections that made room for others."""

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def unidentified(self) -> int:
        """Connections whose owner is not known yet."""
        return len(self._groups.get(NOBODY, ()))

    def enter(self, wire: Refusable, now: float) -> bool:
        """True if there is room for the connection; else it has been refused."""
        nobodies = self._groups.get(NOBODY)
        if nobodies and (len(nobodies) >= self._unidentified or len(self._owners) >= self._in_all):
            self._evict(next(iter(nobodies)))
        if len(self._owners) >= self._in_all:
            self.refuse(wire, now)
            return False
        return True

    def register(self, wire: Wire, member: Member) -> None:
        """The connection is one of those whose owner is not known."""
        self._owners[wire] = NOBODY
        self._groups.setdefault(NOBODY, OrderedDict())[wire] = member

    def refuse(self, wire: Refusable, now: float) -> None:
        """The connection is told to come back later and gone soon: no task, no parser, no record."""
        self.refused += 1
        if len(self._lingering) >= LINGERING:
            wire.abort()
            return
        denial = Denial(Reason(Code.OVERLOADED, "too many connections"), new_call_id())
        wire.refuse(denial.render(in_tunnel=False, keep_alive=False))
        self._lingering.append((now + LINGER_SECONDS, wire))

    def sweep(self, now: float) -> None:
        """Refused connections that had their moment are cut."""
        while self._lingering and self._lingering[0][0] < now:
            self._lingering.popleft()[1].abort()

    def identify(self, wire: Wire, tenant: str, account: str, now: float) -> bool:
        """True if the connection is now counted for the account; False if the account is full. Idempotent."""
        key = Key(tenant, account)
        owner = self._owners.get(wire)
        if owner is None or owner == key:
            return owner == key
        group = self._groups.get(key)
        if group is not None and len(group) >= self._per_account and not self._make_room(group, now):
            return False
        member = self._leave(wire, owner)
        self._groups.setdefault(key, OrderedDict())[wire] = member  # the group is another one if its only member left
        self._owners[wire] = key
        return True

    def leave(self, wire: Wire) -> None:
        """The connection is gone. Idempotent."""
        owner = self._owners.pop(wire, None)
        if owner is not None:
            self._leave(wire, owner)

    def _leave(self, wire: Wire, owner: Key) -> Member:
        group = self._groups[owner]
        member = group.pop(wire)
        if not group:
            del self._groups[owner]
        return member

    def _make_room(self, group: OrderedDict[Wire, Member], now: float) -> bool:
        for _ in range(min(_LOOK_AT, len(group))):
            wire, member = next(iter(group.items()))
            if member.idle and now - member.idle_since > IDLE_AT_LEAST:
                self._evict(wire)
                return True
            group.move_to_end(wire)  # the next newcomer looks at others
        return False

    def _evict(self, wire: Wire) -> None:
        self.evicted += 1
        self.leave(wire)
        wire.abort()
