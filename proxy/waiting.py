"""How long a service wants to be left alone: 429, and 503 with `Retry-After`. All callers of its connection wait."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from proxy.http.response import ResponseHead
from rules.claims import PauseClaim, Reservations
from rules.policy.compile import Connection

_ASKING: Final = (429, 503)
SHORTEST_SECONDS: Final = 1
LONGEST_SECONDS: Final = 300
"""A service that says more is asked again after so long: what it said may have been meant for one call alone."""


def pause_of(connection: Connection) -> PauseClaim:
    """What every call on a connection asks for: that its service has not asked to wait, whoever was told."""
    return _pause(connection.tenant, connection.name)


@lru_cache(maxsize=1024)
def _pause(tenant: str, name: str) -> PauseClaim:
    return PauseClaim((tenant, "connection", name))


def heed(reservations: Reservations, connection: Connection, response: ResponseHead) -> None:
    """Where the service asks to wait, every call of the tenant on its connection does."""
    if response.status not in _ASKING:
        return
    seconds = asked_to_wait(response, datetime.now(UTC))
    if seconds is not None:
        reservations.pause(pause_of(connection).key, seconds)


def asked_to_wait(response: ResponseHead, now: datetime) -> float | None:
    """Seconds, within bounds; None where the service did not ask. `now` is aware."""
    if response.status not in _ASKING:
        return None
    said = response.get(b"retry-after")
    if said is None and response.status == 503:
        return None
    seconds = SHORTEST_SECONDS if said is None else _seconds(said, now)
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS)


def _seconds(said: bytes, now: datetime) -> float:
    """RFC 9110 10.2.3: a number of seconds, or a date. What is neither is the shortest wait."""
    text = said.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return int(text[:9])
    try:
        until = parsedate_to_datetime(text)
        return (until if until.tzinfo is not None else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return SHORTEST_SECONDS
