"""Refusals in the ledger: each one a record up to a rate, beyond it counts. No silent drop, no full disk.

An agent, or anybody who can reach the listener, can make refusals as fast as it can send; a durable record for each
would turn that into a way to fill the disk and to slow everybody's commits.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from ledger import LedgerError
from proxy.records import Recorder

logger = logging.getLogger("exeat.gate")

RATE_PER_SECOND: Final = 20
BURST: Final = 200
"""Individual refusal records for one tenant or one peer address; a person debugging never reaches it."""
ANONYMOUS_PER_SECOND: Final = 50
ANONYMOUS_BURST: Final = 500
"""As above for all peers without an identity together: addresses are without end (127/8, an IPv6 /64)."""
MAX_SOURCES: Final = 4096
_ANONYMOUS: Final = "/"
"""No tenant, account or address has this name."""
FLUSH_SECONDS: Final = 10.0
MAX_COUNTS: Final = 200
"""Entries in one summary record, so that it stays far below the record's bound."""


class Rejections:
    """Decides which refusals get a record of their own, counts the others and writes the counts down."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._buckets: dict[str, tuple[float, float]] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._window_began = time.time_ns()

    def individually(self, source: str, *, anonymous: bool = False) -> bool:
        """True if this refusal of `source` (a tenant and account, or a peer address) gets its own record."""
        if anonymous and not self._take(_ANONYMOUS, ANONYMOUS_PER_SECOND, ANONYMOUS_BURST):
            return False
        return self._take(source, RATE_PER_SECOND, BURST)

    def _take(self, source: str, per_second: int, burst: int) -> bool:
        now = time.monotonic()
        tokens, at = self._buckets.get(source, (float(burst), now))
        tokens = min(float(burst), tokens + (now - at) * per_second)
        allowed = tokens >= 1.0
        if source not in self._buckets and len(self._buckets) >= MAX_SOURCES:
            kept = self._buckets.get(_ANONYMOUS)
            self._buckets.clear()  # Forgetting the sources costs at most one burst each.
            if kept is not None:
                self._buckets[_ANONYMOUS] = kept
        self._buckets[source] = (tokens - 1.0 if allowed else tokens, now)
        return allowed

    def count(self, tenant: str, code: str, source: str) -> None:
        """The refusal will be in the next summary."""
        key = (tenant, code, source)
        if key not in self._counts and len(self._counts) >= MAX_SOURCES:
            key = (tenant, code, "other")
        self._counts[key] = self._counts.get(key, 0) + 1

    async def flush(self) -> None:
        """Everything counted so far is durable, unless the ledger is down: then it stays counted for the next time."""
        counts, self._counts = self._counts, {}
        began, self._window_began = self._window_began, time.time_ns()
        window = max(0, (self._window_began - began) // 1000)
        by_tenant: dict[str, list[dict[str, object]]] = {}
        for (tenant, code, source), n in counts.items():
            by_tenant.setdefault(tenant, []).append({"code": code, "source": source, "n": n})
        loop = asyncio.get_running_loop()
        for tenant, rows in by_tenant.items():
            for start in range(0, len(rows), MAX_COUNTS):
                part = rows[start : start + MAX_COUNTS]
                content: Mapping[str, object] = {"window_us": window, "counts": part}
                try:
                    await self._recorder.submit_async(loop, "reject.summary", tenant, content)
                except LedgerError as error:
                    logger.error("refusals could not be summarised and stay counted: %s", error)
                    for row in part:
                        key = (tenant, str(row["code"]), str(row["source"]))
                        self._counts[key] = self._counts.get(key, 0) + int(str(row["n"]))

    async def run(self) -> None:
        """Flushes for ever; cancel to stop, then flush once more."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
