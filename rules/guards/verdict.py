"""What one guard says about a call."""

from collections.abc import Callable
from dataclasses import dataclass

from rules.bodies import HELD, Handling
from rules.call import Call, Facts
from rules.claims import Claim
from rules.decision import Reason
from rules.swift import swift


@swift
@dataclass(frozen=True, slots=True)
class Permits:
    """The call is allowed, if no other guard denies it."""

    rules: tuple[str, ...]
    """Ids of the rules that allow it, the deciding one first; never empty."""
    route: str
    """Path template of the deciding rule."""
    claims: tuple[Claim, ...]
    body: Handling = HELD
    """As the deciding rule says."""


@dataclass(frozen=True, slots=True)
class Denies:
    """The call is denied, whatever another guard says."""

    reasons: tuple[Reason, ...]
    """Never empty, the most telling first."""


type Verdict = Permits | Denies | None
"""None: this guard has no objection, and permits nothing either."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One check. Pure and independent of the others: what it needs and does not find is not its objection to make."""

    name: str
    check: Callable[[Call, Facts], Verdict]
    by_rules: bool = False
    """Whether it speaks for the account's rules, which stage `observe` only tries."""
