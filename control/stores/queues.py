"""Who waits for a slot, in the order in which they are let in: the queues of one process.

Accounts that wait for the same slots take turns, by the start times of fair queueing (Demers, Keshav and Shenker 1989)
with every call of the same size: a call's rank is one beyond the last of its account, or beyond the last that was let
in, whichever is more. So an account that waits with one call is let in after at most one more of each other account,
however many of theirs wait. A call that leaves before its turn was none: those of its account behind it move up, each
to the rank of the one before.

A call that needs several slots stands in one queue at a time. Where it was its turn, and it went to wait for another
slot, it is among the first from then on, whether it comes back or only needs that slot too when its turn has come
elsewhere: else two queues could send each other's first calls to and fro for ever. Of several such the one that waited
first goes before the others, and so in each queue; so one of them is always let in. `reserve.lua` counts the same way.

A rank is all that a call has: whoever asks with fewer calls ahead than there are slots free may
have one. Nobody is handed anything, so a call that is cut while it is let in leaves nothing behind.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from control.stores.counted import Key
from rules.claims import LeaseClaim, Ticket

type _Seat = tuple[int, int]
"""(rank, number): the order of letting in; the number is that of arriving."""


FIRST: Final = 0
"""Rank of a call whose turn it was already; those of others begin behind it."""


@dataclass(slots=True)
class _Queue:
    slots: int
    """Of the limit, when somebody last asked."""
    let_in: int = 0
    """Rank of the last that was let in."""
    seats: list[_Seat] = field(default_factory=list)
    """Sorted."""
    tickets: dict[_Seat, Ticket] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    """Highest rank of each account."""


class Queues:
    """Not safe from several threads: its store has a lock."""

    def __init__(self) -> None:
        self._queues: dict[Key, _Queue] = {}
        self._arrived = 0

    def __len__(self) -> int:
        return sum(len(queue.seats) for queue in self._queues.values())

    def waiting(self, tenant: str) -> Iterator[tuple[Key, int]]:
        """Keys of slots, each with how many calls wait for one."""
        return ((key, len(queue.seats)) for key, queue in self._queues.items() if key[0] == tenant)

    def ahead(self, claim: LeaseClaim, ticket: Ticket | None) -> int:
        """How many would be let in before this call; everybody, of one that never stood there."""
        queue = self._queues.get(claim.key)
        if queue is None:
            return 0
        queue.slots = claim.max
        seat = _seat(claim, ticket)
        return len(queue.seats) if seat is None else bisect_left(queue.seats, seat)

    def join(self, claim: LeaseClaim, ticket: Ticket) -> bool:
        """The call waits for this slot and no other. False: the queue is full, and it waits nowhere."""
        queue = self._queues.get(claim.key)
        known = _seat(claim, ticket)
        if ticket.at is not None and (ticket.at.key != claim.key or queue is None):
            self._move(ticket)
            queue = self._queues.get(claim.key)
        if queue is None:
            queue = self._queues[claim.key] = _Queue(claim.max)
        if known is not None and known in queue.tickets:
            return True
        most = 0 if claim.queue is None else claim.queue.max
        if len(queue.seats) >= most:
            self._drop_if_empty(claim.key, queue)
            return False
        seat = known or self._next(queue, ticket)
        insort(queue.seats, seat)
        queue.tickets[seat] = ticket
        ticket.seats[claim.key] = seat
        ticket.at = claim
        return True

    def leave(self, ticket: Ticket, *, let_in: bool = False) -> Key | None:
        """It waits nowhere. What it waited for, if it did."""
        claim, ticket.at = ticket.at, None
        queue = None if claim is None else self._queues.get(claim.key)
        if claim is None or queue is None:
            return None
        seat = _seat(claim, ticket)
        if seat is None or queue.tickets.pop(seat, None) is None:
            return None
        at = bisect_left(queue.seats, seat)
        del queue.seats[at]
        if let_in:
            queue.let_in = max(queue.let_in, seat[0])
        elif seat[0] > FIRST:
            self._close_up(queue, claim.key, ticket.account, at, seat[0])
        self._drop_if_empty(claim.key, queue)
        return claim.key

    def wake(self, key: Key, taken: int) -> None:
        """Those who may have a slot now are told."""
        queue = self._queues.get(key)
        if queue is not None:
            for seat in queue.seats[: max(0, queue.slots - taken)]:
                ticket = queue.tickets[seat]
                ticket.loop.call_soon_threadsafe(ticket.woken.set)

    def _move(self, ticket: Ticket) -> None:
        """It was its turn there."""
        key = self.leave(ticket, let_in=True)
        if key is not None:
            ticket.seats[key] = FIRST, ticket.seats[key][1]

    def _close_up(self, queue: _Queue, key: Key, account: str, at: int, rank: int) -> None:
        """Those of the account that come after take, each, the rank of the one before."""
        moved = False
        for index in range(at, len(queue.seats)):
            seat = queue.seats[index]
            ticket = queue.tickets[seat]
            if ticket.account == account:
                del queue.tickets[seat]
                queue.seats[index] = ticket.seats[key] = rank, seat[1]
                queue.tickets[rank, seat[1]] = ticket
                rank, moved = seat[0], True
        if moved:
            queue.seats.sort()
        queue.last[account] = rank - 1

    def _next(self, queue: _Queue, ticket: Ticket) -> _Seat:
        account = ticket.account
        rank = queue.last[account] = max(queue.let_in, queue.last.get(account, 0)) + 1
        for _, number in ticket.seats.values():
            if isinstance(number, int):
                return rank, number
        self._arrived += 1
        return rank, self._arrived

    def _drop_if_empty(self, key: Key, queue: _Queue) -> None:
        if not queue.seats:
            del self._queues[key]


def _seat(claim: LeaseClaim, ticket: Ticket | None) -> _Seat | None:
    found = None if ticket is None else ticket.seats.get(claim.key)
    if found is None or isinstance(found[1], str):
        return None
    return found[0], found[1]
