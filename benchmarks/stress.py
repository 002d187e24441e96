"""What one account's flood costs another: `make stress`, or `python -m benchmarks.stress --json FILE`.

For each kind of flood: the other account's p50 and p99 before and during it and their ratio, how late the proxy's loop
ran, how much its memory grew, and how many of the flood's answers were refusals. Real product in a process of its own,
loopback only, two to three minutes.
"""

import argparse
import base64
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import measure, wire
from benchmarks.flood import KINDS
from benchmarks.load import Client, Target
from benchmarks.machine import busy_seconds, describe
from benchmarks.peers.peer import Running
from benchmarks.place import NAME, PeerFailed, Place, free_port, listens

TARGET_RATIO: Final = 2.0
OTHERS: Final = 2
"""Connections of the account that is not flooding; each calls, waits for its answer, rests, and calls again."""
_PROGRAM: Final = Path(sys.executable).with_name("exeat")
_BUILD_UP_SECONDS: Final = 1.0
_POLICY: Final = """\
exeat: 1
tenant: bench
credentials: {{ttl: 1h, max_ttl: 1h}}
connections:
  saas: {{host: {name}, port: {port}, dial: "127.0.0.1:{port}", ca: {ca}, secret: saas/bench, price: 0.01 USD}}
  hang: {{host: hang.test, port: {hang}, dial: "127.0.0.1:{hang}", ca: {ca}, secret: saas/bench}}
accounts:
"""
_ACCOUNT: Final = """\
  {account}:
    owners: {{accountable: ana@acme.example, system: ben@acme.example, risk: eve@acme.example}}
    limits: {{concurrency: 1000, spend: [{{meter: price, max: 10000000 USD, per: day}}]}}
    rules:
      - {{id: refund, allow: {{connection: saas, methods: [POST], path: {path}}}}}
      - {{id: read, allow: {{connection: saas, methods: [POST], path: /read, body: inspect}}}}
      - {{id: hang, allow: {{connection: hang, methods: [GET], path: /x}}}}
"""
_LAG: Final = re.compile(r'exeat_loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)')


@dataclass(frozen=True, slots=True)
class Reading:
    """One kind of flood."""

    flood: str
    before_p50_ms: float
    before_p99_ms: float
    during_p50_ms: float
    during_p99_ms: float
    lag_p99_ms: float
    """Upper bound of the histogram's bucket."""
    lag_max_ms: float
    memory_growth_mb: float
    flood_answers: dict[str, int]
    flood_seconds: float

    @property
    def ratio(self) -> float:
        return self.during_p99_ms / self.before_p99_ms


@dataclass(frozen=True, slots=True)
class _Gate:
    """The product under test."""

    running: Running
    health: int
    state: str
    port: int
    ca_file: str
    hang: int

    def basic(self, account: str) -> str:
        token = _run(self.state, "token", "issue", account, "--ttl", "1h").strip()
        return "Basic " + base64.b64encode(b"agent:" + token).decode()

    def lag_buckets(self) -> list[tuple[float, int]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=10) as answer:
            return [(float(bound), int(hits)) for bound, hits in _LAG.findall(answer.read().decode())]


def _run(state: str, *words: str, give: bytes = b"") -> bytes:
    done = subprocess.run([_PROGRAM, *words, "--state", state], input=give, capture_output=True, check=False)
    if done.returncode != 0:
        raise PeerFailed(f"exeat {' '.join(words[:2])}: {done.stderr.decode(errors='replace')}")
    return done.stdout


@contextmanager
def _hanging() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as silent:
        yield silent.getsockname()[1]


def _start(place: Place, hang: int) -> _Gate:
    folder = place.folder / "exeat"
    folder.mkdir(mode=0o700)
    text = _POLICY.format(name=NAME, port=place.origin_port, hang=hang, ca=place.origin_ca.name)
    text += "".join(_ACCOUNT.format(account=account, path=wire.PATH) for account in ("flood", "other"))
    (folder / "policy.yaml").write_text(text)
    (folder / place.origin_ca.name).write_bytes(place.origin_ca.read_bytes())
    state = os.path.relpath(folder / "state")
    _run(state, "policy", "apply", str(folder / "policy.yaml"))
    _run(state, "secret", "set", "saas/bench", "--tenant", "bench", give=wire.SECRET.encode())
    port, health = free_port(), free_port()
    command = [str(_PROGRAM), "up", "--state", state]
    child = place.start("exeat", [*command, "--listen", f"127.0.0.1:{port}", "--health", f"127.0.0.1:{health}"])
    place.wait_for(child, lambda: listens(port) and listens(health), "exeat")
    ca_file = str(folder / "state/keys/ca-cert.pem")
    target = Target(("127.0.0.1", port), f"{NAME}:{place.origin_port}", ca_file, request_headers=b"")
    return _Gate(Running(child, target), health, state, port, ca_file, hang)


def _target(gate: _Gate, basic: str) -> Target:
    base = gate.running.target
    header = f"Proxy-Authorization: {basic}\r\n".encode()
    return Target(base.address, base.authority, base.ca_file, connect_headers=header, request_headers=b"")


def _latencies(target: Target, seconds: float) -> tuple[float, float]:
    with Client(target, OTHERS) as client:
        client.open_all()
        latencies = sorted(client.run(seconds).latencies)
    return statistics.median(latencies) * 1e3, latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))] * 1e3


def _lag(before: list[tuple[float, int]], after: list[tuple[float, int]]) -> tuple[float, float]:
    """p99 and maximum between two scrapes, as upper bounds in ms."""
    counts = [(bound, later - earlier) for (bound, earlier), (_, later) in zip(before, after, strict=True)]
    total = counts[-1][1]
    p99 = next(bound for bound, running in counts if running >= total * 0.99)
    return p99 * 1e3, next(bound for bound, running in counts if running >= total) * 1e3


def _read(gate: _Gate, place: Place, kind: str, flooder: dict[str, object], target: Target, seconds: float) -> Reading:
    before = _latencies(target, seconds)
    resident, lag = gate.running.child.resident_bytes(), gate.lag_buckets()
    flood = place.start(
        f"flood-{kind}", [sys.executable, "-m", "benchmarks.flood", kind], core=place.client_core, talk=True
    )
    stdin, stdout = flood.process.stdin, flood.process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(json.dumps(flooder).encode() + b"\n")
    stdin.flush()
    began = time.perf_counter()
    time.sleep(_BUILD_UP_SECONDS)
    during = _latencies(target, seconds)
    grown = gate.running.child.resident_bytes() - resident
    lags = _lag(lag, gate.lag_buckets())
    stdin.close()
    answers = json.loads(stdout.readline())
    spent = time.perf_counter() - began
    flood.process.wait(10)
    time.sleep(0.5)
    return Reading(kind, *before, *during, *lags, grown / 1e6, answers, spent)


def _print(readings: list[Reading]) -> None:
    print(f"{'flood':<16}{'p50 ms':>16}{'p99 ms':>16}{'p99 ratio':>11}{'lag p99':>9}{'lag max':>9}{'MB':>7}  answers/s")
    for one in readings:
        rates = " ".join(f"{key}:{n / one.flood_seconds:.0f}" for key, n in sorted(one.flood_answers.items()))
        print(
            f"{one.flood:<16}{one.before_p50_ms:>7.2f} > {one.during_p50_ms:>6.2f}"
            f"{one.before_p99_ms:>7.2f} > {one.during_p99_ms:>6.2f}{one.ratio:>11.1f}"
            f"{one.lag_p99_ms:>9.1f}{one.lag_max_ms:>9.1f}{one.memory_growth_mb:>7.1f}  {rates}"
        )
    print(f"target: p99 ratio at most {TARGET_RATIO:g}; lag figures are upper bounds of a histogram's buckets")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one reading (default 5)")
    parser.add_argument("--only", action="append", default=[], choices=[kind.__name__ for kind, _ in KINDS])
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/out/stress"), help="emptied first")
    parser.add_argument("--json", type=Path, help="write every reading here")
    said = parser.parse_args()
    place = Place(said.folder.resolve())
    try:
        with _hanging() as hang:
            machine = describe(place.folder, place.cores)
            print(f"{machine.processor}, {machine.cores} cores, Python {machine.python}", end=", ")
            print(f"fdatasync {machine.fdatasync_us:.0f} us")
            gate = _start(place, hang)
            idle = _target(gate, gate.basic("other"))
            memory = measure.memory(Running(gate.running.child, idle))
            began, busy, own = time.perf_counter(), busy_seconds(), place.cpu_seconds()
            basic = gate.basic("flood")
            flooder: dict[str, object] = {
                "port": gate.port,
                "host": NAME,
                "authority": idle.authority,
                "ca_file": gate.ca_file,
                "connect": {"bytes": _connect(idle.authority, basic)},
                "hanging": {"bytes": _connect(f"hang.test:{hang}", basic)},
                "hanging_authority": f"hang.test:{hang}",
                "forged": {"bytes": _connect(idle.authority, _forged(basic))},
            }
            chosen = [kind.__name__ for kind, _ in KINDS if not said.only or kind.__name__ in said.only]
            readings = [_read(gate, place, kind, flooder, idle, said.seconds) for kind in chosen]
            tunnels = measure.tunnels(Running(gate.running.child, idle), min(3.0, said.seconds))
            others = (busy_seconds() - busy) - (place.cpu_seconds() - own)
            elapsed = time.perf_counter() - began
        _print(readings)
        print(
            f"new tunnels {tunnels.rate:.0f}/s; {memory.per_tunnel_bytes / 1e3:.0f} KB for an idle tunnel (target 165)"
        )
        print(f"other processes took {others / elapsed / os.cpu_count() * 100:.0f} % of the machine meanwhile")  # type: ignore[operator]
        if said.json is not None:
            said.json.write_text(json.dumps([{**asdict(one), "ratio": one.ratio} for one in readings], indent=1))
    finally:
        place.close()
    return 0


def _forged(basic: str) -> str:
    """The same credential with another signature of the right form."""
    user, _, token = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
    signed, _, signature = token.rpartition(".")
    other = base64.urlsafe_b64encode(bytes(len(base64.urlsafe_b64decode(signature + "==")))).rstrip(b"=").decode()
    return "Basic " + base64.b64encode(f"{user}:{signed}.{other}".encode()).decode()


def _connect(authority: str, basic: str) -> str:
    return wire.connect(authority, f"Proxy-Authorization: {basic}\r\n".encode()).decode()


if __name__ == "__main__":
    sys.exit(main())
