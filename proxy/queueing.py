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
    full: LeaseClaim,
    seconds: float,
    may_wait: Callable[[], bool],
) -> Reserved | Refused:
    """The answer to the claims, after a wait for slots that `full` was the first of.

    `seconds`: for one question to the store. `may_wait`: False ends the wait with a refusal, and so does what it
    raises. Raises `ReservationsUnavailable`; cancelled, the call waits nowhere.
    """
    reservations, metrics = books.reservations, books.metrics
    longest = 0 if full.queue is None else full.queue.seconds
    ticket = Ticket(live.principal.account)
    began = time.monotonic()
    live.turn.give_back()
    metrics.queued += 1
    try:
        while True:
            live.enter_phase("reserve", seconds)
            answer = await reservations.reserve_or_wait(live.id, claims, ticket)
            if not isinstance(answer, Waiting):
                return answer
            left = began + longest - time.monotonic()
            if left <= 0 or not may_wait():
                return _in_vain(answer.claim, longest)
            live.enter_phase("queue", longest + seconds)
            await reservations.turn(ticket, min(left, ASK_SECONDS))
    finally:
        reservations.leave(ticket)
        metrics.queued -= 1
        metrics.waits.observe(int((time.monotonic() - began) * 1e9))


def _in_vain(claim: LeaseClaim, longest: float) -> Refused:
    detail = f"{claim.max} calls are in flight, the most allowed, and none ended for this one within {longest:.0f} s"
    return Refused(claim, Code.CONCURRENCY_REACHED, detail, 1)
