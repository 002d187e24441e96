"""One reading of one peer."""

import statistics
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.load import Client
from benchmarks.peers import Running

TUNNEL_AGENTS: Final = 8
"""Agents that open tunnels at the same time: enough to keep the proxy's core busy."""
IDLE_TUNNELS: Final = 100
SETTLE_SECONDS: Final = 0.3
"""For what a proxy still does after a reply."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one peer did in one round of one scenario."""

    rate: float
    """Calls, or new tunnels with one call each, a second."""
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """Processor time of the proxy for one of them."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a peer and its children."""

    idle_bytes: int
    """Before its first call."""
    per_tunnel_bytes: int
    """What one more idle tunnel costs, the upstream connection behind it included."""


def calls(running: Running, connections: int, seconds: float) -> Reading:
    """Keep-alive: every agent has its tunnel already."""
    with Client(running.target, connections) as client:
        client.open_all()
        return _read(running, client, seconds)


def tunnels(running: Running, seconds: float) -> Reading:
    """Dial, CONNECT, full handshake, one call, close; again."""
    with Client(running.target, TUNNEL_AGENTS, renew=True) as client:
        return _read(running, client, seconds)


def _read(running: Running, client: Client, seconds: float) -> Reading:
    before = running.child.cpu_seconds()
    tally = client.run(seconds)
    spent = running.child.cpu_seconds() - before
    latencies = sorted(tally.latencies)
    return Reading(
        rate=tally.calls / tally.seconds,
        p50_ms=statistics.median(latencies) * 1e3,
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3,
        cpu_us=spent / tally.calls * 1e6,
    )


def memory(running: Running) -> Memory:
    """Taken right after the start: after load, an allocator would serve the tunnels from what it has kept."""
    idle = running.child.resident_bytes()
    with Client(running.target, 1) as first:  # what the first call of all costs is not the tunnels'
        first.open_all()
        before = running.child.resident_bytes()
        with Client(running.target, IDLE_TUNNELS) as client:
            client.open_all()
            time.sleep(SETTLE_SECONDS)
            return Memory(idle, max(0, running.child.resident_bytes() - before) // IDLE_TUNNELS)
