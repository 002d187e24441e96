"""What stores of counters hold and show: budgets, holders, and all of it at one instant."""

from dataclasses import dataclass
from typing import Final

FORGOTTEN_SECONDS: Final = 8 * 86_400
"""A window that ended so long ago is forgotten: no clock is set back so far, and what limits are counted by (objects,
tools) would else be kept for ever."""
UNUSED_SECONDS: Final = 40 * 86_400
"""A budget whose end nobody knows is forgotten so long after its last use: a run's does not end by the clock, and a
month's has ended more than eight days ago. The shared store forgets after the same times."""

type Key = tuple[str, ...]


@dataclass(slots=True)
class Budget:
    """One budget's newest window. Mutable, and private to its store."""

    window: str
    resets_at: int = 0
    """Unix seconds; 0 when nobody has said so since the start."""
    spent: int = 0
    reserved: int = 0
    used_at: int = 0
    """Unix seconds of its last use; kept where `resets_at` is 0 alone."""

    def is_over(self, now: float) -> bool:
        """Whether it can be forgotten."""
        if self.reserved:
            return False
        return self.resets_at + FORGOTTEN_SECONDS <= now if self.resets_at else self.used_at + UNUSED_SECONDS <= now


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What a budget has been used for, in micro-units."""

    key: str
    """`tenant/account/unit/period`."""
    window: str
    spent_micros: int
    reserved_micros: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A call that holds something now."""

    call: str
    worker: str
    since: float
    """Unix seconds."""
    leases: tuple[str, ...]
    """The concurrency caps it takes a slot of, `tenant/account/concurrency`."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The counters at one instant, on the wall clock."""

    wall_us: int
    ahead_us: dict[Key, int]
    """By how much each bucket's next free time lies ahead."""
    budgets: dict[str, Budget]
    held: tuple[tuple[str, tuple[tuple[str, str, int], ...]], ...]
    """Calls in flight that have set an amount aside: (call, ((budget, window, amount), ...))."""
    ended: tuple[str, ...]
    """Calls that ended while the export was made; what they spent is in `budgets`."""
