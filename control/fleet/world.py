"""A worker's `World`: the newest snapshot, for as long as control is heard."""

import math
import time
from typing import Final

from control.fleet.snapshot import Snapshot
from credentials.identifier import Identifier
from credentials.revocation import Revocations
from credentials.secret import Secret
from credentials.suspension import Suspensions
from rules.policy.compile import PolicySet

LEASE_SECONDS: Final = 3.0
"""How long after control's last word a worker goes on: the most by which a revocation can be late where a worker is
cut off from control. Control speaks four times a second."""


class WorkerWorld:
    """Implements `proxy.world.World`. Written by the channel's thread, read by the gate's; swapped whole."""

    def __init__(self, snapshot: Snapshot, identifier: Identifier) -> None:
        self._now = snapshot
        self.identifier = identifier
        self.heard_until = -math.inf
        """Nothing is served before control has been heard."""

    def show(self, snapshot: Snapshot) -> None:
        """This is in force from now on."""
        self._now = snapshot

    def heard(self, at: float) -> None:
        """Control was heard at `at` (`time.monotonic`): the lease runs anew."""
        self.heard_until = at + LEASE_SECONDS

    @property
    def hears(self) -> bool:
        """Whether control has been heard lately enough."""
        return time.monotonic() <= self.heard_until

    @property
    def policy(self) -> PolicySet | None:
        """The active policy."""
        return self._now.policy

    @property
    def policy_epoch(self) -> int:
        """Sequence number of the record that activated it."""
        return self._now.policy_epoch

    @property
    def revocations(self) -> Revocations:
        """Every order that control has told."""
        return self._now.revocations

    @property
    def suspensions(self) -> Suspensions:
        """Every account whose calls are refused for now."""
        return self._now.suspensions

    def secret(self, tenant: str, name: str) -> tuple[Secret, int] | None:
        """The secret and its version; None when it is not set."""
        return self._now.secrets.get((tenant, name))

    def commitment_key(self, tenant: str) -> bytes:
        """The tenant's key; control makes one for every tenant that a policy names. Raises `LookupError`."""
        return self._now.commitment_keys[tenant]
