"""What operators are shown of the policies that were active."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyActivation:
    """One time that a policy became the active one."""

    number: int
    """`exeat policy rollback --to` takes it."""
    digest: str
    previous: str | None
    at: str
    by: str
    """The operator's name, and how it is known."""
    seq: int
    """Of the record that proves it; 0 where it is not known."""
    active: bool
    """Whether calls are judged by it now."""
    commit: str | None
    """Declared, as the next three."""
    author: str | None
    approver: str | None
    reason: str | None
