"""What a tool does to what it touches."""

from typing import Final, Literal

type Effect = Literal["read", "write", "delete"]

READ: Final = "read"
WRITE: Final = "write"
DELETE: Final = "delete"
EFFECTS: Final[tuple[Effect, ...]] = ("read", "write", "delete")
"""The worse, the later."""

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110 section 9.2.1: safe, as far as the service keeps to it. Any other method may write."""


def of_method(method: str) -> Effect:
    """What a method does where no catalogue says better; an unknown one is a write."""
    if method in READING:
        return "read"
    return "delete" if method == "DELETE" else "write"


def worst(effects: "tuple[Effect, ...]") -> Effect:
    """The worst of them; a write when there are none: what is not known is a write."""
    return max(effects, key=EFFECTS.index, default="write")
