"""Time as the sequencer sees it: a wall clock for records, a monotonic one to notice that the wall clock was moved."""

import calendar
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...

    def monotonic_us(self) -> int:
        """Microseconds since some fixed instant of this process's machine."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """As the protocol says."""
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        """As the protocol says."""
        return time.monotonic_ns() // 1000


class Stamps:
    """RFC 3339 texts with six digits, UTC; the second's text is computed once."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def text(self, wall_us: int) -> str:
        """`2026-11-20T14:02:11.123456Z`"""
        second, micros = divmod(wall_us, 1_000_000)
        if second != self._second:
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._prefix}.{micros:06d}Z"


def parse_stamp(text: str) -> int:
    """Microseconds since the Unix epoch of a text made by `Stamps`; raises ValueError when there is no such instant."""
    fields = time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    return calendar.timegm(fields) * 1_000_000 + int(text[20:26])
