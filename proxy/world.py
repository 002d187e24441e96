"""What the gate reads of the installation: snapshots that control replaces whole, never edits."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from credentials.identifier import Identifier
from credentials.revocation import Revocations
from credentials.secret import Secret
from credentials.suspension import Suspensions
from rules.policy.compile import PolicySet

type Clock = Callable[[], datetime]
"""The wall clock that calls are judged by: aware UTC."""


def wall_clock() -> datetime:
    """The time, as this machine has it."""
    return datetime.now(UTC)


class World(Protocol):
    """Read on every call, from the proxy's thread; each attribute is swapped atomically by another one."""

    @property
    def policy(self) -> PolicySet | None:
        """The active policy; None before the first was applied: everything is denied."""
        ...

    @property
    def policy_epoch(self) -> int:
        """Sequence number of the record that activated it; 0 before the first."""
        ...

    @property
    def revocations(self) -> Revocations:
        """Every revocation in force."""
        ...

    @property
    def suspensions(self) -> Suspensions:
        """Every account whose calls are refused for now."""
        ...

    @property
    def identifier(self) -> Identifier:
        """Verifies credentials."""
        ...

    @property
    def heard_until(self) -> float:
        """`time.monotonic` up to which what is read here may be acted upon; infinite where it cannot be out of date.

        A worker that has not heard from control for a while would not have heard of a revocation either: it serves
        nobody from then on, and cuts what it has in flight.
        """
        ...

    def secret(self, tenant: str, name: str) -> tuple[Secret, int] | None:
        """A secret and its version; None if it is not set. A dictionary look-up."""
        ...

    def commitment_key(self, tenant: str) -> bytes:
        """The key of the tenant's commitments in the ledger."""
        ...
