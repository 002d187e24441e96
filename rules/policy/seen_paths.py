"""Paths that were seen, as few templates: what is an identifier, or differs like one, becomes a parameter.

Where in doubt the paths stay apart. A template opens every value of its parameter, a path that was left out only asks
for a rule more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from rules.policy.templates import PARAMETER, Parameter

MANY_WORDS: Final = 8
"""So many plain words at one place may be names of collections; more are names of things."""
MANY_NAMES: Final = 1
"""What is no plain word (`acme2`, `T0AB`, `report.pdf`) names a thing as soon as there are two."""

# Plain words, and versions of an API, which stand beside one another as words do.
_WORD: Final = re.compile(r"[A-Za-z]+(?:[-_.:][A-Za-z]+)*|[vV][0-9]+(?:[._-]?[a-z0-9]+)?", re.ASCII)
_IDENTIFIER: Final = re.compile(
    r"[0-9]+"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}"
    r"|[^@]*@[^@]*"
    r"|[a-z]{1,8}_(?=[A-Za-z0-9]*[0-9A-Z])[A-Za-z0-9]{8,}"
    r"|(?=[A-Z]*[0-9])[A-Z0-9]{8,}"
    r"|(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_-]{16,}"
    r"|(?=[A-Z_-]*[a-z])(?=[a-z_-]*[A-Z])(?![A-Za-z]*[_-])[A-Za-z]{24,}",
)


def is_identifier(segment: str) -> bool:
    """Whether the segment is one by its shape alone: a number, a UUID, a mail address, a long token."""
    return _IDENTIFIER.fullmatch(segment) is not None


class Merging(Protocol):
    """What is counted of each path."""

    def merge(self, other: Self) -> None:
        """This counts also what the other did."""
        ...


@dataclass(slots=True)
class SeenPaths[T: Merging]:
    """Paths, and what is counted of each with each method. Its size depends on how many templates there are."""

    literals: "dict[str, SeenPaths[T]]" = field(default_factory=dict)
    parameter: "SeenPaths[T] | None" = None
    ends: dict[str, T] = field(default_factory=dict)
    """By method."""
    top: bool = False
    """The first segment of a path: it is said by its shape alone to be a parameter, never because it differs."""
    _open: set[bool] = field(default_factory=set)
    """Whether words (True), or what is none (False), are parameters here."""

    def add(self, segments: tuple[str, ...], method: str, seen: T) -> None:
        """One call more, of decoded segments."""
        if not segments:
            self._end(method, seen)
            return
        self._below(segments[0]).add(segments[1:], method, seen)
        self._settle()

    def templates(
        self, before: tuple[str | Parameter, ...] = ()
    ) -> Iterator[tuple[tuple[str | Parameter, ...], dict[str, T]]]:
        """The templates' segments, in order, with what was counted of them."""
        if self.ends:
            yield before, self.ends
        for segment in sorted(self.literals):
            yield from self.literals[segment].templates((*before, segment))
        if self.parameter is not None:
            yield from self.parameter.templates((*before, PARAMETER))

    def _below(self, segment: str) -> "SeenPaths[T]":
        if segment != "" and (is_identifier(segment) or _is_word(segment) in self._open):
            return self._any()
        return self.literals.setdefault(segment, SeenPaths())

    def _any(self) -> "SeenPaths[T]":
        if self.parameter is None:
            self.parameter = SeenPaths()
        return self.parameter

    def _end(self, method: str, seen: T) -> None:
        if method in self.ends:
            self.ends[method].merge(seen)
        else:
            self.ends[method] = seen

    def _settle(self) -> None:
        """What differs too often is a parameter from now on."""
        if self.top:
            return
        for words, many in ((True, MANY_WORDS), (False, MANY_NAMES)):
            alike = [segment for segment in self.literals if segment != "" and _is_word(segment) is words]
            if words in self._open or len(alike) > many:
                self._open.add(words)
                for segment in alike:
                    self._any().take(self.literals.pop(segment))

    def take(self, other: "SeenPaths[T]") -> None:
        """Everything of another is here too."""
        self._open |= other._open
        for method, seen in other.ends.items():
            self._end(method, seen)
        for segment, below in other.literals.items():
            self.literals.setdefault(segment, SeenPaths()).take(below)
        if other.parameter is not None:
            self._any().take(other.parameter)
        self._settle()


def _is_word(segment: str) -> bool:
    return _WORD.fullmatch(segment) is not None
