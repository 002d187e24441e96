"""Idempotency keys of one process: which calls are attempts of one call, and which of those are charged already."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from control.stores.counted import Key
from control.stores.verdicts import ONCE_SECONDS, another_call, in_flight
from rules.claims import OnceClaim, Refused

MOST: Final = 200_000
"""Keys that are remembered, some 420 bytes each. Beyond them the one whose last attempt is longest ago is forgotten
before its day is over: another attempt under it is then charged as a call of its own, so no cap is passed."""


@dataclass(slots=True)
class Known:
    """What is known of a key."""

    digest: str
    seen_us: int
    """Its last attempt."""
    paid: bool = False
    """An attempt was settled at its whole amounts."""


class IdempotencyKeys:
    """Not safe from several threads: its store has a lock."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[Key, Known] = {}
        """In the order in which their last attempts ended."""
        self._in_flight: dict[Key, Known] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._in_flight)

    def paid(self, keys: Iterable[Key], now_us: int) -> bool:
        """Whether all of them are charged already. Those whose day is over are forgotten."""
        before_us = now_us - ONCE_SECONDS * 1_000_000
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest].seen_us > before_us:
                break
            del self._known[oldest]
        return all((known := self._of(key)) is not None and known.paid for key in keys)

    def _of(self, key: Key) -> Known | None:
        return self._in_flight.get(key) or self._known.get(key)

    def take(self, claim: OnceClaim, now_us: int) -> Known | Refused | None:
        """An attempt is in flight; what was known of its key before, which `put_back` takes. Or the refusal."""
        key = claim.key
        flying, known = self._in_flight.get(key), self._of(key)
        if known is not None and known.digest != claim.digest:
            return another_call(claim)
        if flying is not None:
            return in_flight(claim)
        before = self._known.pop(key, None)
        self._in_flight[key] = Known(claim.digest, now_us, paid=before is not None and before.paid)
        return before

    def put_back(self, key: Key, before: Known | None) -> None:
        """The attempt was none: what was known of the key before is known again."""
        del self._in_flight[key]
        if before is not None:
            self._keep(key, before)

    def ended(self, key: Key, *, whole: bool) -> None:
        """The attempt is over; `whole`: charged at its whole amounts."""
        known = self._in_flight.pop(key)
        known.paid = known.paid or whole
        self._keep(key, known)

    def _keep(self, key: Key, known: Known) -> None:
        self._known[key] = known
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]
