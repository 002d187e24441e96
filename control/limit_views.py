"""What limits are used for now, as operators see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from control.stores.counted import BudgetUse, Holder


@dataclass(frozen=True, slots=True)
class BudgetShown:
    """One budget of the policy in force, in the window that is now. Amounts are micro-units."""

    tenant: str
    account: str
    """`*`: all accounts of the tenant together."""
    meter: str
    unit: str
    """A currency, or what is counted."""
    per: str
    by: str
    """Of which run, workflow and the like, where it counts each by itself: `run=r_7Kq`."""
    window: str
    max: int
    spent: int
    set_aside: int
    """For calls in flight."""
    left: int
    resets_at: int
    """Unix seconds; 0: it does not end by the clock."""


@dataclass(frozen=True, slots=True)
class HolderShown:
    """A call that holds a slot."""

    call: str
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SlotsShown:
    """One concurrency limit of the policy in force."""

    tenant: str
    account: str
    about: str
    """Which calls: `*`, or a connection, tools, and what each is counted by."""
    max: int
    """Of each, where it is counted by something."""
    taken: int
    """Of all of them."""
    holders: tuple[HolderShown, ...]
    waiting: int = 0
    """Calls that wait for one, where the limit has a queue."""


@dataclass(frozen=True, slots=True)
class LimitsShown:
    """What is used of the limits now."""

    budgets: tuple[BudgetShown, ...]
    slots: tuple[SlotsShown, ...]
    more: int
    """Budgets counted by something that are not shown: those least used."""


class LimitOperations(Protocol):
    """Raises `Refused` or `Unavailable` of `control.operations`."""

    def show(self, tenant: str | None) -> LimitsShown:
        """Every budget and slot of a tenant, or of all; those that nobody uses too. Asks the store that decides."""
        ...


class Counters(Protocol):
    """The store that decides, asked from another thread. Raises `ReservationsUnavailable` when it does not answer."""

    def budgets(self, tenant: str) -> tuple[BudgetUse, ...]:
        """The newest window of every budget that was used."""
        ...

    def holders(self, tenant: str) -> tuple[Holder, ...]:
        """The calls that hold a slot, the oldest first."""
        ...

    def waiting(self, tenant: str, slots: Sequence[str]) -> Mapping[str, int]:
        """How many calls wait for each of these slots, by their names as holders have them."""
        ...
