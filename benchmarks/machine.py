"""What a figure was measured on; without it the figure says little."""

import os
import platform
import ssl
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Machine:
    """The parts that move the figures."""

    processor: str
    cores: int
    kernel: str
    python: str
    openssl: str
    filesystem: str
    """Type and source of the file system that holds the run's folder, and so the ledger."""
    fdatasync_us: float
    """Median of 200 appends of 512 bytes, each followed by fdatasync, to that file system."""


_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Processor time that all cores have spent on anything at all since the machine started."""
    user, nice, system, _, _, interrupts, soft, steal, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(ticks) for ticks in (user, nice, system, interrupts, soft, steal)) / _CLOCK_TICKS


def describe(folder: Path, cores: int) -> Machine:
    """Takes as long as 200 writes to the disk."""
    return Machine(
        processor=_processor(),
        cores=cores,
        kernel=platform.release(),
        python=platform.python_version(),
        openssl=ssl.OPENSSL_VERSION,
        filesystem=_filesystem(folder),
        fdatasync_us=_fdatasync_us(folder / "fdatasync"),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        source, point, kind, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, f"{kind} on {source}")
    return best[1]


def _fdatasync_us(path: Path) -> float:
    taken = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(200):
            began = time.perf_counter()
            os.write(descriptor, b"x" * 512)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(taken) * 1e6
