"""What operators ask of the decision inputs that are kept, and what they are shown of them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class InputsWanted:
    """Which: those for which everything holds that is given. Times are microseconds since 1970."""

    call: str | None = None
    tenant: str | None = None
    account: str | None = None
    since: int | None = None
    before: int | None = None


@dataclass(frozen=True, slots=True)
class InputsRead:
    """One kept call."""

    call: str
    at: int
    tenant: str
    account: str
    policy: str | None
    """Digest of the one that decided."""
    code: str | None
    """Of the refusal by rules; None: they allowed it."""
    rule: str | None
    inputs: str | None
    """docs/formats/decision-inputs.md; None: erased, or it does not open."""
    erased: bool


@dataclass(frozen=True, slots=True)
class InputsPage:
    """Some of them, in the order of time, and the place to go on at; None: no more."""

    calls: tuple[InputsRead, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class InputsShown:
    """One call, and whether the ledger commits to what is shown of it."""

    call: InputsRead
    proof: int | None
    """Seq of the record; None: the ledger has none of this call."""
    fits: bool | None
    """None: there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class InputsErased:
    """Something is erased, and on record."""

    erased: int
    seq: int
    """0 where nothing was to be erased, and nothing is on record."""


class InputOperations(Protocol):
    """What an operator can do with kept decision inputs. Raises what `Operations` raises."""

    def page(self, wanted: InputsWanted, place: str) -> InputsPage:
        """The next of them, at a place that the page before gave; the first is empty."""
        ...

    def show(self, call: str) -> InputsShown:
        """One call's. `Refused` where none are kept."""
        ...

    def erase(self, wanted: InputsWanted, reason: str) -> InputsErased:
        """They are gone; who did it, and why, was on record before."""
        ...
