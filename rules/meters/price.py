"""`price`: what calls cost by their connections' prices. Due once a call was sent."""

from typing import TYPE_CHECKING

from rules.claims import PRICE
from rules.meters.meter import Fed, Measured, Meter

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection


def _feeds(name: str, connection: "Connection") -> Fed | None:
    return Fed() if connection.price_micros else None


def _measure(name: str, demand: "Demand") -> Measured:
    return Measured(demand.connection.price_micros, demand.connection.currency)


METER = Meter(
    name=PRICE,
    meaning="The prices of the connections called.",
    means=lambda name: name == PRICE,
    counts="money",
    feeds=_feeds,
    measure=_measure,
)
