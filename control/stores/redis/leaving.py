"""Calls that wait no longer, on their way to the server: many at once, for a crowd often leaves together."""

import asyncio
from typing import Final

from control.stores.redis.outbox import Outbox
from control.stores.redis.scripts import LEAVE

TOGETHER_SECONDS: Final = 0.01
"""The first is told at once; who leaves so soon after it, together. A script walks over all who wait."""
_AT_ONCE: Final = 1_000
"""Words of a script."""


class Leaving:
    """Belongs to the outbox's loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._gone: dict[bytes, list[str]] = {}
        self._later: asyncio.TimerHandle | None = None

    def post(self, root: bytes, places: list[str]) -> None:
        """The server will be told. `places`: a key and a member for each queue. Never raises, never waits."""
        self._gone.setdefault(root, []).extend(places)
        if self._later is None:
            self.flush()
            self._later = asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._over)

    def flush(self) -> None:
        """All of it is with the outbox."""
        gone, self._gone = self._gone, {}
        for root, places in gone.items():
            for at in range(0, len(places), _AT_ONCE):
                self._outbox.post(LEAVE, root, *places[at : at + _AT_ONCE])

    def _over(self) -> None:
        self._later = None
        if self._gone:
            self.flush()
            self._later = asyncio.get_running_loop().call_later(TOGETHER_SECONDS, self._over)
