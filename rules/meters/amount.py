"""`TOOL.amount`: how much money a tool's calls move, as the request says or its lookup. Due unless it was refused."""

from typing import TYPE_CHECKING, Final

from rules.codes import Code
from rules.conditions.unknown import Unknown
from rules.meters.meter import MOST, Fed, Measured, Meter, Untold

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

SUFFIX: Final = ".amount"


def _tool(name: str) -> str:
    return name.removesuffix(SUFFIX)


def _feeds(name: str, connection: "Connection") -> Fed | None:
    tool = None if connection.known is None else connection.known.tools.get(_tool(name))
    return None if tool is None or tool.amount_text is None else Fed(frozenset({tool.name}), told=False)


def _measure(name: str, demand: "Demand") -> Measured:
    if not demand.actions:
        raise _untold(name)
    total, currency = 0, None
    for action in demand.actions:
        if action.tool is None:
            raise _untold(name)
        if action.tool != _tool(name):
            continue
        try:
            money = action.money(demand.found)
        except Unknown:
            raise _untold(name) from None
        if currency not in (None, money.currency):
            raise Untold(
                Code.CONDITION_FAILED, f"The amounts that a limit on {name} counts are in several currencies at once."
            )
        total, currency = total + money.micros, money.currency
    return Measured(min(total, MOST), currency)


def _untold(name: str) -> Untold:
    return Untold(Code.AMOUNT_UNKNOWN, f"The amount that a limit on {name} counts cannot be determined.")


METER = Meter(
    name=f"TOOL{SUFFIX}",
    meaning="How much money the tool's calls move.",
    means=lambda name: name.endswith(SUFFIX),
    counts="money",
    feeds=_feeds,
    measure=_measure,
    by_effect=True,
)
