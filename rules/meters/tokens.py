"""`tokens`: what models read and write for a call. A request says how many at most, and its reply how many it was.

How many at most depends on what calls before have used too (`rules.prices.estimate`), which is no part of a decision:
here it is told whether there are any.
"""

from typing import TYPE_CHECKING, Final

from rules.codes import Code
from rules.meters.meter import LATER, Fed, Measured, Meter, Untold

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

TOKENS: Final = "tokens"


def fed_by_usage(connection: "Connection") -> Fed | None:
    """The tools of a connection that use tokens; None where there are none."""
    tools = () if connection.known is None else connection.known.tools.values()
    using = frozenset(tool.name for tool in tools if tool.usage is not None)
    return Fed(using, told=False) if using else None


def uses(demand: "Demand", counted: str) -> bool:
    """Whether the call uses tokens of a model. Raises `Untold`: what no file describes, or nobody can tell the cost of,
    may use as many as it likes."""
    detail = f"{counted} cannot be told, and a limit counts it."
    if not demand.actions:
        raise Untold(Code.CONDITION_FAILED, detail)
    using = False
    for action in demand.actions:
        tool = action.known
        described = tool is not None and not tool.unpriced and (tool.usage is None or action.args is not None)
        reads = tool is None and action.tool is not None and (action.effect == "read" or action.handshake)
        if not described and not reads:
            raise Untold(Code.CONDITION_FAILED, detail)
        using = using or (tool is not None and tool.usage is not None)
    return using


def _feeds(name: str, connection: "Connection") -> Fed | None:
    return fed_by_usage(connection)


def _measure(name: str, demand: "Demand") -> Measured:
    return Measured(LATER if uses(demand, "How many tokens the call uses") else 0)


METER = Meter(
    name=TOKENS,
    meaning="The tokens that models read and write for the calls.",
    means=lambda name: name == TOKENS,
    counts="number",
    feeds=_feeds,
    measure=_measure,
)
