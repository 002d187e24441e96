"""Times as the state writes them."""

from collections.abc import Callable
from datetime import UTC, datetime

type Clock = Callable[[], float]
"""Unix seconds, UTC."""


def at(seconds: float) -> datetime:
    """Aware UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def text(moment: datetime) -> str:
    """`2026-11-20T14:02:11.123456Z`, as in the ledger."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(written: str) -> datetime:
    """The moment of `text`."""
    return datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
