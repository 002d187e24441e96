"""What all stores of counters say alike: which claims make sense, and how a refusal reads."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from rules.claims import Claim, LeaseClaim, OnceClaim, PauseClaim, RateClaim, Refused, SpendClaim
from rules.codes import Code

MAX_MICROS: Final = 2**53 - 1
"""9,007,199,254 whole units. A store that computes with binary floating point is exact up to here, and caps higher than
this are refused by all, so that no cap changes its meaning with the store."""

_MAX_RATE_US: Final = MAX_MICROS // 4

ONCE_SECONDS: Final = 86_400
"""How long an idempotency key is remembered after its last attempt."""


def check(claims: tuple[Claim, ...]) -> None:
    """Raises ValueError for claims that mean nothing or belong to several tenants: they must not be taken for none."""
    tenant = ""
    for claim in claims:
        meaning = _CHECKS.get(type(claim))
        if meaning is None:  # a kind of claim that a newer policy asks and this store does not know
            raise ValueError(f"unknown claim {type(claim).__name__}")
        meaning(claim)
        key = claim.key
        if not key or key[0] != (tenant or key[0]) or not key[0]:
            raise ValueError("all claims of a call are of one tenant, named first in their keys")
        tenant = key[0]


def _check_spend(claim: SpendClaim) -> None:
    if not (0 <= claim.amount_micros <= MAX_MICROS and 0 <= claim.max_micros <= MAX_MICROS):
        raise ValueError(f"amounts and caps are between 0 and {MAX_MICROS} micro-units")
    if not claim.window:
        raise ValueError("a spend claim has a window")


def _check_lease(claim: LeaseClaim) -> None:
    if claim.max < 1:
        raise ValueError("a concurrency cap is at least 1")


def _check_rate(claim: RateClaim) -> None:
    interval_us, burst = claim.interval_us, claim.burst
    if interval_us < 1 or burst < 1 or interval_us * burst > _MAX_RATE_US:
        raise ValueError("a rate needs an interval of at least 1 us, a burst of at least 1, within 71 years")


def _check_once(claim: OnceClaim) -> None:
    if not claim.digest:
        raise ValueError("an idempotency key comes with the digest of what is asked")


def _check_pause(_: PauseClaim) -> None:
    """Its key is all that it has."""


_CHECKS: Final[dict[type, Callable[[Any], None]]] = {
    SpendClaim: _check_spend,
    LeaseClaim: _check_lease,
    RateClaim: _check_rate,
    OnceClaim: _check_once,
    PauseClaim: _check_pause,
}


def told(spent: object, meter: str, most: int) -> int:
    """What was spent by a meter; the most that it can be where nobody says, or what is said is impossible."""
    # A dictionary first: the test for any mapping takes as long as all the rest.
    amount = spent.get(meter) if type(spent) is dict or isinstance(spent, Mapping) else None
    return min(amount, MAX_MICROS) if type(amount) is int and amount >= 0 else most


def rate_limited(claim: RateClaim, wait_us: int) -> Refused:
    """The bucket is empty for so long."""
    return Refused(claim, Code.RATE_LIMITED, f"the rate of {claim.limit} is reached", seconds(wait_us))


def concurrency_reached(claim: LeaseClaim) -> Refused:
    """All slots are taken; one may be free at any time."""
    return Refused(claim, Code.CONCURRENCY_REACHED, f"{claim.max} calls are in flight, the most allowed", 1)


def queue_full(claim: LeaseClaim) -> Refused:
    """All slots are taken, and as many calls wait for one as may."""
    most = 0 if claim.queue is None else claim.queue.max
    detail = f"{claim.max} calls are in flight, the most allowed, and {most} wait for their end, the most allowed too"
    return Refused(claim, Code.CONCURRENCY_REACHED, detail, 1)


def cap_reached(claim: SpendClaim, window: str, resets_at: int, used_micros: int, now_seconds: float) -> Refused:
    """Not so much is left in the window that counts. `used_micros` is what is spent and set aside."""
    resets_at = resets_at or claim.resets_at
    retry = max(1, int(resets_at - now_seconds) + 1) if resets_at else None
    left = max(0, claim.max_micros - used_micros)
    detail = (
        f"the spend cap of {money(claim.max_micros, claim.unit)} for {window} is reached: "
        f"{money(left, claim.unit)} left, {money(claim.amount_micros, claim.unit)} needed"
    )
    return Refused(claim, Code.SPEND_CAP_REACHED, detail, retry)


def paused(claim: PauseClaim, wait_us: int) -> Refused:
    """The service's own wait is not over."""
    return Refused(claim, Code.RATE_LIMITED, "the service has asked to wait", seconds(wait_us))


def in_flight(claim: OnceClaim) -> Refused:
    """An attempt of the same call is on its way."""
    return Refused(claim, Code.IDEMPOTENCY_IN_FLIGHT, "an attempt under this idempotency key is in flight", 1)


def another_call(claim: OnceClaim) -> Refused:
    """The key was used for something else."""
    return Refused(
        claim, Code.IDEMPOTENCY_CONFLICT, "this idempotency key was used for another request within the last day", None
    )


def money(micros: int, unit: str) -> str:
    """`1.50 USD`, `0.002 USD`, `3 tokens`: exact; money with at least two decimals."""
    whole, rest = divmod(micros, 1_000_000)
    decimals = f"{rest:06d}".rstrip("0").ljust(2 if unit.isupper() else 0, "0")
    return f"{whole}.{decimals} {unit}" if decimals else f"{whole} {unit}"


def seconds(microseconds: int) -> int:
    """Rounded up, at least one: whoever waits so long does not come too early."""
    return max(1, -(-microseconds // 1_000_000))
