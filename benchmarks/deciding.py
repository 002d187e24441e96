"""What a decision costs, by rules and by tenants: `make bench-decide`, or `python -m benchmarks.deciding --json FILE`.

A decision is everything between a request that was read and its verdict: the connection, the tools that it asks for,
whether its body has to be read, reading it, whether the service has to be asked, and the guards. Rounds go through all
sizes in turn, so that what else the machine does falls on all of them; the tables have medians, and ratios to the
smallest size. One process, no I/O, about three minutes.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.deciding_cases import ACCOUNT, CASES, HOST, SPREAD, Asked, Case, policy_of
from credentials.principal import Principal
from rules.call import Call, Facts
from rules.conditions.condition import compile_condition
from rules.decide import decide
from rules.decision import Allowed
from rules.lookups import wanted
from rules.matching import judged_by_body
from rules.policy.compile import PolicySet
from rules.trial import read, understood

TARGET_RATIO: Final = 1.2
RULES: Final = (10, 100, 1_000, 10_000)
TENANTS: Final = (1, 10, 100, 1_000)
OF_A_TENANT: Final = 20
"""Rules of each, where tenants are counted."""
_NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Reading:
    """One case: a decision's time at each size."""

    case: str
    flat: bool
    """Whether it has to be: False where every rule is about the very tool that is called."""
    sizes: tuple[int, ...]
    microseconds: tuple[float, ...]
    bytes_per_rule: float

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(taken / self.microseconds[0] for taken in self.microseconds)


def decided(policies: PolicySet, tenant: str, asked: Asked) -> bool:
    """Whether the call is allowed, decided as the gate decides it (`proxy.deciding`)."""
    policy = policies.tenants[tenant]
    principal = Principal(tenant, ACCOUNT, "w", "r", "j", 0, 0, 0)
    call = Call("c_1", principal, "https", HOST, 443, asked.method, asked.path, "")
    facts = understood(call, Facts(policy, policy.connection_for("https", HOST, 443), _NOW))
    if judged_by_body(call, facts):
        facts = read(call, facts, (asked.kind,), asked.body)
    if wanted(call, facts) is not None:
        raise AssertionError("no case here has a lookup")
    return isinstance(decide(call, facts), Allowed)


def _round(policies: PolicySet, tenants: list[str], calls: tuple[Asked, ...], decisions: int) -> float:
    """Microseconds of the processor for one. Calls differ from each other in path and body, as an agent's do."""
    turns = [(tenants[n % len(tenants)], calls[n % len(calls)]) for n in range(decisions)]
    began = time.process_time()
    for tenant, asked in turns:
        decided(policies, tenant, asked)
    return (time.process_time() - began) / decisions * 1e6


def _measured(
    name: str, flat: bool, made: dict[int, tuple[PolicySet, list[str], tuple[Asked, ...]]], rounds: int, decisions: int
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    for size, (policies, tenants, calls) in made.items():
        if not all(decided(policies, tenant, asked) for tenant in tenants[:4] for asked in calls):
            raise AssertionError(f"{name}, {size}: a call is denied; another path than the one meant is measured")
    taken: dict[int, list[float]] = {size: [] for size in made}
    gc.collect()
    gc.freeze()
    for turn in range(rounds):
        sizes = list(made)
        for size in sizes[turn % len(sizes) :] + sizes[: turn % len(sizes)]:
            policies, tenants, calls = made[size]
            # What is not flat is not asked as often.
            often = decisions if flat else max(4, min(decisions, decisions * 20 // size))
            taken[size].append(_round(policies, tenants, calls, often))
    gc.unfreeze()
    return tuple(made), tuple(statistics.median(times) for times in taken.values())


def _traced[T](make: Callable[[], T]) -> tuple[T, int]:
    """What was made, and the bytes that Python holds for it."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def by_rules(case: Case, sizes: tuple[int, ...], rounds: int, decisions: int) -> Reading:
    """One tenant with one account, whose rules grow in number."""
    made: dict[int, tuple[PolicySet, list[str], tuple[Asked, ...]]] = {}
    held = 0
    for size in sizes:
        policies, held = _traced(policy_of(case, size, ("acme",)))
        made[size] = (policies, ["acme"], case.calls(size))
    return Reading(case.name, case.flat, *_measured(case.name, case.flat, made, rounds, decisions), held / sizes[-1])


def by_tenants(case: Case, sizes: tuple[int, ...], rounds: int, decisions: int) -> Reading:
    """Tenants with few rules each, all of them calling in turn."""
    made: dict[int, tuple[PolicySet, list[str], tuple[Asked, ...]]] = {}
    held = 0
    for size in sizes:
        names = [f"t{n}" for n in range(size)]
        policies, held = _traced(policy_of(case, OF_A_TENANT, tuple(names)))
        made[size] = (policies, names[:: max(1, size // SPREAD)], case.calls(OF_A_TENANT))
    read = _measured(case.name, case.flat, made, rounds, decisions)
    return Reading(case.name, case.flat, *read, held / (sizes[-1] * OF_A_TENANT))


def condition_bytes(number: int) -> float:
    """Resident bytes of one compiled condition, most of them not Python's."""
    gc.collect()
    before = _resident()
    kept = [compile_condition(f"int(args.amount) <= {n} && args.kept == 'so {n}'") for n in range(number)]
    return (_resident() - before) / len(kept)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _print(title: str, readings: list[Reading]) -> None:
    sizes = readings[0].sizes
    print(f"| {title} | " + " | ".join(f"{size:,}" for size in sizes) + " | ratios to the smallest | bytes a rule |")
    print("|---" * (len(sizes) + 3) + "|")
    for one in readings:
        times = " | ".join(f"{taken:,.0f}" for taken in one.microseconds)
        ratios = ", ".join(f"{ratio:.2f}" for ratio in one.ratios[1:])
        note = "" if not one.flat else " **over**" if max(one.ratios) > TARGET_RATIO else ""
        print(f"| {one.case} | {times} | {ratios}{note} | {one.bytes_per_rule:,.0f} |")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deciding", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of which the median is taken (default 15)")
    parser.add_argument("--decisions", type=int, default=200, help="in one round (default 200)")
    parser.add_argument("--rules", type=int, nargs="+", default=list(RULES), help="of one account, ascending")
    parser.add_argument("--tenants", type=int, nargs="+", default=list(TENANTS), help="ascending")
    parser.add_argument("--only", action="append", default=[], choices=[case.name for case in CASES])
    parser.add_argument("--json", type=Path, help="write every median here")
    said = parser.parse_args(words)
    chosen = [case for case in CASES if not said.only or case.name in said.only]
    rules = [by_rules(case, tuple(said.rules), said.rounds, said.decisions) for case in chosen]
    tenants = [by_tenants(case, tuple(said.tenants), said.rounds, said.decisions) for case in chosen if case.tenants]
    _print("us a decision; rules of one account:", rules)
    if tenants:
        print()
        _print(f"us a decision; tenants of {OF_A_TENANT} rules:", tenants)
    print(f"\na compiled condition: {condition_bytes(500) / 1e3:.1f} KB resident")
    print(f"target: ratios of at most {TARGET_RATIO:g}, but where all rules are about the one tool that is called")
    if said.json is not None:
        kept: dict[str, Any] = {"rules": [asdict(one) for one in rules], "tenants": [asdict(one) for one in tenants]}
        said.json.write_text(json.dumps(kept, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
