"""`price`: what calls cost by their connections' prices. Due once a call was sent."""

from typing import TYPE_CHECKING

from rules.claims import PRICE
from rules.meters.meter import LATER, Fed, Measured, Meter
from rules.meters.tokens import fed_by_usage, uses

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection


def _feeds(name: str, connection: "Connection") -> Fed | None:
    if connection.book is not None:
        return fed_by_usage(connection)
    return Fed() if connection.price_micros else None


def _measure(name: str, demand: "Demand") -> Measured:
    connection = demand.connection
    if connection.book is None:
        return Measured(connection.price_micros, connection.currency)
    return Measured(LATER if uses(demand, "What the call costs") else 0, connection.book.currency)


METER = Meter(
    name=PRICE,
    meaning="The prices of the connections called.",
    means=lambda name: name == PRICE,
    counts="money",
    feeds=_feeds,
    measure=_measure,
)
