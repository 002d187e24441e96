"""Waiting for a slot, where the policy lets calls wait.

A call that waits holds nothing: no slot, no token, no amount, no turn at the processor. It asks for all of its claims
anew when it is its turn. Whatever ends it meanwhile (a stop order, its agent, a deadline) takes it out of the queue.
"""

import time
from collections.abc import Callable
from typing import Final

from proxy.attempt import Books
from proxy.live import LiveCall
from rules.claims import Claim, LeaseClaim, Refused, Reserved, Ticket, Waiting
from rules.codes import Code

ASK_SECONDS: Final = 0.5
"""A call that waits asks at least so often: whether it may still wait is looked at then."""


async def wait_for_slot(
    books: Books,
    live: LiveCall,
    claims: tuple[Claim, ...],
    seconds: float,
    may_wait: Callable[[], bool],
) -> Reserved | Refused:
    """The answer to the claims, after a wait for slots: for those of each limit as long as that one lets calls wait.

    `seconds`: for one question to the store. `may_wait`: False ends the wait with a refusal, and so does what it
    raises. Raises `ReservationsUnavailable`; cancelled, the call waits nowhere.
    """
    reservations, metrics = books.reservations, books.metrics
    ticket = Ticket(live.principal.account)
    began = time.monotonic()
    since: dict[tuple[str, ...], float] = {}
    live.turn.give_back()
    metrics.queued += 1
    try:
        while True:
            live.enter_phase("reserve", seconds)
            answer = await reservations.reserve_or_wait(live.id, claims, ticket)
            if not isinstance(answer, Waiting):
                return answer
            now, longest = time.monotonic(), _longest(answer.claim)
            left = since.setdefault(answer.claim.key, now) + longest - now
            if left <= 0 or not may_wait():
                return _in_vain(answer.claim, longest)
            live.enter_phase("queue", longest + seconds)
            await reservations.turn(ticket, min(left, ASK_SECONDS))
    finally:
        reservations.leave(ticket)
        metrics.queued -= 1
        metrics.waits.observe(int((time.monotonic() - began) * 1e9))


def _longest(claim: LeaseClaim) -> int:
    return 0 if claim.queue is None else claim.queue.seconds


def _in_vain(claim: LeaseClaim, longest: float) -> Refused:
    detail = f"{claim.max} calls are in flight, the most allowed, and none ended for this one within {longest:.0f} s"
    return Refused(claim, Code.CONCURRENCY_REACHED, detail, 1)
