"""What the benchmark needs of a peer."""

from dataclasses import dataclass
from typing import Protocol

from benchmarks.load import Target
from benchmarks.place import Child, Place


@dataclass(frozen=True, slots=True)
class Running:
    """A started peer."""

    child: Child
    """Whose processor time and memory are read."""
    target: Target


class Missing(Exception):
    """The peer is not installed here; says how it could be."""


class Peer(Protocol):
    """Something that a call can go through."""

    @property
    def name(self) -> str:
        """Short, for `--only` and the JSON."""
        ...

    @property
    def title(self) -> str:
        """What the table calls it: with what it does and does not do."""
        ...

    def version(self) -> str:
        """As it says itself; raises `Missing` where it is not installed."""
        ...

    def start(self, place: Place) -> Running:
        """It is ready for calls. Raises `PeerFailed`."""
        ...
