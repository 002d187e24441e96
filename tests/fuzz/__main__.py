"""`make fuzz`: the parsers under mutated bytes, for so many executions or so many seconds; exits 1 with findings.

With `--coverage`, and atheris installed beside the environment (`uv pip install atheris`), new bytes are chosen by the
code that they reach; without it, by `tests.fuzz.mutations` alone. Whatever is found is printed with its bytes.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.fuzz.mutations import REQUEST_FILES, mutated, seeds
from tests.fuzz.targets import fuzz_request, fuzz_response

Target = Callable[[bytes], int]

TARGETS: dict[str, tuple[Target, tuple[str, ...]]] = {
    "request": (fuzz_request, REQUEST_FILES),
    "response": (fuzz_response, ("responses",)),
}


@dataclass
class Report:
    """What a run did."""

    executions: int = 0
    accepted: int = 0
    """Inputs of which at least one whole message was taken."""
    findings: dict[str, bytes] = field(default_factory=dict)
    """What was found, with the shortest bytes that show it."""


def hunt(target: Target, corpus: list[bytes], seed: int, count: int, until: float = float("inf")) -> Report:
    """The corpus and `count` mutations of it have been tried, or the time is over."""
    report = Report()
    for data in _inputs(corpus, seed, count):
        if report.executions % 256 == 0 and time.monotonic() > until:
            break
        report.executions += 1
        try:
            report.accepted += target(data) > 0
        except Exception as error:
            what = f"{type(error).__name__}: {error}"[:160]
            if what not in report.findings or len(data) < len(report.findings[what]):
                report.findings[what] = data
    return report


def _inputs(corpus: list[bytes], seed: int, count: int) -> Iterable[bytes]:
    yield from corpus
    yield from mutated(corpus, seed, count)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Fuzz the request and the response parser."
    )
    parser.add_argument("target", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)}; all when left out")
    parser.add_argument("--count", type=int, default=10**9, help="executions of each target")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each target")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run; printed when left out")
    parser.add_argument("--coverage", action="store_true", help="guided by coverage, with atheris")
    chosen = parser.parse_args()
    seed = time.time_ns() % 2**31 if chosen.seed is None else chosen.seed
    failed = False
    for name in chosen.target:
        target, files = TARGETS[name]
        if chosen.coverage:
            return guided(name, target, seeds(files), seed, chosen.seconds)
        began = time.monotonic()
        report = hunt(target, seeds(files), seed, chosen.count, began + chosen.seconds)
        spent = time.monotonic() - began
        print(
            f"{name}: seed {seed}, {report.executions} executions in {spent:.1f} s "
            f"({report.executions / spent:.0f}/s), {report.accepted} accepted, {len(report.findings)} findings"
        )
        for what, data in report.findings.items():
            print(f"  {what}\n    {data!r}")
        failed |= bool(report.findings)
    return int(failed)


def guided(name: str, target: Target, corpus: list[bytes], seed: int, seconds: float) -> int:
    """libFuzzer through atheris: does not return; a finding is printed with its bytes and ends the run."""
    import tempfile
    from pathlib import Path

    try:
        import atheris
    except ImportError:
        print("atheris is not installed: uv pip install atheris, or leave out --coverage", file=sys.stderr)
        return 2
    atheris.instrument_all()
    folder = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    for number, data in enumerate(corpus):
        Path(folder, f"{number:05}").write_bytes(data)

    def one(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], folder, f"-seed={seed}", f"-max_total_time={int(seconds)}", "-max_len=4096"], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
