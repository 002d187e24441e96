"""What an allowed call asks of limits, and the port that grants it.

A claim is data: `decide` computes it without a clock or a store. All claims of a call are taken together in one atomic
`reserve`, or none is.
"""

from dataclasses import dataclass
from typing import Protocol

from rules.codes import Code


@dataclass(frozen=True, slots=True)
class RateClaim:
    """One token of a GCRA bucket (ITU-T I.371): at most `burst` at once, then one each `interval_us`."""

    key: tuple[str, ...]
    """Starts with the tenant."""
    interval_us: int
    burst: int
    limit: str
    """As written in the policy, for people: `10 per second`."""


@dataclass(frozen=True, slots=True)
class LeaseClaim:
    """One slot of a concurrency cap, held until settled."""

    key: tuple[str, ...]
    max: int


@dataclass(frozen=True, slots=True)
class SpendClaim:
    """An amount set aside in a budget window before the call, settled to the truth after it."""

    key: tuple[str, ...]
    """Starts with the tenant; names account, currency and period."""
    window: str
    """Which window of the period: a local date `2026-03-29` for `day`."""
    max_micros: int
    amount_micros: int
    """The most this call can cost."""
    currency: str
    resets_at: int
    """Unix seconds at which the window ends in the policy's time zone."""


type Claim = RateClaim | LeaseClaim | SpendClaim


@dataclass(frozen=True, slots=True)
class Reserved:
    """All claims are taken. Must be settled or released exactly once."""

    id: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """One claim could not be taken; none was."""

    claim: Claim
    code: Code
    detail: str
    retry_after_seconds: int | None


class Reservations(Protocol):
    """The store of counters, leases and budgets.

    `reserve` raises `ReservationsUnavailable` when it cannot tell; the caller denies.
    """

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """All claims are taken, or none."""
        ...

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back; the call was never sent. Rate tokens stay spent.

        Never raises, idempotent.
        """
        ...

    def settle(self, reserved: Reserved, spent_micros: int) -> None:
        """Leases are given back and the amount is corrected to what was spent. Never raises, idempotent."""
        ...


class ReservationsUnavailable(Exception):
    """The store could not be asked or did not answer in time; the caller must deny."""
