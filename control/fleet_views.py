"""The processes that serve agents, as operators see and replace them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WorkerShown:
    """One worker that is there."""

    worker: str
    """Its name in records."""
    slot: int
    pid: int
    serves: bool
    """It takes agents."""
    follows: bool
    """All that is in force here is in force there."""


@dataclass(frozen=True, slots=True)
class FleetShown:
    """The workers of an installation."""

    wanted: int
    """0: one process does it all."""
    workers: tuple[WorkerShown, ...]
    replacing: bool = False
    """They are being replaced, one after the other."""
    control: int = 0
    """The process that answers operators."""


class FleetOperations(Protocol):
    """Every method raises `Refused` or `Unavailable` of `control.operations`."""

    def show(self) -> FleetShown:
        """Who is there now."""
        ...

    def replace(self, *, everything: bool = False) -> FleetShown:
        """The workers are being replaced, one after the other, each by a new one that serves before the old one goes;
        with `everything`, the sequencer and then control before them.

        Returns at once, with those that were there. Recorded as the operator's act.
        """
        ...
