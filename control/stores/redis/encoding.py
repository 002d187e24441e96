"""Claims as a script's arguments, and its answers as verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, assert_never

from control.stores.counted import Key
from control.stores.queues import FIRST
from control.stores.verdicts import (
    another_call,
    cap_reached,
    concurrency_reached,
    in_flight,
    paused,
    queue_full,
    rate_limited,
)
from rules.claims import Claim, LeaseClaim, OnceClaim, PauseClaim, RateClaim, Refused, SpendClaim, Ticket, Waiting

KEPT_AT_ONCE: Final = 200
"""Reservations a script: the server does nothing else while one runs."""


@lru_cache(maxsize=4096)
def root_of(tenant: str) -> bytes:
    """The key under which everything of a tenant lies, in one slot. Raises ValueError."""
    if not tenant or "{" in tenant or "}" in tenant:
        raise ValueError(f"{tenant!r} cannot be a tenant's name here")
    return b"exeat:{" + tenant.encode() + b"}"


@lru_cache(maxsize=65_536)
def name_of(key: Key) -> str:
    """A claim's key as one text; no two keys have the same."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in key)


def arguments_of(claims: tuple[Claim, ...], ticket: Ticket | None = None) -> list[str | bytes | int]:
    """What `reserve.lua` is told of these claims; without a ticket the call does not wait for any of them."""
    asked: list[str | bytes | int] = []
    for claim in claims:
        match claim:
            case RateClaim():
                asked += (b"R", name_of(claim.key), claim.interval_us, claim.burst)
            case LeaseClaim(queue=None):
                asked += (b"L", name_of(claim.key), claim.max)
            case LeaseClaim(queue=queue):
                rank, member = ("", "") if ticket is None else ticket.seats.get(claim.key, ("", _member(ticket)))
                asked += (b"W", name_of(claim.key), claim.max, 0 if queue is None else queue.max)
                asked += ("" if ticket is None else ticket.account, member, rank)
            case SpendClaim():
                asked += (b"S", "/".join(claim.key), claim.window, claim.max_micros)
                asked += (claim.amount_micros, claim.resets_at, claim.meter)
            case PauseClaim():
                asked += (b"P", name_of(claim.key))
            case OnceClaim():
                asked += (b"O", name_of(claim.key), claim.digest)
    return asked


def refusal(claims: tuple[Claim, ...], reply: list[Any]) -> Refused:
    """What `reserve.lua` said no to."""
    claim, more = claims[reply[1]], reply[2:]
    match claim:
        case RateClaim():
            return rate_limited(claim, int(more[0]))
        case LeaseClaim():
            return queue_full(claim) if more else concurrency_reached(claim)
        case SpendClaim():
            window, ends, spent, reserved, now = more
            return cap_reached(claim, window.decode(), int(ends), int(spent) + int(reserved), float(now))
        case PauseClaim():
            return paused(claim, int(more[0]))
        case OnceClaim():
            return another_call(claim) if more[0] == b"conflict" else in_flight(claim)
        case _ as never:
            assert_never(never)


def seated(claims: tuple[Claim, ...], reply: list[Any], ticket: Ticket) -> Waiting:
    """The call waits for what `reserve.lua` said; its ticket knows where."""
    claim = claims[reply[1]]
    if not isinstance(claim, LeaseClaim):
        raise TypeError("only slots are waited for")
    left, ticket.at = ticket.at, claim
    if left is not None and left.key != claim.key:
        ticket.seats[left.key] = FIRST, ticket.seats[left.key][1]  # it was its turn there
    ticket.seats[claim.key] = int(reply[3]), reply[2].decode()
    ticket.ahead = int(reply[4])
    return Waiting(claim)


def as_charged(claims: tuple[Claim, ...], reply: list[Any]) -> tuple[Claim, ...]:
    """The claims with the windows and amounts that were really charged."""
    if reply[1] == b"1":
        return tuple(replace(c, amount_micros=0) if isinstance(c, SpendClaim) else c for c in claims)
    windows = [window.decode() for window in reply[2:]]
    if windows == [claim.window for claim in claims if isinstance(claim, SpendClaim)]:
        return claims
    each = iter(windows)
    return tuple(replace(c, window=next(each)) if isinstance(c, SpendClaim) else c for c in claims)


def slots_of(name: str, claims: tuple[Claim, ...]) -> tuple[str, ...]:
    """Key and member of each slot that `reserve.lua` has taken."""
    return tuple(
        part
        for position, claim in enumerate(claims)
        if isinstance(claim, LeaseClaim)
        for part in (name_of(claim.key), f"{name}/{position}")
    )


def places_of(name: str, claims: tuple[Claim, ...], ticket: Ticket) -> list[str]:
    """Key and member for each place in a queue that a call may have, whose last answer was lost."""
    member = _member(ticket) or f"/{name}"
    waits = (claim for claim in claims if isinstance(claim, LeaseClaim) and claim.queue is not None)
    return [part for claim in waits for part in (name_of(claim.key), member)]


def _member(ticket: Ticket) -> str:
    """The same in every queue; empty for a call that has not waited yet."""
    return next((str(member) for _, member in ticket.seats.values()), "")


def kept_of(names: Iterable[str], held: Mapping[str, tuple[bytes, tuple[str, ...]]]) -> list[str | int]:
    """What `keep.lua` is told of those reservations that are held: each with its slots."""
    told: list[str | int] = []
    for name in names:
        if (found := held.get(name)) is not None:
            told += (name, len(found[1]) // 2, *found[1])
    return told
