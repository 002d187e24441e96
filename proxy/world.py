"""What the gate reads of the installation: snapshots that control replaces whole, never edits."""

from typing import Protocol

from credentials.identifier import Identifier
from credentials.revocation import Revocations
from credentials.secret import Secret
from rules.policy.compile import PolicySet


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
    def identifier(self) -> Identifier:
        """Verifies credentials."""
        ...

    def secret(self, tenant: str, name: str) -> tuple[Secret, int] | None:
        """A secret and its version; None if it is not set. A dictionary look-up."""
        ...

    def commitment_key(self, tenant: str) -> bytes:
        """The key of the tenant's commitments in the ledger."""
        ...
