"""The answer: `Decision = Allowed | Denied`.

The code that attaches a secret takes an `Allowed`, so a path that forwards a denial does not type-check.
"""

from dataclasses import dataclass

from rules.bodies import HELD, Handling
from rules.claims import Claim
from rules.codes import Code
from rules.swift import swift


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a call is refused."""

    code: Code
    detail: str
    """One sentence that is safe for an agent to read: no secret, no other tenant's name, no internal address."""
    rule: str | None = None
    """Id of the policy's rule, where one decided."""


@swift
@dataclass(frozen=True, slots=True)
class Allowed:
    """The call may be sent once its claims are taken and its intent is durable."""

    rules: tuple[str, ...]
    """Ids of the allowing rules that matched, the deciding one first; never empty."""
    route: str
    """Path template of the deciding rule; what the ledger shows in place of the path."""
    claims: tuple[Claim, ...]
    policy: str
    """Digest of the policy that decided."""
    body: Handling = HELD
    """The obligation that comes with it: how the body is treated on its way."""
    observed: tuple[Reason, ...] = ()
    """Why the rules would have denied it, in stage `observe`."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The call is refused; nothing has been consumed."""

    reasons: tuple[Reason, ...]
    """Never empty; the first is the one the agent is told."""
    policy: str | None
    """Digest of the policy that decided; None when none was active."""


type Decision = Allowed | Denied
