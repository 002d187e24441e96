"""Keeps a run's credential alive: asks for the next one at half of the lifetime of this one.

A run renews with nothing but its present credential, so revoking that ends the run: the refusal is final, the old
credential stays in place, and the agent reads the refusal from the door.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from control.operations import Refused, TokenIssued, Unavailable

FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0
"""Short beside any lifetime of minutes, long beside a restart."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Renewal is over, and why; the run goes on with a credential that dies."""

    reason: str


async def keep_renewed(
    first: TokenIssued,
    renew: Callable[[TokenIssued], Awaitable[TokenIssued]],
    replace: Callable[[TokenIssued], None],
    say: Callable[[str], None],
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Ended:
    """Returns once renewal is refused for good; runs until then. `replace` has been called with every new credential.

    An operators' API that does not answer is tried again, with growing pauses and jitter (so that many runs do not come
    back at once after a restart), also beyond the credential's end: the issuer decides whether it is too late.
    """
    held = first
    while True:
        half_life = held.issued_at + (held.expires_at - held.issued_at) / 2
        await sleep(max(0.0, half_life - now()))
        pause = FIRST_RETRY_SECONDS
        told = False
        while True:
            try:
                held = await renew(held)
            except Refused as refused:
                return Ended(str(refused))
            except Unavailable as unavailable:
                if not told:
                    told = True
                    say(f"the credential cannot be renewed now ({unavailable}); trying again")
                await sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)
                continue
            replace(held)
            if told:
                say("the credential is renewed again")
            break
