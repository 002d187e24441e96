"""What a run found: the table for people, the JSON for keeping."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.machine import Machine
from benchmarks.measure import Memory, Reading

BASE: Final = "mitmdump"
"""Ratios are to this peer."""


@dataclass(slots=True)
class Found:
    """Everything measured of one peer."""

    name: str
    title: str
    version: str
    readings: dict[str, list[Reading]] = field(default_factory=dict)
    memory: Memory | None = None
    busy_bytes: int = 0
    """Resident memory after the last round."""

    def median(self, scenario: str, figure: str) -> float | None:
        taken = [getattr(reading, figure) for reading in self.readings.get(scenario, [])]
        return statistics.median(taken) if taken else None

    def spread(self, scenario: str) -> float:
        """Half the distance between the best and the worst round, against the median."""
        rates = [reading.rate for reading in self.readings.get(scenario, [])]
        return (max(rates) - min(rates)) / 2 / statistics.median(rates) if rates else 0.0


def tables(found: Sequence[Found]) -> str:
    """Calls over open tunnels, then new tunnels and memory: one line a peer, medians over the rounds."""
    base = next((one for one in found if one.name == BASE), None)
    calls = [
        [
            "what",
            "c=1 req/s",
            "c=1 p50 ms",
            "c=16 req/s",
            "p50 ms",
            "ratio",
            "cpu us/req",
            "cpu ratio",
            "c=64 req/s",
            "ratio",
        ]
    ]
    opened = [["what", "new tunnels/s", "cpu us", "ratio", "idle MiB", "KiB/idle tunnel"]]
    for one in found:
        calls.append(
            [
                one.title,
                _number(one.median("c=1", "rate")),
                _number(one.median("c=1", "p50_ms"), 2),
                _number(one.median("c=16", "rate")),
                _number(one.median("c=16", "p50_ms"), 2),
                _ratio(one, base, "c=16"),
                _number(one.median("c=16", "cpu_us")),
                _ratio(base, one, "c=16", "cpu_us"),
                _number(one.median("c=64", "rate")),
                _ratio(one, base, "c=64"),
            ]
        )
        opened.append(
            [
                one.title,
                _number(one.median("tunnels", "rate")),
                _number(one.median("tunnels", "cpu_us")),
                _ratio(one, base, "tunnels"),
                _number(one.memory.idle_bytes / 2**20 if one.memory else None),
                _number(one.memory.per_tunnel_bytes / 1024 if one.memory else None),
            ]
        )
    return _aligned(calls) + "\n\n" + _aligned(opened)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns also line up in a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("| " + " | ".join(cells) + " |")
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, "| " + " | ".join(rules) + " |")
    return "\n".join(lines)


def _number(value: float | None, places: int = 0) -> str:
    return "-" if value is None else f"{value:,.{places}f}"


def _ratio(over: Found | None, under: Found | None, scenario: str, figure: str = "rate") -> str:
    one = over.median(scenario, figure) if over else None
    other = under.median(scenario, figure) if under else None
    return f"{one / other:.1f}" if one is not None and other else "-"


def noise(found: Sequence[Found]) -> str:
    """The least steady figure of the run, so that a reader knows what a difference has to exceed."""
    worst = max(((one.spread(name), one, name) for one in found for name in one.readings), key=lambda item: item[0])
    return f"rounds differ by at most +-{worst[0]:.0%} of their median ({worst[1].name}, {worst[2]})"


def write_json(path: Path, machine: Machine, settings: Mapping[str, object], found: Sequence[Found]) -> None:
    """Every single reading, not only the medians."""
    whole = {"format": "exeat-bench/1", "machine": asdict(machine), "settings": dict(settings)}
    path.write_text(json.dumps({**whole, "peers": [asdict(one) for one in found]}, indent=1) + "\n")
