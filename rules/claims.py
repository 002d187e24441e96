"""What an allowed call asks of limits, and the port that grants it.

A claim is data: `decide` computes it without a clock or a store. All claims of a call are taken together in one atomic
`reserve`, or none is, and ended together. Stores: `control.stores.limits` (embedded), others behind the same port; one
conformance suite says what all of them do.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from rules.codes import Code
from rules.swift import swift

PRICE: Final = "price"
"""The meter of what calls cost by their connections' prices."""


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
class Queue:
    """Who may wait for a slot, and for how long."""

    max: int
    """Calls that wait at once."""
    seconds: int


@dataclass(frozen=True, slots=True)
class LeaseClaim:
    """One slot of a concurrency cap, held until settled; a holder that is lost loses it after a while."""

    key: tuple[str, ...]
    max: int
    queue: Queue | None = None
    """None: a call that finds no slot is refused."""


@swift
@dataclass(frozen=True, slots=True)
class SpendClaim:
    """An amount set aside in a budget window before the call, settled to the truth after it."""

    key: tuple[str, ...]
    """Starts with the tenant; names scope, unit and period."""
    window: str
    """Which window of the period: a local date `2026-03-29` for `day`. Orders as text the way time does."""
    max_micros: int
    amount_micros: int
    """The most this call can use."""
    unit: str
    """A currency of ISO 4217, or what is counted: `tokens`."""
    resets_at: int
    """Unix seconds at which the window ends in the policy's time zone; 0 for one that does not end by the clock."""
    meter: str = PRICE
    """What is counted; settling names it."""


@dataclass(frozen=True, slots=True)
class PauseClaim:
    """Nothing is taken: refused while a service has told this key to wait (`Reservations.pause`)."""

    key: tuple[str, ...]
    """Starts with the tenant; names the connection."""


@dataclass(frozen=True, slots=True)
class OnceClaim:
    """A call that its service knows by an idempotency key: attempts of it with the same digest are one call.

    While an attempt is in flight another one is refused, and so is another request under the same key. An attempt after
    one that was settled at its whole amounts takes its spend claims at zero: they are charged already. Released, the
    key is as if never seen. Forgotten a day after its last attempt.
    """

    key: tuple[str, ...]
    """Starts with the tenant; names account, connection and the idempotency key's digest."""
    digest: str
    """Of what is asked."""


type Claim = RateClaim | LeaseClaim | SpendClaim | PauseClaim | OnceClaim


@swift
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


class Ticket:
    """One call in the queues of slots. Made by the caller, on its loop; what is in it is the store's."""

    __slots__ = ("account", "ahead", "at", "loop", "seats", "woken")

    def __init__(self, account: str) -> None:
        self.account = account
        """Accounts that wait for the same slots take turns."""
        self.loop = asyncio.get_running_loop()
        self.woken = asyncio.Event()
        self.at: LeaseClaim | None = None
        """What it waits for now."""
        self.ahead = 0
        """How many would be let in before it, when it last asked."""
        self.seats: dict[tuple[str, ...], tuple[int, int | str]] = {}
        """What it was given in each queue that it stood in: going back there it is not behind who came after it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing of the call is taken; it waits in the queue of a slot."""

    claim: LeaseClaim


class Reservations(Protocol):
    """The store of counters, leases and budgets.

    `reserve` raises `ReservationsUnavailable` when it cannot tell; the caller denies.
    """

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        """All claims are taken, or none. Nobody who waits for a slot is overtaken."""
        ...

    async def reserve_or_wait(
        self, call: str, claims: tuple[Claim, ...], ticket: Ticket
    ) -> Reserved | Refused | Waiting:
        """As `reserve`; but where nothing is missing than slots that may be waited for, the call waits.

        Whoever waits asks again after `turn`, until it has an answer or gives up by `leave`.
        """
        ...

    async def turn(self, ticket: Ticket, seconds: float) -> None:
        """It is worth to ask again; after so many seconds in any case."""
        ...

    def leave(self, ticket: Ticket) -> None:
        """The call waits no longer, and whoever is next is told. Never raises, idempotent."""
        ...

    def release(self, reserved: Reserved) -> None:
        """Leases and amounts are given back; the call was never sent. Rate tokens stay spent.

        Never raises, idempotent.
        """
        ...

    def settle(self, reserved: Reserved, spent: Mapping[str, int], *, refused: bool = False) -> None:
        """Leases are given back and each amount is corrected to what `spent` says of its meter, in micro-units.

        A meter that it does not name, or with an impossible amount, counts at its maximum. `refused`: the service did
        not do what was asked, so the next attempt under its idempotency key is charged anew. Never raises, idempotent.
        """
        ...

    def pause(self, key: tuple[str, ...], seconds: float) -> None:
        """A service said 429: claims of this key are refused for so long, by every worker. Never raises.

        The longest pause that was asked for counts.
        """
        ...


class ReservationsUnavailable(Exception):
    """The store could not be asked or did not answer in time; the caller must deny."""
