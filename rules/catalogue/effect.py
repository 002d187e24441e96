"""What a tool does to what it touches."""

from typing import Final, Literal

type Effect = Literal["read", "write", "delete"]

READ: Final = "read"
WRITE: Final = "write"
DELETE: Final = "delete"
EFFECTS: Final[tuple[Effect, ...]] = ("read", "write", "delete")
"""The worse, the later."""


def worst(effects: "tuple[Effect, ...]") -> Effect:
    """The worst of them; a write when there are none: what is not known is a write."""
    return max(effects, key=EFFECTS.index, default="write")
