"""What a rule wants done with the bodies of the calls that it allows."""

from dataclasses import dataclass
from typing import Final


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
            return f"streamed up to {self.stream_bytes // (1 << 20)} MiB"
        return "inspected" if self.inspect else "held"


HELD: Final = Handling()
"""Held whole, digested before the intent, and sent as it came."""
INSPECTED: Final = Handling(inspect=True)
