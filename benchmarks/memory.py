"""What counters take in memory: `python -m benchmarks.memory`. Half a minute; no agent, no gate.

Many of one kind are made, in the embedded store and in a real server, and what it grew by is divided by their number.
"""

import asyncio
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from benchmarks.limits import server
from control.stores.limits import EmbeddedReservations
from control.stores.redis.place import Place
from control.stores.redis.store import RedisReservations
from rules.claims import Claim, LeaseClaim, OnceClaim, RateClaim, Reservations, Reserved, SpendClaim

COUNT: Final = 20_000
AT_ONCE: Final = 64


def _spend(key: str) -> SpendClaim:
    return SpendClaim(("acme", "agent", "USD", "day", key), "2026-11-25", 10**15, 250_000, "USD", 4_000_000_000)


KINDS: Final[dict[str, tuple[Callable[[int], tuple[Claim, ...]], bool]]] = {
    "a budget": (lambda n: (_spend(f"run=r_{n:022}"),), True),
    "a rate's bucket that is not full": (
        lambda n: (
            RateClaim(("acme", "agent", "rate", "saas", "day", f"run=r_{n:022}"), 86_400_000_000, 9, "1 per day"),
        ),
        True,
    ),
    "an idempotency key, for a day": (
        lambda n: (OnceClaim(("acme", "agent", "once", "saas", "2026-11-25", f"{n:064}"), "0" * 64),),
        True,
    ),
    "a call in flight, with one slot and one amount": (
        lambda _: (LeaseClaim(("acme", "agent", "concurrency"), 10**6), _spend("run=r_1")),
        False,
    ),
}
"""Claims of one call, and whether it is over before the memory is read."""


async def _fill(store: Reservations, claims: Callable[[int], tuple[Claim, ...]], *, over: bool) -> None:
    async def lane(start: int) -> None:
        for number in range(start, COUNT, AT_ONCE):
            answer = await store.reserve(f"c_{number:022}", claims(number))
            if not isinstance(answer, Reserved):
                raise AssertionError(f"another path than the one meant is measured: {answer}")
            if over:
                store.settle(answer, {"price": 250_000})

    await asyncio.gather(*(lane(start) for start in range(AT_ONCE)))


async def _embedded(claims: Callable[[int], tuple[Claim, ...]], *, over: bool) -> float:
    store = EmbeddedReservations()
    tracemalloc.start()
    await _fill(store, claims, over=over)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return grown / COUNT


async def _shared(claims: Callable[[int], tuple[Claim, ...]], *, over: bool) -> float:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)):
        path = f"{folder}/s"
        store = RedisReservations(Place.parse(f"unix://{path}"), "w1")
        await store.start()
        await store.rebuild(("acme",), (), (), "measured")
        client = Redis(unix_socket_path=path)
        before = int((await client.info("memory"))["used_memory"])
        await _fill(store, claims, over=over)
        if not await store.settled():
            raise AssertionError("the server has not taken everything")
        grown = int((await client.info("memory"))["used_memory"]) - before
        await client.aclose()
        await store.stop()
    return grown / COUNT


def main() -> int:
    """Prints the table."""
    print(f"bytes each, of {COUNT:,}")
    print(f"{'':48} {'embedded':>10} {'shared':>10}")
    for what, (claims, over) in KINDS.items():
        embedded, shared = (asyncio.run(measure(claims, over=over)) for measure in (_embedded, _shared))
        print(f"{what:48} {embedded:10,.0f} {shared:10,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
