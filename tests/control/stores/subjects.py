"""The stores under one suite: each with its clocks in the test's hand and its books open."""

from collections.abc import Set
from typing import Protocol

from control.stores.limits import REAP_AFTER_SECONDS, EmbeddedReservations
from rules.claims import Reservations, Reserved

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

    async def lose(self, lost: Set[str]) -> None:
        """The owners of these calls are gone, and the time after which the store ends what they held has passed."""


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

    async def lose(self, lost: Set[str]) -> None:
        self.clock.pass_seconds(REAP_AFTER_SECONDS)
        live = {hold.call for hold in self.store._held.values()} - lost
        self.store.reap(live)


def granted(result: object) -> Reserved:
    """The reservation, or a failure that says what was answered."""
    assert isinstance(result, Reserved), result
    return result
