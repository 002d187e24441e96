"""A share of limits: what is granted of them while the counters that all share cannot be asked.

Of a rate the share of its flow and of what passes at once, beside the whole rate; of slots the share of them; of an
amount the share of what was left when the share began, in a window that begins later of all of it. Rounded down, but
that a rate lets one call pass at once: a whole rate stands beside it, so that the two never grant more than the limit.
"""

from dataclasses import replace
from typing import Final

from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim

SHARE_PART: Final = "share"
"""The last part of the key of a share's own bucket. No key of a policy ends so: there it is a period or has a `=`."""
_TOLD: Final = frozenset({"account", "workflow", "run", "connection"})


class NoShare(Exception):
    """The share of a limit, rounded down, is nothing."""


def rate_share(claim: RateClaim, percent: int) -> RateClaim:
    """The rate of the share, in a bucket of its own."""
    interval_us = -(-claim.interval_us * 100 // percent)
    burst = max(1, claim.burst * percent // 100)
    return replace(claim, key=(*claim.key, SHARE_PART), interval_us=interval_us, burst=burst)


def lease_share(claim: LeaseClaim, percent: int) -> LeaseClaim:
    """The slots of the share. Raises `NoShare`."""
    slots = claim.max * percent // 100
    if slots < 1:
        raise NoShare(f"{percent}% of {claim.max} calls in flight is none")
    return replace(claim, max=slots)


def spend_share(claim: SpendClaim, percent: int, used_micros: int) -> SpendClaim:
    """The cap with the share of what was left: `used_micros` had been used of the window when the share began."""
    left = max(0, claim.max_micros - used_micros)
    return replace(claim, max_micros=min(claim.max_micros, used_micros + left * percent // 100))


def told_by_records(claim: Claim) -> bool:
    """Whether the records say all that was taken of this claim's bucket: not of one that goes by what calls are about.

    A record says neither the object of a call nor the single tools of a batch.
    """
    about, by = claim.key[3], claim.key[5] if len(claim.key) > 5 else ""
    return ":" not in about and {part.partition("=")[0] for part in by.split("&") if part} <= _TOLD


__all__ = ["SHARE_PART", "NoShare", "lease_share", "rate_share", "spend_share", "told_by_records"]
