"""How many tokens a call used, by what they cost."""

from dataclasses import dataclass
from typing import Final

KINDS: Final = ("input", "cached", "cache_write", "cache_write_1h", "output")
"""Kinds of tokens with prices of their own."""
MAX_COUNT: Final = 2**40
"""More than any model could read or write in years: a larger count is none."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counted once each: what was read from a cache is no `input`."""

    input: int = 0
    """Read by the model, and neither read from a cache nor written to one."""
    cached: int = 0
    """Read from the vendor's cache."""
    cache_write: int = 0
    """Read, and written to the vendor's cache."""
    cache_write_1h: int = 0
    """The same, to be kept for long."""
    output: int = 0
    """Written by the model, what it thought included."""

    @property
    def read(self) -> int:
        """All that the model read."""
        return self.input + self.cached + self.cache_write + self.cache_write_1h

    @property
    def total(self) -> int:
        """All of them."""
        return self.read + self.output
