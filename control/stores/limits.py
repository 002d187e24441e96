"""Counters, leases and budgets of one process, in memory: the embedded `Reservations`.

Invariants, each tested against a model:

1. A reserve takes all its claims or changes nothing.
2. In every budget window: settled spending plus reservations in flight never exceed the cap because of a reserve.
3. Releasing and settling are idempotent and never raise; a reservation ends once.
4. A budget's window never goes back: with the clock set back, an older window counts against the newest seen.
5. What cannot be understood is not granted: `ReservationsUnavailable`, and the caller denies.
6. Of several attempts under one idempotency key, one is in flight at a time, and one is charged.

Rates run on the monotonic clock; the wall clock only told the caller which window it is. What survives a restart, and
how, is in `control.stores.limits_replay`.
"""

from asyncio import timeout
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import replace
from itertools import count
from threading import Lock
from time import monotonic_ns, time
from typing import Final

from control.stores.counted import Budget, BudgetUse, Exported, Holder, Key
from control.stores.hold import Hold
from control.stores.idempotency import IdempotencyKeys
from control.stores.queues import Queues
from control.stores.verdicts import (
    cap_reached,
    check,
    concurrency_reached,
    paused,
    queue_full,
    rate_limited,
    told,
)
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
    Ticket,
    Waiting,
)
from rules.identity import ByIdentity
from rules.limits.gcra import Exceeds, gcra

REAP_AFTER_SECONDS: Final = 60
"""A call that is in no list of live calls this long after its reserve has been lost by its owner."""
WORKER: Final = "w0"
"""The one process there is."""


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
        self._checked: ByIdentity[tuple[Claim, ...], bool] = ByIdentity()
        """Claims that mean something, with whether an idempotency key is among them."""
        self._tats: dict[Key, int] = {}
        self._leases: dict[Key, int] = {}
        self._pauses: dict[Key, int] = {}
        self._onces = IdempotencyKeys()
        self._queues = Queues()
        self._budgets: dict[str, Budget] = {}
        self._held: dict[str, Hold] = {}
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
        answer = self._reserve(call, claims, None)
        return concurrency_reached(answer.claim) if isinstance(answer, Waiting) else answer

    async def reserve_or_wait(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket
    ) -> Reserved | Refused | Waiting:
        """As `reserve`; but where nothing is missing than slots that may be waited for, the call waits."""
        ticket.woken.clear()
        return self._reserve(call, claims, ticket)

    async def turn(self, ticket: Ticket, seconds: float) -> None:
        """A slot that it waits for has come free, or so many seconds are over."""
        with suppress(TimeoutError):
            async with timeout(seconds):
                await ticket.woken.wait()

    def leave(self, ticket: Ticket) -> None:
        """The call waits no longer, and whoever is next is told."""
        with self._lock:
            if (key := self._queues.leave(ticket)) is not None:
                self._queues.wake(key, self._leases.get(key, 0))

    def _reserve(self, call: str, claims: tuple[Claim, ...], ticket: Ticket | None) -> Reserved | Refused | Waiting:
        repeatable = self._checked.get(claims)
        if repeatable is None:
            try:
                check(claims)
            except ValueError as error:
                raise ReservationsUnavailable(str(error)) from error
            repeatable = self._checked.put(claims, any(type(claim) is OnceClaim for claim in claims))
        with self._lock:
            now_us = self._monotonic_us()
            hold = Hold(call, now_us)
            paid = repeatable and self._is_paid(claims, now_us)
            missing: LeaseClaim | None = None
            stands = None if ticket is None else ticket.at
            taken: list[Claim] | None = None  # None: as asked
            for at, claim in enumerate(claims):
                result = self._take(claim, now_us, hold, paid, ticket)
                if result is claim:
                    continue
                if isinstance(result, Refused):
                    self._undo(hold)
                    return result
                if isinstance(result, Waiting):
                    # Where it stands it stays, as long as it is not its turn there.
                    if missing is None or (stands is not None and result.claim.key == stands.key):
                        missing = result.claim
                else:
                    taken = list(claims) if taken is None else taken
                    taken[at] = result
            if missing is not None:
                self._undo(hold)
                return self._wait(missing, ticket)
            if ticket is not None:
                self._queues.leave(ticket, let_in=True)
            reserved = Reserved(f"{call}#{next(self._numbers)}", claims if taken is None else tuple(taken))
            self._held[reserved.id] = hold
            return reserved

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back: the call was never sent. Rate tokens stay spent."""
        self._end(reserved.id, None, sent=False)

    def settle(self, reserved: Reserved, spent: Mapping[str, int], *, refused: bool = False) -> None:
        """Leases are given back and each budget holds what its meter really counted; else its maximum."""
        self._end(reserved.id, spent, refused=refused)

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

    async def holders(self, tenant: str) -> tuple[Holder, ...]:
        """The calls of a tenant that hold a concurrency slot, the oldest first."""
        return self.holders_now(tenant)

    def holders_now(self, tenant: str) -> tuple[Holder, ...]:
        """As `holders`, for callers without a loop."""
        with self._lock:
            now_us, wall = self._monotonic_us(), self._wall_seconds()
            found = [hold for hold in self._held.values() if any(key[0] == tenant for key in hold.leases)]
            return tuple(
                Holder(
                    hold.call,
                    WORKER,
                    wall - (now_us - hold.taken_us) / 1e6,
                    tuple("/".join(key) for key in hold.leases),
                )
                for hold in found
            )

    def _wait(self, claim: LeaseClaim, ticket: Ticket | None) -> Waiting | Refused:
        if ticket is None:
            return Waiting(claim)
        left = ticket.at
        joined = self._queues.join(claim, ticket)
        if left is None or left.key != claim.key:
            # Its place where it joins may be before others', with a slot that is free already.
            for changed in (claim,) if left is None else (claim, left):
                self._queues.wake(changed.key, self._leases.get(changed.key, 0))
        ticket.ahead = self._queues.ahead(claim, ticket)
        return Waiting(claim) if joined else queue_full(claim)

    def waiting(self, tenant: str) -> dict[str, int]:
        """How many calls wait for each slot of a tenant, by its name."""
        with self._lock:
            return {"/".join(key): count for key, count in self._queues.waiting(tenant)}

    def _take(
        self, claim: Claim, now_us: int, hold: Hold, paid: bool, ticket: Ticket | None
    ) -> Claim | Refused | Waiting:
        if isinstance(claim, RateClaim):
            return self._take_rate(claim, now_us, hold)
        if isinstance(claim, LeaseClaim):
            return self._take_lease(claim, hold, ticket)
        if isinstance(claim, SpendClaim):
            return replace(claim, amount_micros=0) if paid else self._take_spend(claim, hold)
        if isinstance(claim, PauseClaim):
            until_us = self._pauses.get(claim.key, 0)
            return paused(claim, until_us - now_us) if until_us > now_us else claim
        return self._take_once(claim, now_us, hold)

    def _take_rate(self, claim: RateClaim, now_us: int, hold: Hold) -> Claim | Refused:
        before = self._tats.get(claim.key)
        # A bucket is at most empty: a stricter rate before, or a clock set back across a restart, must not lock it.
        tat_us = 0 if before is None else min(before, now_us + claim.burst * claim.interval_us)
        if before is not None:
            before = self._tats[claim.key] = tat_us
        verdict = gcra(tat_us, now_us, claim.interval_us, claim.burst)
        if isinstance(verdict, Exceeds):
            return rate_limited(claim, verdict.retry_after_us)
        self._tats[claim.key] = verdict.tat_us
        hold.tats.append((claim.key, before))
        return claim

    def _take_lease(self, claim: LeaseClaim, hold: Hold, ticket: Ticket | None) -> Claim | Refused | Waiting:
        taken = self._leases.get(claim.key, 0)
        if claim.queue is None:
            if taken >= claim.max:
                return concurrency_reached(claim)
        elif taken + self._queues.ahead(claim, ticket) >= claim.max:
            return Waiting(claim)
        self._leases[claim.key] = taken + 1
        hold.leases.append(claim.key)
        return claim

    def _take_spend(self, claim: SpendClaim, hold: Hold) -> Claim | Refused:
        key = "/".join(claim.key)
        budget = self._budgets.get(key)
        rolled = budget is None or claim.window > budget.window
        current = Budget(claim.window) if budget is None or rolled else budget
        if claim.window == current.window:
            current.resets_at = claim.resets_at
            if not claim.resets_at:
                current.used_at = int(self._wall_seconds())
        used = current.spent + current.reserved
        if used + claim.amount_micros > claim.max_micros:
            return cap_reached(claim, current.window, current.resets_at, used, self._wall_seconds())
        if rolled:
            # What older windows still have in flight is settled into nothing: their day is over and was within its cap.
            self._budgets[key] = current
            hold.rolled.append((key, budget))
        current.reserved += claim.amount_micros
        hold.spends.append((key, current.window, claim.amount_micros))
        hold.meters.append(claim.meter)
        return claim if claim.window == current.window else replace(claim, window=current.window)

    def _undo(self, hold: Hold) -> None:
        """Nothing of it is taken: a claim beside it was refused. The last thing that was taken of a kind goes first."""
        for bucket, tat in reversed(hold.tats):
            _put_back(self._tats, bucket, tat)
        for lease in hold.leases:
            self._give_back(lease)
        for name, _, amount in hold.spends:
            self._budgets[name].reserved -= amount
        for name, budget in reversed(hold.rolled):
            _put_back(self._budgets, name, budget)
        for once_key, once in reversed(hold.onces):
            self._onces.put_back(once_key, once)

    def _is_paid(self, claims: tuple[Claim, ...], now_us: int) -> bool:
        """Whether this is an attempt of a call that is charged already."""
        return self._onces.paid([claim.key for claim in claims if type(claim) is OnceClaim], now_us)

    def _take_once(self, claim: OnceClaim, now_us: int, hold: Hold) -> Claim | Refused:
        before = self._onces.take(claim, now_us)
        if isinstance(before, Refused):
            return before
        hold.onces.append((claim.key, before))
        return claim

    def _end(self, number: str, spent: object, *, sent: bool = True, refused: bool = False) -> None:
        """Ends a reservation."""
        with self._lock:
            hold = self._held.pop(number, None)
            if hold is None:
                return
            if self._ended is not None:
                self._ended.append(hold.call)
            for lease in hold.leases:
                self._give_back(lease)
                self._queues.wake(lease, self._leases.get(lease, 0))
            whole = not refused
            for (key, window, amount), meter in zip(hold.spends, hold.meters, strict=True):
                due = told(spent, meter, amount) if sent else 0
                whole = whole and due >= amount
                budget = self._budgets.get(key)
                if budget is not None and budget.window == window:
                    budget.reserved -= amount
                    budget.spent += due
            for once_key, before in hold.onces:
                if sent:
                    self._onces.ended(once_key, whole=whole)
                else:
                    self._onces.put_back(once_key, before)

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

    def export(self) -> Exported:
        """Everything that must survive, at one instant. Takes no time that grows with the number of calls served."""
        with self._lock:
            now_us = self._monotonic_us()
            # Buckets that have filled up again are forgotten: they are as if never used.
            self._tats = {key: tat for key, tat in self._tats.items() if tat > now_us}
            now = self._wall_seconds()
            self._budgets = {key: budget for key, budget in self._budgets.items() if not budget.is_over(now)}
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

    def use_up(self, key: Key, tat_wall_us: int) -> None:
        """A bucket of which nobody knows what was taken has been used up to this time at the least."""
        with self._lock:
            tat_us = self._monotonic_us() + tat_wall_us - int(self._wall_seconds() * 1_000_000)
            self._tats[key] = max(self._tats.get(key, 0), tat_us)


def _put_back[K, V](kept: dict[K, V], key: K, before: V | None) -> None:
    if before is None:
        kept.pop(key, None)
    else:
        kept[key] = before
