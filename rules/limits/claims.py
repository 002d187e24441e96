"""The claims of an allowed call: what it asks of its account's limits, and of its tenant's.

Those that are the same for every call of an account on a connection are made when the policy is compiled; the others
from a list that is as long as the limits that are about such calls. Keys start with the tenant and the account, or `*`
for the whole tenant, and are unique over the kinds of claims.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim
from rules.codes import Code
from rules.limits.demand import Demand
from rules.limits.keys import by_part, digest_of
from rules.limits.limit import ANY, Budget, Metered, Plan, Rate, Slots, Where
from rules.limits.windows import window_of
from rules.meters.meter import Measured, Untold
from rules.policy.matcher import wider

if TYPE_CHECKING:
    from rules.action import Action

_NO_ACTION: Final = (None,)
MAX_SPENDS: Final = 64
"""Budgets that a record names; a call that asks for more tools than they can be counted for is denied."""


def claims_of(plan: Plan, demand: Demand) -> tuple[Claim, ...]:
    """Everything that one call must be granted before it may leave. Raises `Untold`.

    Rates and slots that are the same for every such call come first, then the others, then amounts; of each the
    account's before the tenant's, as the policy writes them: so that the refusal of several is the same one everywhere.
    """
    standing = plan.standing.get(demand.connection.name)
    if standing is None:
        standing = plan.standing[ANY]
    if plan.varying:
        return (*standing, *_varying(plan, demand), *spend_claims(plan, demand))
    if not plan.metered:
        return standing
    return plan.asked(demand.connection.name, (*standing, *spend_claims(plan, demand)))


def bucket_claims(plan: Plan, demand: Demand) -> tuple[Claim, ...]:
    """Of these, all but the amounts: what can be told of a call of long ago by its record."""
    standing = plan.standing.get(demand.connection.name)
    return (*(plan.standing[ANY] if standing is None else standing), *_varying(plan, demand))


def spend_claims(plan: Plan, demand: Demand) -> tuple[SpendClaim, ...]:
    """The amounts that the call asks for. Raises `Untold`."""
    claims: list[SpendClaim] = []
    for metered in plan.on(demand.connection.name):
        _add_of_meter(claims, metered, demand)
    if len(claims) > MAX_SPENDS:
        raise Untold(Code.CONDITION_FAILED, "The call asks for more tools at once than limits can count one by one.")
    return tuple(claims)


def standing_claims(tenant: str, scope: str, account: str, limits: tuple[Rate | Slots, ...], on: str) -> list[Claim]:
    """The claims that are the same for every call of an account on a connection."""
    return [
        _claim(tenant, scope, limit, _standing_by(limit.where, account, on))
        for limit in limits
        if limit.where.standing and limit.where.connection in (on, ANY)
    ]


def _standing_by(where: Where, account: str, connection: str) -> dict[str, str]:
    known = {"account": account, "connection": connection}
    return {name: known[name] for name in where.by}


def _varying(plan: Plan, demand: Demand) -> Iterator[Claim]:
    for scope, limit in plan.varying:
        where = limit.where
        if where.connection not in (ANY, demand.connection.name):
            continue
        if not where.of_action:
            yield _claim(plan.tenant, scope, limit, demand.values(where.by))
            continue
        actions = [action for action in demand.actions or _NO_ACTION if _about(where, action)]
        # A slot is one for the whole request; a rate counts each thing that it asks for.
        of_all = [demand.values(where.by, action) for action in actions]
        if isinstance(limit, Slots) or not demand.several:
            of_all = [dict(values) for values in dict.fromkeys(tuple(values.items()) for values in of_all)]
        for values in of_all:
            yield _claim(plan.tenant, scope, limit, values)


def _about(where: Where, action: "Action | None") -> bool:
    """Whether a limit is about an action; about one that is not known, too."""
    if where.tools is None or action is None or action.tool is None:
        return True
    return not action.handshake and not {action.tool, *wider(action.tool)}.isdisjoint(where.tools)


def _claim(tenant: str, scope: str, limit: Rate | Slots, by: dict[str, str]) -> Claim:
    if isinstance(limit, Rate):
        key = (tenant, scope, "rate", _about_key(limit.where), limit.per, *_parts(by))
        return RateClaim(key, limit.interval_us, limit.burst, f"{limit.max} per {limit.per}")
    return LeaseClaim((*slot_key(tenant, scope, limit), *_parts(by)), limit.max, limit.queue)


def slot_key(tenant: str, scope: str, limit: Slots) -> tuple[str, ...]:
    """The key of a concurrency limit, but for what it is counted by."""
    where = limit.where
    return (tenant, scope, "concurrency", *(() if where == Where() else (_about_key(where),)))


def _about_key(where: Where) -> str:
    if where.tools is None:
        return where.connection
    listed = ",".join(sorted(where.tools))
    return f"{where.connection}:{listed if len(listed) <= 64 else digest_of(listed)}"


def _parts(by: dict[str, str]) -> tuple[str, ...]:
    return (by_part(by),) if by else ()


def _add_of_meter(claims: list[SpendClaim], metered: Metered, demand: Demand) -> None:
    measured = metered.meter.measure(metered.name, demand)
    if measured.micros == 0:
        return
    for budgets in metered.levels:
        counted = False
        for budget in budgets:
            if budget.spend.currency == measured.currency:
                counted = True
                _add_of_budget(claims, budget, measured.micros, demand)
        if not counted:
            raise _uncounted(metered, budgets, measured)


def _uncounted(metered: Metered, budgets: tuple[Budget, ...], measured: Measured) -> Untold:
    counted = " and ".join(sorted({budget.spend.unit for budget in budgets}))
    detail = f"The limits on {metered.name} count {counted}, and this call is about {measured.currency or 'none'}."
    return Untold(Code.CONDITION_FAILED, f"{detail} Nothing is converted.")


def _add_of_budget(claims: list[SpendClaim], budget: Budget, micros: int, demand: Demand) -> None:
    spend = budget.spend
    window = window_of(spend.per, demand.now, demand.zone)
    if not budget.by:
        claims.append(budget.claim(window.id, window.resets_at, micros))
        return
    claims += [
        SpendClaim(key, window.id, spend.max_micros, micros, spend.unit, window.resets_at, spend.meter)
        for key in _keys(budget, demand)
    ]


def _keys(budget: Budget, demand: Demand) -> Iterable[tuple[str, ...]]:
    by = budget.by
    if "tool" not in by:
        return ((*budget.key, by_part(demand.values(by))),)
    # A request for several tools counts as a whole with each of them: which part of it is whose is not always told.
    return dict.fromkeys((*budget.key, by_part(demand.values(by, action))) for action in demand.actions or _NO_ACTION)


__all__ = ["bucket_claims", "claims_of", "slot_key", "spend_claims", "standing_claims"]
