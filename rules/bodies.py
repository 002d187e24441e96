"""What a rule wants done with the bodies of the calls that it allows."""

from dataclasses import dataclass
from typing import Final

_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))
"""Exact, never rounded: two sizes that differ must not look alike in a policy's difference."""


@dataclass(frozen=True, slots=True)
class Handling:
    """How a request's body is treated on its way through the gate."""

    inspect: bool = False
    """The rule reads the body: it has to decode in exactly one way, and what was decoded is what is sent."""
    stream_bytes: int | None = None
    """A body longer than what is held is streamed, up to so many bytes; None: it is refused."""

    @property
    def described(self) -> str:
        """For people: in a policy's difference, in an explanation."""
        if self.stream_bytes is not None:
            unit, word = next((u, w) for u, w in _UNITS if self.stream_bytes % u == 0)
            return f"streamed up to {self.stream_bytes // unit} {word}"
        return "inspected" if self.inspect else "held"


HELD: Final = Handling()
"""Held whole, digested before the intent, and sent as it came."""
INSPECTED: Final = Handling(inspect=True)
