"""What stores of counters hold and show: budgets, holders, and all of it at one instant."""

from dataclasses import dataclass

type Key = tuple[str, ...]


@dataclass(slots=True)
class Budget:
    """One budget's newest window. Mutable, and private to its store."""

    window: str
    resets_at: int = 0
    """Unix seconds; 0 when nobody has said so since the start."""
    spent: int = 0
    reserved: int = 0


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
