"""Counters, leases and budgets of one process, in memory: the embedded `Reservations`.

Invariants, each tested against a model:

1. A reserve takes all its claims or changes nothing.
2. In every budget window: settled spending plus reservations in flight never exceed the cap because of a reserve.
3. Releasing and settling are idempotent and never raise; a reservation ends once.
4. A budget's window never goes back: with the clock set back, an older window counts against the newest seen.
5. What cannot be understood is not granted: `ReservationsUnavailable`, and the caller denies.

Rates run on the monotonic clock; the wall clock only told the caller which window it is. What survives a restart, and
how, is in `control.stores.limits_replay`.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Lock
from time import monotonic_ns, time
from typing import Final

from rules.claims import (
    Claim,
    LeaseClaim,
    OnceClaim,
    PauseClaim,
    RateClaim,
    Refused,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
)
from rules.codes import Code
from rules.limits.gcra import Exceeds, gcra

REAP_AFTER_SECONDS: Final = 60
"""A call that is in no list of live calls this long after its reserve has been lost by its owner."""

type Key = tuple[str, ...]


@dataclass(slots=True)
class Budget:
    """One budget's newest window. Mutable, and private to the store."""

    window: str
    resets_at: int = 0
    """Unix seconds; 0 when nobody has said so since the start."""
    spent: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """What a budget has been used for, in micro-units of its currency."""

    key: str
    """`tenant/account/currency/period`."""
    window: str
    spent_micros: int
    reserved_micros: int


@dataclass(slots=True)
class _Hold:
    call: str
    taken_us: int
    leases: list[Key] = field(default_factory=list)
    spends: list[tuple[str, str, int]] = field(default_factory=list)
    """(budget, window, amount)."""
    meters: list[str] = field(default_factory=list)
    """Of each of `spends`."""


def _monotonic_us() -> int:
    return monotonic_ns() // 1000


class EmbeddedReservations:
    """Implements `rules.claims.Reservations` for one process. Safe from several threads; never waits."""

    def __init__(
        self, *, monotonic_us: Callable[[], int] = _monotonic_us, wall_seconds: Callable[[], float] = time
    ) -> None:
        self._monotonic_us = monotonic_us
        self._wall_seconds = wall_seconds
        self._lock = Lock()
        self._numbers = count(1)
        self._tats: dict[Key, int] = {}
        self._leases: dict[Key, int] = {}
        self._pauses: dict[Key, int] = {}
        self._budgets: dict[str, Budget] = {}
        self._held: dict[str, _Hold] = {}
        self._ended: list[str] | None = None
        """Calls that ended since `begin_export`; None when nobody asked."""

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """All claims are taken, or none; never waits.

        The windows of the `Reserved` are those really charged. Raises `ReservationsUnavailable` for a claim that makes
        no sense; nothing was taken then either.
        """
        return self.reserve_now(call, claims)

    def reserve_now(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """As `reserve`, for callers without a loop."""
        with self._lock:
            now_us = self._monotonic_us()
            hold = _Hold(call, now_us)
            undo: list[Callable[[], None]] = []
            taken: list[Claim] = []
            for claim in claims:
                try:
                    result = self._take(claim, now_us, hold, undo)
                except ValueError as error:
                    _undo(undo)
                    raise ReservationsUnavailable(str(error)) from error
                if isinstance(result, Refused):
                    _undo(undo)
                    return result
                taken.append(result)
            reserved = Reserved(f"{call}#{next(self._numbers)}", tuple(taken))
            self._held[reserved.id] = hold
            return reserved

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back: the call was never sent. Rate tokens stay spent."""
        self._end(reserved.id, None, sent=False)

    def settle(self, reserved: Reserved, spent: Mapping[str, int]) -> None:
        """Leases are given back and each budget holds what its meter really counted; else its maximum."""
        self._end(reserved.id, spent)

    def pause(self, key: Key, seconds: float) -> None:
        """Claims of this key are refused for so long; the longest that was asked for counts."""
        with self._lock:
            now_us = self._monotonic_us()
            self._pauses = {paused: until for paused, until in self._pauses.items() if until > now_us}
            self._pauses[key] = max(self._pauses.get(key, 0), now_us + int(max(0.0, seconds) * 1_000_000))

    def reap(self, live_calls: Set[str], *, after_seconds: float = REAP_AFTER_SECONDS) -> tuple[str, ...]:
        """Ends reservations older than `after_seconds` whose call is not in `live_calls`; returns those calls.

        A safety net: whoever sees a result has found a defect and should report it. Nobody knows what such a call
        spent, so its amount counts as spent.
        """
        with self._lock:
            before_us = self._monotonic_us() - int(after_seconds * 1_000_000)
            lost = [
                (number, hold.call)
                for number, hold in self._held.items()
                if hold.taken_us <= before_us and hold.call not in live_calls
            ]
        for number, _ in lost:
            self._end(number, {})
        return tuple(call for _, call in lost)

    def budgets(self) -> tuple[BudgetUse, ...]:
        """The newest window of every budget, by key."""
        with self._lock:
            return tuple(
                BudgetUse(key, budget.window, budget.spent, budget.reserved)
                for key, budget in sorted(self._budgets.items())
            )

    @property
    def held(self) -> int:
        """Reservations that are neither released nor settled."""
        return len(self._held)

    def _take(self, claim: Claim, now_us: int, hold: _Hold, undo: list[Callable[[], None]]) -> Claim | Refused:
        match claim:
            case RateClaim():
                return self._take_rate(claim, now_us, undo)
            case LeaseClaim():
                return self._take_lease(claim, hold, undo)
            case SpendClaim():
                return self._take_spend(claim, hold, undo)
            case PauseClaim():
                return self._look_at_pause(claim, now_us)
            case OnceClaim():
                raise ValueError("idempotency keys are not kept yet")
            case _:  # a kind of claim that a newer policy asks and this store does not know
                raise ValueError(f"unknown claim {type(claim).__name__}")

    def _take_rate(self, claim: RateClaim, now_us: int, undo: list[Callable[[], None]]) -> Claim | Refused:
        before = self._tats.get(claim.key)
        # A bucket is at most empty: a stricter rate before, or a clock set back across a restart, must not lock it.
        tat_us = 0 if before is None else min(before, now_us + claim.burst * claim.interval_us)
        if before is not None:
            before = self._tats[claim.key] = tat_us
        verdict = gcra(tat_us, now_us, claim.interval_us, claim.burst)
        if isinstance(verdict, Exceeds):
            retry = _seconds(verdict.retry_after_us)
            return Refused(claim, Code.RATE_LIMITED, f"the rate of {claim.limit} is reached", retry)
        self._tats[claim.key] = verdict.tat_us
        undo.append(lambda: _put_back(self._tats, claim.key, before))
        return claim

    def _look_at_pause(self, claim: PauseClaim, now_us: int) -> Claim | Refused:
        until_us = self._pauses.get(claim.key, 0)
        if until_us > now_us:
            return Refused(claim, Code.RATE_LIMITED, "the service has asked to wait", _seconds(until_us - now_us))
        return claim

    def _take_lease(self, claim: LeaseClaim, hold: _Hold, undo: list[Callable[[], None]]) -> Claim | Refused:
        if claim.max < 1:
            raise ValueError("a concurrency cap is at least 1")
        taken = self._leases.get(claim.key, 0)
        if taken >= claim.max:
            return Refused(claim, Code.CONCURRENCY_REACHED, f"{claim.max} calls are in flight, the most allowed", 1)
        self._leases[claim.key] = taken + 1
        hold.leases.append(claim.key)
        undo.append(lambda: self._give_back(claim.key))
        return claim

    def _take_spend(self, claim: SpendClaim, hold: _Hold, undo: list[Callable[[], None]]) -> Claim | Refused:
        if claim.amount_micros < 0 or claim.max_micros < 0 or not claim.window:
            raise ValueError("a spend claim has a window and no negative amount")
        key = "/".join(claim.key)
        budget = self._budgets.get(key)
        rolled = budget is None or claim.window > budget.window
        current = Budget(claim.window) if budget is None or rolled else budget
        if claim.window == current.window:
            current.resets_at = claim.resets_at
        if current.spent + current.reserved + claim.amount_micros > claim.max_micros:
            return self._cap_reached(claim, current)
        if rolled:
            # What older windows still have in flight is settled into nothing: their day is over and was within its cap.
            self._budgets[key] = current
        current.reserved += claim.amount_micros
        hold.spends.append((key, current.window, claim.amount_micros))
        hold.meters.append(claim.meter)

        def put_back() -> None:
            current.reserved -= claim.amount_micros

        undo.append(put_back)  # a window once seen stays seen: only the amount is taken back
        return claim if claim.window == current.window else replace(claim, window=current.window)

    def _cap_reached(self, claim: SpendClaim, budget: Budget) -> Refused:
        resets_at = budget.resets_at or claim.resets_at
        retry = max(1, int(resets_at - self._wall_seconds()) + 1)
        left = max(0, claim.max_micros - budget.spent - budget.reserved)
        detail = (
            f"the spend cap of {money(claim.max_micros, claim.unit)} for {budget.window} is reached: "
            f"{money(left, claim.unit)} left, {money(claim.amount_micros, claim.unit)} needed"
        )
        return Refused(claim, Code.SPEND_CAP_REACHED, detail, retry)

    def _end(self, number: str, spent: object, *, sent: bool = True) -> None:
        """Ends a reservation."""
        with self._lock:
            hold = self._held.pop(number, None)
            if hold is None:
                return
            if self._ended is not None:
                self._ended.append(hold.call)
            for lease in hold.leases:
                self._give_back(lease)
            for (key, window, amount), meter in zip(hold.spends, hold.meters, strict=True):
                budget = self._budgets.get(key)
                if budget is not None and budget.window == window:
                    budget.reserved -= amount
                    if sent:
                        budget.spent += _told(spent, meter, amount)

    def _give_back(self, key: Key) -> None:
        left = self._leases.get(key, 0) - 1
        if left > 0:
            self._leases[key] = left
        else:
            self._leases.pop(key, None)

    # What a restart needs; used by `control.stores.limits_replay`.

    def begin_export(self) -> None:
        """Calls that end from now until `export` are named there. One export at a time."""
        with self._lock:
            self._ended = []

    def export(self) -> "Exported":
        """Everything that must survive, at one instant. Takes no time that grows with the number of calls served."""
        with self._lock:
            now_us = self._monotonic_us()
            # Buckets that have filled up again are forgotten: they are as if never used.
            self._tats = {key: tat for key, tat in self._tats.items() if tat > now_us}
            ended, self._ended = self._ended or [], None
            return Exported(
                wall_us=int(self._wall_seconds() * 1_000_000),
                ahead_us={key: tat - now_us for key, tat in self._tats.items()},
                budgets={key: replace(budget) for key, budget in self._budgets.items()},
                held=tuple((hold.call, tuple(hold.spends)) for hold in self._held.values() if hold.spends),
                ended=tuple(ended),
            )

    def load(self, budgets: Iterable[tuple[str, Budget]], tats_wall_us: Iterable[tuple[Key, int]]) -> None:
        """Starts from what a snapshot and the ledger say. Only before the first reserve."""
        with self._lock:
            if self._held or self._budgets or self._tats:
                raise RuntimeError("counters are loaded once, before the first call")
            now_us, wall_us = self._monotonic_us(), int(self._wall_seconds() * 1_000_000)
            self._budgets = {key: replace(budget) for key, budget in budgets}
            self._tats = {key: now_us + tat - wall_us for key, tat in tats_wall_us if tat > wall_us}


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


def money(micros: int, currency: str) -> str:
    """`1.50 USD`, `0.002 USD`: exact, with at least two decimals."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{f'{rest:06d}'.rstrip('0').ljust(2, '0')} {currency}"


def _told(spent: object, meter: str, most: int) -> int:
    """What was spent by a meter; the most that it can be where nobody says, or what is said is impossible."""
    amount = spent.get(meter) if isinstance(spent, Mapping) else None
    return amount if type(amount) is int and amount >= 0 else most


def _seconds(microseconds: int) -> int:
    return max(1, -(-microseconds // 1_000_000))


def _undo(undo: list[Callable[[], None]]) -> None:
    for step in reversed(undo):
        step()


def _put_back(tats: dict[Key, int], key: Key, before: int | None) -> None:
    if before is None:
        tats.pop(key, None)
    else:
        tats[key] = before
