"""`bytes_out`: what leaves, head and body, but for the secret. Only the request as it will be sent tells."""

from typing import TYPE_CHECKING, Final

from rules.meters.meter import LATER, Fed, Measured, Meter

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

BYTES_OUT: Final = "bytes_out"


def _feeds(name: str, connection: "Connection") -> Fed | None:
    return Fed()


def _measure(name: str, demand: "Demand") -> Measured:
    return Measured(LATER)


METER = Meter(
    name=BYTES_OUT,
    meaning="The bytes of the requests sent, head and body.",
    means=lambda name: name == BYTES_OUT,
    counts="bytes",
    feeds=_feeds,
    measure=_measure,
)
