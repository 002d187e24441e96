"""(5) reserve: all claims of a call in one step, those included that only the request as it will leave can tell."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeGuard

from proxy.attempt import Books, Hold
from proxy.costs import cost_of
from proxy.http.emit import Head
from proxy.journey import CallRefused, Journey
from proxy.live import LiveCall
from proxy.queueing import wait_for_slot
from proxy.waiting import pause_of
from rules.call import Call
from rules.claims import (
    Claim,
    LeaseClaim,
    OnceClaim,
    RateClaim,
    Refused,
    ReservationsUnavailable,
    SpendClaim,
)
from rules.codes import Code
from rules.decision import Allowed, Reason
from rules.identity import ByIdentity
from rules.limits.limit import Over, Spend
from rules.meters.bytes_out import BYTES_OUT
from rules.meters.meter import LATER, MOST, ONE
from rules.policy.compile import Connection

_LIMIT: Final = re.compile(r"([0-9]+) per (second|minute|hour|day)")
_REPEATED: Final = frozenset({"POST", "PATCH"})
"""draft-ietf-httpapi-idempotency-key-header: the methods that a key makes repeatable. Others a service does anew."""
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


async def reserve(
    books: Books,
    journey: Journey,
    call: Call,
    live: LiveCall,
    allowed: Allowed,
    head: Head,
    seconds: float,
    may_wait: Callable[[], bool],
) -> bool:
    """All claims of the call are taken, and the journey has the hold and the cost. Raises `CallRefused`.

    True after a wait for a slot, as long as `may_wait`: then what the call was decided on may have changed.
    """
    connection = journey.connection
    if connection is None:
        raise CallRefused(Reason(Code.INTERNAL, "an allowed call has no connection"))
    claims = _completed(journey, call, connection, allowed, head)
    live.enter_phase("reserve", seconds)
    try:
        answer = await books.reservations.reserve(call.id, claims)
        full = answer.claim if isinstance(answer, Refused) else None
        if waits := isinstance(full, LeaseClaim) and full.queue is not None:
            answer = await wait_for_slot(books, live, claims, seconds, may_wait)
    except ReservationsUnavailable as error:
        raise CallRefused(Reason(Code.LIMITS_UNAVAILABLE, "the limits cannot be checked now")) from error
    if isinstance(answer, Refused):
        reason = Reason(answer.code, answer.detail + _approval(journey, call, answer.claim))
        raise CallRefused(reason, retry_after_seconds=answer.retry_after_seconds, fields=_fields(answer))
    journey.hold = Hold(books.reservations, answer)
    journey.cost = cost_of(answer.claims, connection, journey.used)
    return waits


def sent_bytes(journey: Journey, head: Head) -> int:
    """The bytes of the request that have left, but for the secret; of one that is still here, all of it."""
    upload = journey.upload
    return len(head.public) + (len(journey.body) if upload is None else upload.length)


_COMPLETE: Final[ByIdentity[tuple[Claim, ...], tuple[Connection, tuple[Claim, ...]]]] = ByIdentity()
"""What is asked for beside claims that are complete by themselves, on their connection."""


def _completed(journey: Journey, call: Call, connection: Connection, allowed: Allowed, head: Head) -> tuple[Claim, ...]:
    once = _once(journey, call, connection, allowed, head)
    found = _COMPLETE.get(allowed.claims)
    if once is None and found is not None and found[0] is connection:
        return found[1]
    before = (pause_of(connection),) if once is None else (pause_of(connection), once)
    claims = (*before, *(_whole(claim, journey, head) for claim in allowed.claims))
    if once is None and not any(_is_later(claim) for claim in allowed.claims):
        _COMPLETE.put(allowed.claims, (connection, claims))
    return claims


def _is_later(claim: Claim) -> TypeGuard[SpendClaim]:
    return isinstance(claim, SpendClaim) and claim.amount_micros == LATER


def _whole(claim: Claim, journey: Journey, head: Head) -> Claim:
    return replace(claim, amount_micros=_later(claim, journey, head)) if _is_later(claim) else claim


def _later(claim: SpendClaim, journey: Journey, head: Head) -> int:
    """An amount that only the request as it will leave can tell. Raises `CallRefused`."""
    if claim.meter == BYTES_OUT:
        return min(_at_most(journey, head) * ONE, MOST)
    most = None if journey.used is None else journey.used.most.get(claim.meter)
    if most is None:  # a defect: what is counted so is estimated where the body was read
        raise CallRefused(Reason(Code.GUARD_FAILED, "A check could not be completed."))
    return most


def _at_most(journey: Journey, head: Head) -> int:
    upload = journey.upload
    body = len(journey.body) if upload is None else upload.most
    return len(head.public) + body


def _once(journey: Journey, call: Call, connection: Connection, allowed: Allowed, head: Head) -> OnceClaim | None:
    """The call by its idempotency key, where its service is known to keep such keys and the body is here.

    An attempt after one that was paid costs nothing, so it has to be the same to the service: by what it is asked, and
    by the account there. Bytes leave with each attempt, in headers too: where they are counted, each is a call.

    Services forget keys after a day, and then do the call anew. So a key is one of its UTC date: none is ever taken for
    paid that was first used more than a day ago, however often it is used in between.
    """
    known = connection.known
    name = None if known is None else known.idempotency
    if known is None or name is None or call.method not in _REPEATED or journey.upload is not None:
        return None
    if journey.decided is None:
        raise RuntimeError("an allowed call was decided")
    if any(isinstance(claim, SpendClaim) and claim.meter == BYTES_OUT for claim in allowed.claims):
        return None
    field = name.lower().encode("ascii")
    found = [value for header, value in journey.exchange.head.headers if header == field]
    # Of two, nobody knows which one the service goes by: each attempt then is a call, and is charged.
    if len(found) != 1 or not found[0]:
        return None
    who = call.principal
    digest = hashlib.sha256()
    of_account = {header.lower().encode("ascii") for header in (known.account_header, *known.account_also) if header}
    parts = [call.method.encode(), f"{call.path}?{call.query}".encode(), journey.body]
    parts += [line for line in head.public.split(b"\r\n")[1:] if line.partition(b":")[0].lower() in of_account]
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    day = journey.decided.at.date().isoformat()
    key = (who.tenant, who.account, "once", connection.name, day, hashlib.sha256(found[0]).hexdigest())
    return OnceClaim(key, digest.hexdigest())


def _approval(journey: Journey, call: Call, claim: Claim) -> str:
    """What a call beyond a spend limit would need, where its limit says so."""
    over = _over(journey, call, claim) if isinstance(claim, SpendClaim) else None
    return "" if over is None else f"; more would need an approval by {over.approve}, and there are no approvals yet"


def _over(journey: Journey, call: Call, claim: SpendClaim) -> Over | None:
    account = None if journey.policy is None else journey.policy.accounts.get(call.principal.account)
    if account is None or journey.policy is None:
        return None
    limits = account.limits if claim.key[1] == account.name else journey.policy.limits
    same = (spend for spend in limits.spends if _is_of(claim, spend))
    return next((spend.over for spend in same if spend.over is not None), None)


def _is_of(claim: SpendClaim, spend: Spend) -> bool:
    asked = (claim.meter, claim.unit, claim.max_micros, claim.key[3])
    return asked == (spend.meter, spend.unit, spend.max_micros, spend.per)


def _fields(refused: Refused) -> tuple[tuple[str, str], ...]:
    """What the refusal says of the limit, where that is a quota: draft-ietf-httpapi-ratelimit-headers."""
    match refused.claim:
        case RateClaim(limit=limit) if (found := _LIMIT.fullmatch(limit)) is not None:
            per, wait = found[2], refused.retry_after_seconds or 1
            policy = f'"{per}";q={found[1]};w={_SECONDS[per]}'
            return (("RateLimit-Policy", policy), ("RateLimit", f'"{per}";r=0;t={wait}'))
        case LeaseClaim(max=most):
            policy = f'"concurrency";q={most};qu="concurrent-requests"'
            return (("RateLimit-Policy", policy), ("RateLimit", '"concurrency";r=0'))
        case _:
            return ()
