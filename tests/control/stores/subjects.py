"""The stores under one suite: each with its clocks in the test's hand and its books open."""

import itertools
from collections.abc import Set
from typing import Protocol

import redis

from control.stores.limits import REAP_AFTER_SECONDS, EmbeddedReservations
from control.stores.redis.place import Place
from control.stores.redis.store import LEASE_SECONDS, RedisReservations
from rules.claims import PauseClaim, Reservations, Reserved
from tests.worlds.valkey import Valkey

type Books = dict[str, tuple[str, int, int]]
"""Budget: (window, spent, reserved)."""


class Subject(Protocol):
    """One store."""

    @property
    def store(self) -> Reservations:
        """The port under test."""

    @property
    def wall(self) -> float:
        """The store's own clock, Unix seconds."""

    async def settled(self) -> None:
        """Everything that was ended has arrived."""

    async def pass_seconds(self, seconds: float) -> None:
        """So much time has passed on the clock that the store counts by; negative: it was set back."""

    async def books(self) -> Books:
        """What the store has counted of tenant `acme`."""

    async def held(self) -> int:
        """Reservations in flight of tenant `acme`."""

    async def lose(self, lost: Set[str], seconds: float = 100) -> None:
        """The owners of these calls are gone since `seconds`, longer than the store waits before it ends them."""


class Clock:
    """Two clocks that move only when told."""

    def __init__(self) -> None:
        self.mono_us = 1_000_000_000
        self.wall = 1_795_000_000.0

    def pass_seconds(self, seconds: float) -> None:
        self.mono_us += int(seconds * 1_000_000)
        self.wall += seconds


class Embedded:
    """The counters of one process."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = EmbeddedReservations(monotonic_us=lambda: self.clock.mono_us, wall_seconds=lambda: self.clock.wall)
        self.live: dict[str, str] = {}

    @property
    def wall(self) -> float:
        return self.clock.wall

    async def settled(self) -> None:
        pass

    async def pass_seconds(self, seconds: float) -> None:
        self.clock.pass_seconds(seconds)

    async def books(self) -> Books:
        return {use.key: (use.window, use.spent_micros, use.reserved_micros) for use in self.store.budgets()}

    async def held(self) -> int:
        return self.store.held

    async def lose(self, lost: Set[str], seconds: float = 100) -> None:
        assert seconds > REAP_AFTER_SECONDS
        self.clock.pass_seconds(seconds)
        live = {hold.call for hold in self.store._held.values()} - lost
        self.store.reap(live)


class Shared:
    """The counters in a real server, looked at by another client than the product's."""

    def __init__(self, server: Valkey, **options: float) -> None:
        self.server = server
        self.client = redis.Redis(port=server.port, decode_responses=True)
        self.store = RedisReservations(Place.parse(server.url), "w1", **options)  # type: ignore[arg-type]

    async def start(self, *tenants: str) -> "Shared":
        await self.store.start()
        await self.store.rebuild(tenants or ("acme", "globex"), (), (), f"g{next(_GENERATIONS)}")
        return self

    async def stop(self) -> None:
        await self.store.settled()
        await self.store.stop()
        self.client.close()

    @property
    def wall(self) -> float:
        seconds, microseconds = self.client.time()  # type: ignore[misc]
        return float(seconds) + microseconds / 1e6

    async def settled(self) -> None:
        assert await self.store.settled()

    async def pass_seconds(self, seconds: float) -> None:
        """Everything that the server remembers was so much longer ago: as if its clock had moved."""
        shift_us = int(seconds * 1_000_000)
        for key in self.client.scan_iter("exeat:*"):
            kind = key.split("}:", 1)[1] if "}:" in key else ""
            self._move(key, kind, shift_us)
        await self.store.keep_now()  # meanwhile, this process has told that it lives

    def _move(self, key: str, kind: str, shift_us: int) -> None:
        match self.client.type(key):
            case "string" if kind.startswith("r:"):
                self.client.set(key, int(self.client.get(key)) - shift_us, keepttl=True)  # type: ignore[arg-type]
            case "string" if kind.startswith("p:"):
                until, length = self.client.get(key).split()  # type: ignore[union-attr]
                self.client.set(key, f"{int(until) - shift_us} {length}", keepttl=True)
            case "zset":
                for member, score in self.client.zrange(key, 0, -1, withscores=True):  # type: ignore[union-attr]
                    self.client.zadd(key, {member: score - shift_us})
        left_ms = int(self.client.pttl(key))  # type: ignore[arg-type]
        if 0 < left_ms <= shift_us // 1000:
            self.client.delete(key)
        elif left_ms > 0:
            self.client.pexpire(key, left_ms - shift_us // 1000)

    async def books(self) -> Books:
        uses = await self.store.budgets("acme")
        return {use.key: (use.window, use.spent_micros, use.reserved_micros) for use in uses}

    async def held(self) -> int:
        generation = self.client.get("exeat:{acme}").split("\n")[0]  # type: ignore[union-attr]
        return int(self.client.zcard(f"exeat:{{acme}}:{generation}:x"))  # type: ignore[arg-type]

    async def lose(self, lost: Set[str], seconds: float = 100) -> None:
        assert seconds > LEASE_SECONDS
        for name in [name for name in self.store._held if name.rpartition("#")[0] in lost]:
            del self.store._held[name]
        await self.pass_seconds(seconds)
        granted(await self.store.reserve("c_next", (PauseClaim(("acme", "nothing")),)))  # the next to come tidies up


_GENERATIONS = itertools.count(1)


def granted(result: object) -> Reserved:
    """The reservation, or a failure that says what was answered."""
    assert isinstance(result, Reserved), result
    return result
