"""What one call has taken of the embedded store."""

from control.stores.counted import Budget, Key
from control.stores.idempotency import Known


class Hold:
    """What one call has taken, in the order in which it was taken."""

    __slots__ = ("call", "leases", "meters", "onces", "rolled", "spends", "taken_us", "tats")

    def __init__(self, call: str, taken_us: int) -> None:
        self.call = call
        self.taken_us = taken_us
        self.tats: list[tuple[Key, int | None]] = []
        """Buckets, each with what was in it before."""
        self.leases: list[Key] = []
        self.spends: list[tuple[str, str, int]] = []
        """(budget, window, amount)."""
        self.meters: list[str] = []
        """Of each of `spends`."""
        self.rolled: list[tuple[str, Budget | None]] = []
        """Budgets whose window this call has begun, each with the one before."""
        self.onces: list[tuple[Key, Known | None]] = []
        """Idempotency keys, each with what was known of it before."""
