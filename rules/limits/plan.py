"""What a policy says of limits becomes the plan that an account's calls are asked by."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rules.claims import PRICE, Queue
from rules.limits.claims import standing_claims
from rules.limits.gcra import interval_us
from rules.limits.keys import WHOLE_TENANT, meter_part
from rules.limits.limit import ANY, BY, Budget, Level, Limits, Metered, Over, Plan, Rate, Slots, Spend, Spike, Where
from rules.limits.windows import RUN
from rules.meters import meter_named
from rules.meters.meter import ONE
from rules.policy.limit_models import (
    LimitsDocument,
    Most,
    QueueDocument,
    RateDocument,
    SpendDocument,
    SpikeDocument,
    TenantLimitsDocument,
    bytes_of,
)
from rules.policy.values import Money

if TYPE_CHECKING:
    from rules.policy.compile import Connection

PERIODS_US: Final = MappingProxyType(
    {"second": 1_000_000, "minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
)


def limits_of(document: LimitsDocument | None) -> Limits:
    """The limits that a document says."""
    if document is None:
        return Limits()
    return Limits(
        slots=tuple(
            Slots(_where(slots.connection, slots.tools, slots.by), slots.max, _queue(slots.queue))
            for slots in document.concurrency or ()
        ),
        rates=tuple(map(_rate, document.rate)),
        spends=tuple(map(_spend, document.spend)),
        spikes=tuple(map(_spike, document.spikes or ())),
    )


def share_of(document: TenantLimitsDocument | None) -> int | None:
    """Per cent of every limit that is granted while the shared counters cannot be asked; None: nothing is."""
    when = None if document is None else document.when_unavailable
    return None if when is None else when.local


def plan_of(tenant: str, account: str, own: Limits, whole: Limits, connections: Mapping[str, "Connection"]) -> Plan:
    """What the calls of an account are asked by."""
    levels = (Level(tenant, account, own), Level(tenant, WHOLE_TENANT, whole))
    buckets: list[tuple[str, Rate | Slots]] = [(level.scope, rate) for level in levels for rate in level.limits.rates]
    buckets += [(level.scope, slots) for level in levels for slots in level.limits.slots]
    standing = [(scope, limit) for scope, limit in buckets if limit.where.standing]
    # A limit on all connections that is counted by each has another claim on each of them.
    each = any("connection" in limit.where.by for _, limit in standing)
    named = {limit.where.connection for _, limit in standing} - {ANY}
    return Plan(
        tenant=tenant,
        account=account,
        standing=MappingProxyType(
            {
                on: tuple(
                    claim
                    for scope, limit in standing
                    for claim in standing_claims(tenant, scope, account, (limit,), on)
                )
                for on in (ANY, *(sorted(connections) if each else sorted(named)))
            }
        ),
        varying=tuple((scope, limit) for scope, limit in buckets if not limit.where.standing),
        metered=MappingProxyType(_metered(levels, connections)),
    )


def _where(connection: str | None, tools: Iterable[str] | None, by: Iterable[str] | None) -> Where:
    return Where(connection or ANY, None if tools is None else tuple(tools), tuple(by or ()))


def _queue(document: QueueDocument | None) -> Queue | None:
    return None if document is None else Queue(document.max, document.wait)


def _rate(document: RateDocument) -> Rate:
    return Rate(
        where=_where(document.connection, document.tools, document.by),
        max=document.max,
        per=document.per,
        interval_us=interval_us(document.max, PERIODS_US[document.per]),
        burst=document.max if document.burst is None else document.burst,
    )


def _spend(document: SpendDocument) -> Spend:
    over = document.over
    currency, micros = _amount(document.max)
    return Spend(
        meter=document.meter,
        currency=currency,
        max_micros=micros,
        per=document.per,
        by=tuple(document.by or ()),
        alert=tuple(document.alert or ()),
        over=None if over is None else Over(over.approve, over.hard),
    )


def _spike(document: SpikeDocument) -> Spike:
    currency, micros = _amount(document.least)
    return Spike(
        meter=document.meter,
        currency=currency,
        per=document.per,
        over_percent=document.over,
        least_micros=micros,
        by_account=document.by is not None,
        stop=document.then == "stop",
    )


def _amount(most: Most) -> tuple[str | None, int]:
    """Currency and micro-units of what a policy writes; no currency where it is no money."""
    if isinstance(most, Money):
        return most.currency, most.micros
    size = bytes_of(most)
    return None, (int(most) if size is None else size) * ONE


def budget_of(level: Level, spend: Spend) -> Budget:
    """A spend limit of a level, with what of its key is the same for every call."""
    by = tuple(name for name in BY if name in spend.by or (name == RUN and spend.per == RUN))
    return Budget(spend, (level.tenant, level.scope, _counted(spend), spend.per), by)


def _counted(spend: Spend) -> str:
    """What a budget counts: for prices the currency alone, as it always was."""
    if spend.meter == PRICE and spend.currency is not None:
        return spend.currency
    return meter_part(spend.meter, spend.currency)


def _metered(levels: tuple[Level, ...], connections: Mapping[str, "Connection"]) -> dict[str, tuple[Metered, ...]]:
    names = list(dict.fromkeys(spend.meter for level in levels for spend in level.limits.spends))
    found = {}
    for connection_name, connection in connections.items():
        of_connection = tuple(one for name in names if (one := _one(name, levels, connection)) is not None)
        if of_connection:
            found[connection_name] = of_connection
    return found


def _one(name: str, levels: tuple[Level, ...], connection: "Connection") -> Metered | None:
    meter = meter_named(name)
    fed = meter.feeds(name, connection)
    if fed is None:
        return None
    counting = tuple(
        budgets
        for level in levels
        if (budgets := tuple(budget_of(level, spend) for spend in level.limits.spends if spend.meter == name))
    )
    by_tool = any("tool" in budget.by for budgets in counting for budget in budgets)
    return Metered(meter, name, counting, fed.tools, fed.told and not by_tool)
