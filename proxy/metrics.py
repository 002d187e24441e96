"""Counters and latency histograms in the Prometheus text format, cheap enough for every call.

Labels are bounded by construction: codes, steps and phases, never hosts, accounts or anything an agent chooses.
"""

from bisect import bisect_left
from collections.abc import Callable
from enum import IntEnum
from typing import Final


class Step(IntEnum):
    """The eight steps of a call (design, section 5)."""

    ADMIT = 1
    IDENTIFY = 2
    CLASSIFY = 3
    DECIDE = 4
    RESERVE = 5
    COMMIT = 6
    FULFIL = 7
    SETTLE = 8


BOUNDS_SECONDS: Final = (
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
_BOUNDS_NS: Final = tuple(int(bound * 1e9) for bound in BOUNDS_SECONDS)


class Histogram:
    """Durations in fixed buckets."""

    __slots__ = ("buckets", "count", "total_ns")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS_NS) + 1)
        self.total_ns = 0
        self.count = 0

    def observe(self, nanoseconds: int) -> None:
        """One duration is counted."""
        self.buckets[bisect_left(_BOUNDS_NS, nanoseconds)] += 1
        self.total_ns += nanoseconds
        self.count += 1

    def render(self, name: str, labels: str) -> list[str]:
        """Prometheus lines, cumulative as the format wants them."""
        lines = []
        running = 0
        for bound, hits in zip(BOUNDS_SECONDS, self.buckets, strict=False):
            running += hits
            lines.append(f'{name}_bucket{{{labels}le="{bound:g}"}} {running}')
        lines.append(f'{name}_bucket{{{labels}le="+Inf"}} {self.count}')
        trimmed = labels.rstrip(",")
        suffix = f"{{{trimmed}}}" if trimmed else ""
        lines.append(f"{name}_sum{suffix} {self.total_ns / 1e9:.9f}")
        lines.append(f"{name}_count{suffix} {self.count}")
        return lines


class Metrics:
    """Everything the gate counts. Written on the proxy's loop; `render` may be called from any thread."""

    def __init__(self) -> None:
        self.decisions: dict[str, int] = {}
        self.outcomes: dict[str, int] = {}
        self.steps = {step: Histogram() for step in Step}
        self.calls = Histogram()
        self.loop_lag = Histogram()
        self.waits = Histogram()
        """Of calls that found no slot, until they had one or gave up."""
        self.queued = 0
        """Calls that wait for a slot now."""
        self.challenges = 0
        self.cuts = 0
        self.connections = 0
        self.connections_refused = 0
        self.gauges: dict[str, Callable[[], float]] = {}
        """Name to a function read at scrape time: live calls, open connections, ledger lag."""

    def decided(self, code: str) -> None:
        """One decision is counted; `allow` or the code of a refusal."""
        self.decisions[code] = self.decisions.get(code, 0) + 1

    def settled(self, status: str) -> None:
        """One outcome is counted."""
        self.outcomes[status] = self.outcomes.get(status, 0) + 1

    def render(self) -> str:
        """The Prometheus text exposition format 0.0.4."""
        lines = ["# TYPE exeat_decisions_total counter"]
        lines += [f'exeat_decisions_total{{code="{code}"}} {n}' for code, n in sorted(dict(self.decisions).items())]
        lines.append("# TYPE exeat_outcomes_total counter")
        lines += [f'exeat_outcomes_total{{status="{s}"}} {n}' for s, n in sorted(dict(self.outcomes).items())]
        for name, value in (
            ("challenges", self.challenges),
            ("cuts", self.cuts),
            ("connections", self.connections),
            ("connections_refused", self.connections_refused),
        ):
            lines += [f"# TYPE exeat_{name}_total counter", f"exeat_{name}_total {value}"]
        lines.append("# TYPE exeat_step_seconds histogram")
        for step, histogram in self.steps.items():
            lines += histogram.render("exeat_step_seconds", f'step="{step.value}_{step.name.lower()}",')
        lines.append("# TYPE exeat_call_seconds histogram")
        lines += self.calls.render("exeat_call_seconds", "")
        lines.append("# TYPE exeat_loop_lag_seconds histogram")
        lines += self.loop_lag.render("exeat_loop_lag_seconds", "")
        lines.append("# TYPE exeat_slot_wait_seconds histogram")
        lines += self.waits.render("exeat_slot_wait_seconds", "")
        lines += ["# TYPE exeat_slot_waiting gauge", f"exeat_slot_waiting {self.queued}"]
        for name, read in sorted(self.gauges.items()):
            lines += [f"# TYPE exeat_{name} gauge", f"exeat_{name} {read():g}"]
        return "\n".join(lines) + "\n"
