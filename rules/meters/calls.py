"""`calls`: what is asked for. One a request; each field of GraphQL and each message of a batch by itself."""

from typing import TYPE_CHECKING, Final

from rules.codes import Code
from rules.meters.meter import ONE, Fed, Measured, Meter, Untold

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

CALLS: Final = "calls"


def _feeds(name: str, connection: "Connection") -> Fed | None:
    known = connection.known
    several = known is not None and (known.protocol == "mcp" or bool(known.graphql))
    return Fed(told=not several)


def _measure(name: str, demand: "Demand") -> Measured:
    if not demand.several:
        return Measured(ONE)
    if not demand.actions or any(action.tool is None for action in demand.actions):
        raise Untold(Code.CONDITION_FAILED, "How much the call asks for cannot be told, and a limit counts it.")
    return Measured(ONE * len(demand.actions))


METER = Meter(
    name=CALLS,
    meaning="What is asked for: one a request, or each field of GraphQL and each message of a batch.",
    means=lambda name: name == CALLS,
    counts="number",
    feeds=_feeds,
    measure=_measure,
)
