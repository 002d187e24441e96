"""What is used of the limits, told from the policy in force and the store that decides."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from control.limit_views import BudgetShown, Counters, HolderShown, LimitsShown, SlotsShown
from control.operations import Refused, Unavailable
from control.status_views import LimitsUsed
from control.stores.counted import BudgetUse, Holder
from control.stores.limits import EmbeddedReservations
from rules.claims import ReservationsUnavailable
from rules.limits.claims import slot_key
from rules.limits.keys import WHOLE_TENANT
from rules.limits.limit import Budget, Level, Slots, Spend
from rules.limits.plan import budget_of
from rules.limits.windows import window_of

if TYPE_CHECKING:
    from control.node import Node
    from control.state import State
    from rules.policy.compile import TenantPolicy

MOST: Final = 1_000
"""Budgets of runs and the like: as many as people can read, and far below what the operators' socket answers."""


class OwnCounters:
    """`Counters` of the embedded store."""

    def __init__(self, reservations: EmbeddedReservations) -> None:
        self._reservations = reservations

    def budgets(self, tenant: str) -> tuple[BudgetUse, ...]:
        """See `Counters.budgets`."""
        return tuple(use for use in self._reservations.budgets() if use.key.startswith(f"{tenant}/"))

    def holders(self, tenant: str) -> tuple[Holder, ...]:
        """See `Counters.holders`."""
        return self._reservations.holders_now(tenant)

    def waiting(self, tenant: str, slots: Sequence[str]) -> Mapping[str, int]:
        """See `Counters.waiting`."""
        return self._reservations.waiting(tenant)


class LocalLimits:
    """`LimitOperations` on a state in this process."""

    def __init__(self, state: "State", node: "Node | None") -> None:
        self._state = state
        self._node = node

    def show(self, tenant: str | None) -> LimitsShown:
        """See `LimitOperations.show`."""
        policy = self._state.policy
        tenants = {} if policy is None else policy.tenants
        if tenant is not None and tenant not in tenants:
            raise Refused(f"there is no tenant {tenant}", f"Known: {', '.join(tenants) or 'none'}")
        asked = [of for of in tenants.values() if tenant in (None, of.tenant)]
        try:
            used = list(_used(self._state, self._node, asked))
        except ReservationsUnavailable as error:
            raise Unavailable(f"the limits cannot be asked now: {error}", "exeat status says what is wrong.") from error
        slots = tuple(one for one in used if isinstance(one, SlotsShown))
        budgets = [one[0] for one in used if not isinstance(one, SlotsShown)]
        counted = sorted((one for one in budgets if one.by), key=lambda one: one.left / one.max)
        return LimitsShown(
            (*(one for one in budgets if not one.by), *counted[:MOST]), slots, max(0, len(counted) - MOST)
        )


def limits_used(state: "State", node: "Node | None") -> LimitsUsed | None:
    """How much of all limits is used now; None when the store that decides does not answer."""
    tenants = () if state.policy is None else state.policy.tenants.values()
    near = full = taken = 0
    try:
        for one in _used(state, node, tenants):
            if isinstance(one, SlotsShown):
                taken += one.taken
                continue
            budget, spend = one
            if not budget.left:
                full += 1
            elif spend.alert and (budget.max - budget.left) * 100 >= budget.max * spend.alert[0]:
                near += 1
    except ReservationsUnavailable:
        return None
    return LimitsUsed(near, full, taken)


def _used(
    state: "State", node: "Node | None", tenants: "Iterable[TenantPolicy]"
) -> Iterator[SlotsShown | tuple[BudgetShown, Spend]]:
    """Every budget and slot that the policy in force has, as the store that decides has it.

    Raises `ReservationsUnavailable`.
    """
    shared = None if node is None else node.counters
    counters: Counters = OwnCounters(state.reservations) if shared is None else shared
    for of in tenants:
        used = {use.key: use for use in counters.budgets(of.tenant)}
        holders = counters.holders(of.tenant)
        # Whoever waits for a slot waits for somebody who holds one.
        taken = sorted({lease for holder in holders for lease in holder.leases})
        waiting = counters.waiting(of.tenant, taken) if taken and _has_queue(of) else {}
        for level in _levels(of):
            for slots in level.limits.slots:
                yield _slots(level, slots, holders, waiting)
            for spend in level.limits.spends:
                for shown in _budgets(of, level.scope, budget_of(level, spend), used):
                    yield shown, spend


def _levels(policy: "TenantPolicy") -> Iterator[Level]:
    yield Level(policy.tenant, WHOLE_TENANT, policy.limits)
    for name, account in policy.accounts.items():
        yield Level(policy.tenant, name, account.limits)


def _budgets(
    policy: "TenantPolicy", scope: str, budget: Budget, used: Mapping[str, BudgetUse]
) -> Iterator[BudgetShown]:
    spend = budget.spend
    window = window_of(spend.per, datetime.now(UTC), policy.timezone)
    key = "/".join(budget.key)
    found = {"": used.get(key)}
    if budget.by:
        found = {name[len(key) + 1 :]: use for name, use in used.items() if name.startswith(f"{key}/")}
    for by, use in found.items():
        # A clock that was set back opens no window again: the store's newest counts.
        now = use is not None and use.window >= window.id
        spent, aside = (use.spent_micros, use.reserved_micros) if use is not None and now else (0, 0)
        if budget.by and not now:
            continue
        left = max(0, spend.max_micros - spent - aside)
        yield BudgetShown(
            policy.tenant, scope, spend.meter, spend.unit, spend.per, by,
            window.id if use is None or not now else use.window, spend.max_micros, spent, aside, left, window.resets_at,
        )  # fmt: skip


def _has_queue(policy: "TenantPolicy") -> bool:
    return any(one.queue is not None for level in _levels(policy) for one in level.limits.slots)


def _slots(level: Level, limit: Slots, holders: tuple[Holder, ...], waiting: Mapping[str, int]) -> SlotsShown:
    key = "/".join(slot_key(level.tenant, level.scope, limit))
    now = time.time()
    holding = [
        HolderShown(holder.call, holder.worker, max(0.0, now - holder.since))
        for holder in holders
        for lease in holder.leases
        if _is_of(key, limit, lease)
    ]
    waits = sum(count for name, count in waiting.items() if limit.queue is not None and _is_of(key, limit, name))
    return SlotsShown(level.tenant, level.scope, limit.where.described, limit.max, len(holding), tuple(holding), waits)


def _is_of(key: str, limit: Slots, lease: str) -> bool:
    return lease == key or (bool(limit.where.by) and lease.startswith(f"{key}/"))
