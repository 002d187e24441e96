"""Suspended accounts, as operators end that."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Resumed:
    """Calls are let out again."""

    seq: int
    warnings: tuple[str, ...]
    """Where they are not yet."""


class SuspensionOperations(Protocol):
    """Every method raises `Refused`, `WrongUse` or `Unavailable` of `control.operations`."""

    def resume(self, tenant: str, account: str | None, reason: str) -> Resumed:
        """Calls of the account, or of the tenant as a whole when None, are let out again; recorded."""
        ...
