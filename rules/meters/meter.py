"""What limits can count, and how a call is measured by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rules.codes import Code
from rules.swift import swift

if TYPE_CHECKING:
    from rules.limits.demand import Demand
    from rules.policy.compile import Connection

ONE: Final = 1_000_000
"""Micro-units of one thing that is counted."""
MOST: Final = 2**53 - 1
"""The largest amount: every store and every reader of JSON has it exactly. No limit is as large."""
LATER: Final = -1
"""An amount that only the request as it leaves tells. Whoever takes claims has to say it; no store takes this one."""

type Counts = Literal["money", "bytes", "number"]


class Untold(Exception):
    """How much a call uses cannot be told: it is denied, and never counted as nothing."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        """Safe for an agent to read."""


@swift
@dataclass(frozen=True, slots=True)
class Measured:
    """How much one call uses at the most."""

    micros: int
    """Or `LATER`."""
    currency: str | None = None
    """Of money."""


@dataclass(frozen=True, slots=True)
class Fed:
    """How calls on a connection feed a meter."""

    tools: frozenset[str] = frozenset()
    """Tools whose arguments say how much it is."""
    told: bool = True
    """Whether it can be told of every call, whatever it asks for. Else the body is read for those tools, and of calls
    of which it is not known which tool they are."""


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that limits can count. Measuring is pure."""

    name: str
    """`price`; `TOOL.amount` and `UNIT` where a policy says which."""
    meaning: str
    means: Callable[[str], bool]
    """Whether a limit's `meter:` is this one."""
    counts: Counts
    feeds: "Callable[[str, Connection], Fed | None]"
    """How calls on a connection feed the meter of that name; None: they do not."""
    measure: "Callable[[str, Demand], Measured]"
    """How much a call uses of the meter of that name. Raises `Untold`."""
    by_effect: bool = False
    """Whether nothing of it is due where the service refused the call (4xx)."""
