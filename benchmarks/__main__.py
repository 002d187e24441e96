"""`python -m benchmarks`: the product beside its peers, one table."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import measure
from benchmarks.load import LoadFailed
from benchmarks.machine import Machine, busy_seconds, describe
from benchmarks.peers import PEERS, Missing, Peer, Running
from benchmarks.place import PeerFailed, Place
from benchmarks.report import Found, noise, tables, write_json

CONCURRENCIES: Final = (1, 16, 64)
WARM_UP_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    rounds: int
    seconds: float
    only: tuple[str, ...]
    folder: Path
    json: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    present: list[tuple[Peer, Found]] = []
    for peer in PEERS:
        if options.only and peer.name not in options.only:
            continue
        try:
            present.append((peer, Found(peer.name, peer.title, peer.version())))
        except Missing as missing:
            print(f"skipped: {missing}")
    if not present:
        print("nothing to measure", file=sys.stderr)
        return 3
    try:
        with closing(Place(options.folder)) as place:
            machine = describe(options.folder, place.cores)
            _introduce(machine, [found for _, found in present], options, place)
            others = _Others(place)
            _measure(place, present, options)
            disturbance = others.share()
    except (LoadFailed, PeerFailed) as failure:
        print(f"\nno figures: {failure}", file=sys.stderr)
        return 3
    found = [one for _, one in present]
    print("\n" + tables(found))
    print(f"\n{noise(found)}; other processes took {disturbance:.0%} of one core meanwhile")
    if options.json is not None:
        settings = {"rounds": options.rounds, "seconds": options.seconds, "concurrencies": CONCURRENCIES}
        write_json(options.json, machine, {**settings, "others_share_of_one_core": disturbance}, found)
    return 0


class _Others:
    """How much of the machine others use meanwhile: above a few per cent, figures are not to be kept."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._began = time.monotonic()
        self._before = busy_seconds() - place.cpu_seconds()

    def share(self) -> float:
        """As a share of one core since the start."""
        spent = busy_seconds() - self._place.cpu_seconds() - self._before
        return max(0.0, spent / (time.monotonic() - self._began))


def _measure(place: Place, present: Sequence[tuple[Peer, Found]], options: Options) -> None:
    started: list[tuple[Found, Running]] = []
    for peer, found in present:
        _say(f"starting {peer.name}")
        running = peer.start(place)
        if running.target.tunnel:
            found.memory = measure.memory(running)
        started.append((found, running))
    for _, running in started:
        measure.calls(running, 16, WARM_UP_SECONDS)
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}")
        # Each round begins with another peer, so that none is always measured right after the same one.
        order = started[number % len(started) :] + started[: number % len(started)]
        for concurrency in CONCURRENCIES:
            for found, running in order:
                reading = measure.calls(running, concurrency, options.seconds)
                found.readings.setdefault(f"c={concurrency}", []).append(reading)
        for found, running in order:
            found.readings.setdefault("tunnels", []).append(measure.tunnels(running, options.seconds))
    for found, running in started:
        found.busy_bytes = running.child.resident_bytes()
    _say("")


def _introduce(machine: Machine, found: Sequence[Found], options: Options, place: Place) -> None:
    print(f"{machine.processor}, {machine.cores} cores, Linux {machine.kernel}")
    print(f"Python {machine.python}, {machine.openssl}; {machine.filesystem}, fdatasync {machine.fdatasync_us:.0f} us")
    print("; ".join(one.version for one in found if one.version))
    print(
        "HTTPS intercepted, TLS 1.3 on both legs, HTTP/1.1 keep-alive, 300 B POST, 446 B JSON reply, a secret header; "
        f"{options.rounds} interleaved rounds of {options.seconds:g} s; loopback only"
    )
    if place.shares_one_core:
        print("one core only: client, origin and proxy share it, so rates say little; processor time still counts")
    else:
        print("client and origin on one core, the proxy on another; `cpu us` is the proxy's for one call")


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one reading (default 1.5)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[peer.name for peer in PEERS],
        help="this peer; repeatable",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("benchmarks/out/run"), help="emptied first; its disk is the ledger's disk"
    )
    parser.add_argument("--json", type=Path, help="write every reading here")
    said = parser.parse_args(arguments)
    if said.rounds < 1 or said.seconds <= 0:
        parser.error("rounds and seconds must be positive")
    return Options(said.rounds, said.seconds, tuple(said.only), said.folder.resolve(), said.json)


if __name__ == "__main__":
    sys.exit(main())
