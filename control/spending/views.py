"""What was spent, as operators ask and see it."""

from dataclasses import dataclass
from typing import Final, Protocol

TOLD_APART: Final = ("day", "account", "workflow", "run", "tool")
"""What rows can be told apart by, as it is kept."""
OUTCOME: Final = "outcome"
"""Told apart by it, too: what became of a call's run."""
REACHED: Final = "reached"
"""The run has achieved what its workflow is for, at least once since the first day that is asked for."""
NOTHING: Final = "nothing"
"""It has not."""


@dataclass(frozen=True, slots=True)
class SpendWanted:
    """Whose spending, since when, and what rows are to be told apart by."""

    tenant: str | None = None
    """None: all."""
    account: str | None = None
    workflow: str | None = None
    run: str | None = None
    tool: str | None = None
    since: str | None = None
    """The first day, `2026-11-19`, or so many days back by the tenants' clocks, `30d`; None: `7d`."""
    by: tuple[str, ...] = ("account", "workflow")
    """Of `TOLD_APART`, and `OUTCOME`."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What something came to by one meter, in micro-units."""

    meter: str
    unit: str
    """A currency, or what is counted."""
    micros: int
    failed: int
    """Of it, on calls that no service answered with 2xx or 3xx."""
    retried: int
    """Of it, on attempts beyond a call's first."""
    per_outcome: int | None
    """None: nothing was achieved, or nobody said what counts."""


@dataclass(frozen=True, slots=True)
class SpendRow:
    """Calls that are the same by what was asked for."""

    tenant: str
    day: str
    account: str
    workflow: str
    run: str
    tool: str
    """Of these five those are empty that rows are not told apart by. A run is also empty where it is long ago."""
    calls: int
    denied: int
    failed: int
    retries: int
    runs: int
    outcomes: int | None
    """None: no workflow in it says what counts as one, and nobody declared one."""
    first: str
    last: str
    amounts: tuple[Amount, ...]
    outcome: str = ""
    """`REACHED` or `NOTHING`; empty where rows are not told apart by it, nobody says what counts, or it is long ago."""


@dataclass(frozen=True, slots=True)
class Seen:
    """When an account last called, let out or not."""

    tenant: str
    account: str
    last_seen: str | None
    """None: never."""
    call: str
    tool: str


@dataclass(frozen=True, slots=True)
class SpendShown:
    """What was spent, and what is left."""

    since: str
    rows: tuple[SpendRow, ...]
    accounts: tuple[Seen, ...]
    """Of every account of the policy."""


@dataclass(frozen=True, slots=True)
class OutcomeDeclared:
    """An operator has said that a run achieved something."""

    tenant: str
    account: str
    workflow: str
    run: str
    count: int
    seq: int
    """Of the record."""


class SpendOperations(Protocol):
    """Every method raises `Refused`, `WrongUse` or `Unavailable` of `control.operations`."""

    def show(self, wanted: SpendWanted) -> SpendShown:
        """What was spent by the calls that are recorded by now."""
        ...

    def declare(self, tenant: str | None, run: str, workflow: str | None, count: int, note: str) -> OutcomeDeclared:
        """It is on record that a run achieved something so many times. `Refused` for a run that is not known."""
        ...
