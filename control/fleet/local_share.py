"""`LocalShare`: one tenant's counters while the shared store is away, in the control process, for all workers.

What the ledger says was used is loaded; each claim is then cut to the share. Whoever took something here ends it here;
of calls that were let out before, the slots are taken here, and given back when they end.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Final, Literal

from control.stores.counted import Budget, BudgetUse, Holder, Key
from control.stores.limits import EmbeddedReservations
from rules.claims import Claim, LeaseClaim, RateClaim, Refused, ReservationsUnavailable, Reserved, SpendClaim
from rules.limits.share import NoShare, lease_share, rate_share, spend_share, told_by_records

type How = Literal["settle", "refuse", "release"]

MOST_HELD: Final = 100_000
"""Calls in flight at once, and buckets of single objects. Beyond, nothing is granted."""
_ALL_SLOTS: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Held:
    """A call in flight, as its worker knows it."""

    worker: str
    reserved: Reserved
    """Its own name of it, and its claims with the windows and amounts that were charged."""
    local: bool
    """Whether it was granted here, not by the shared store."""


class LocalShare:
    """Not safe from several threads, but for `budgets` and `holders`."""

    def __init__(
        self,
        budgets: Iterable[tuple[str, Budget]] = (),
        tats_wall_us: Iterable[tuple[Key, int]] = (),
        lost_us: int = 0,
        untold_tats: Iterable[tuple[Key, int]] = (),
    ) -> None:
        """`lost_us`: wall clock in microseconds from which on nobody asked the shared store.

        `untold_tats`: those of the share before, where the shared store was lost again before it was loaded.
        """
        used = [(name, replace(budget)) for name, budget in budgets]
        self._store = EmbeddedReservations()
        self._store.load(used, tats_wall_us)
        self._used = {name: (budget.window, budget.spent) for name, budget in used}
        self._lost_us = lost_us
        self._untold: set[Key] = set()
        for key, tat in untold_tats:
            self._untold.add(key)
            self._store.use_up(key, tat)
        self._held: dict[str, tuple[Held, Reserved]] = {}

    def reserve(self, worker: str, name: str, call: str, claims: tuple[Claim, ...], percent: int) -> Reserved | Refused:
        """All claims are taken, cut to the share, or none. The `Reserved` has the worker's name of it.

        Raises `ReservationsUnavailable` where the share of a limit is nothing.
        """
        if name in self._held or max(len(self._held), len(self._untold)) >= MOST_HELD:
            raise ReservationsUnavailable("it is more than one process counts")
        try:
            cut = [(part, index) for index, claim in enumerate(claims) for part in self._cut(claim, percent)]
        except NoShare as nothing:
            raise ReservationsUnavailable(f"the shared limits are away, and {nothing}") from nothing
        taken = self._store.reserve_now(call, tuple(part for part, _ in cut))
        if isinstance(taken, Refused):
            index = next(index for part, index in cut if part == taken.claim)
            detail = f"{taken.detail}; only {percent}% is granted while the shared limits are away"
            return replace(taken, claim=claims[index], detail=detail)
        whole = list(claims)
        for (_, index), part in zip(cut, taken.claims, strict=True):
            if isinstance(part, SpendClaim):
                whole[index] = replace(part, max_micros=_max_of(claims[index]))
        reserved = Reserved(name, tuple(whole))
        self._held[name] = Held(worker, reserved, local=True), taken
        return reserved

    def occupy(self, worker: str, name: str, claims: tuple[Claim, ...], *, local: bool) -> None:
        """A call that was let out otherwise is in flight: its slots are taken, beyond the share if need be."""
        if name in self._held:
            return
        leases = tuple(replace(claim, max=_ALL_SLOTS) for claim in claims if isinstance(claim, LeaseClaim))
        taken = self._store.reserve_now(name.rpartition("#")[0], leases)
        if isinstance(taken, Refused):
            raise RuntimeError("a slot without a bound was refused")
        self._held[name] = Held(worker, Reserved(name, claims), local), taken

    def end(self, name: str, how: How, amounts: Mapping[str, int]) -> None:
        """It has ended. Nothing happens where it is not known."""
        if (found := self._held.pop(name, None)) is None:
            return
        if how == "release":
            self._store.release(found[1])
        else:
            self._store.settle(found[1], amounts, refused=how == "refuse")

    def keep_only(self, worker: str, names: Set[str]) -> None:
        """Of a worker's calls no others are in flight: how they ended nobody says, so they count at their maximum."""
        for name in [name for name, (held, _) in self._held.items() if held.worker == worker and name not in names]:
            self.end(name, "settle", {})

    def pause(self, key: Key, seconds: float) -> None:
        """See `Reservations.pause`."""
        self._store.pause(key, seconds)

    def held(self) -> tuple[Held, ...]:
        """The calls in flight."""
        return tuple(held for held, _ in self._held.values())

    def untold_tats(self) -> list[tuple[Key, int]]:
        """The buckets of which the records do not say all that was taken, in microseconds of the wall clock."""
        exported = self._store.export()
        ahead = exported.ahead_us
        return [(key, exported.wall_us + ahead[key]) for key in self._untold if key in ahead]

    def budgets(self) -> tuple[BudgetUse, ...]:
        """The newest window of every budget."""
        return self._store.budgets()

    def holders(self, tenant: str) -> tuple[Holder, ...]:
        """The calls that hold a slot."""
        workers = {held.reserved.id.rpartition("#")[0]: held.worker for held, _ in list(self._held.values())}
        return tuple(replace(one, worker=workers.get(one.call, "-")) for one in self._store.holders_now(tenant))

    def _cut(self, claim: Claim, percent: int) -> Iterable[Claim]:
        if isinstance(claim, RateClaim):
            if not told_by_records(claim) and claim.key not in self._untold:
                self._untold.add(claim.key)
                self._store.use_up(claim.key, self._lost_us + claim.burst * claim.interval_us)
            return (claim, rate_share(claim, percent))
        if isinstance(claim, LeaseClaim):
            return (lease_share(claim, percent),)
        if isinstance(claim, SpendClaim):
            window, used = self._used.get("/".join(claim.key), ("", 0))
            # With the clock set back an older window counts against the newest, so its share is the newest one's.
            return (spend_share(claim, percent, used if claim.window <= window else 0),)
        return (claim,)


def _max_of(claim: Claim) -> int:
    if not isinstance(claim, SpendClaim):
        raise TypeError("a spend claim became of another claim")
    return claim.max_micros
