"""`UNIT`: what a request has of it, as the catalogue says: recipients, messages, rows. Due unless it was refused."""

from typing import TYPE_CHECKING, Final

from rules.catalogue.tool import Tool
from rules.codes import Code
from rules.conditions.unknown import Unknown
from rules.meters.meter import MOST, ONE, Fed, Measured, Meter, Untold

if TYPE_CHECKING:
    from rules.action import Action
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

RECIPIENTS: Final = "recipients"
"""Whom what is sent goes to: a unit of every tool that says so."""


def units_of(tool: Tool) -> frozenset[str]:
    """What can be counted of a tool's calls."""
    return frozenset(name for name, _ in tool.units_text) | (
        {RECIPIENTS} if tool.recipients_text is not None else frozenset()
    )


def _feeds(name: str, connection: "Connection") -> Fed | None:
    tools = () if connection.known is None else connection.known.tools.values()
    having = frozenset(tool.name for tool in tools if name in units_of(tool))
    return Fed(having, told=False) if having else None


def _measure(name: str, demand: "Demand") -> Measured:
    try:
        if not demand.actions:
            raise Unknown
        total = sum(_of(name, action, demand) for action in demand.actions)
    except Unknown:
        detail = f"How many {name} the call has cannot be told, and a limit counts them."
        raise Untold(Code.CONDITION_FAILED, detail) from None
    return Measured(min(total * ONE, MOST))


def _of(name: str, action: "Action", demand: "Demand") -> int:
    tool = action.known
    if tool is not None:
        return action.count(name, demand.found) if name in units_of(tool) else 0
    # What no file describes may send as many as it likes, unless it only reads.
    if action.tool is None or (action.effect != "read" and not action.handshake):
        raise Unknown
    return 0


METER = Meter(
    name="UNIT",
    meaning="What the catalogue counts of a request under this name: `recipients`, `messages`, `rows`.",
    means=lambda name: True,
    counts="number",
    feeds=_feeds,
    measure=_measure,
    by_effect=True,
)
