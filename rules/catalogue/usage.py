"""What a tool's calls use, as data: what the request says at most, and where the reply says how much it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rules.conditions.condition import Expression, compile_expression

type Path = tuple[str, ...]
"""Keys of JSON objects inside each other."""


@dataclass(frozen=True)
class Usage:
    """Of tokens. Expressions are compiled when they are first asked."""

    model_text: str | None = None
    tiers_text: str | None = None
    most_text: str | None = None
    times_text: str | None = None
    elsewhere_text: str | None = None
    hidden: int = 0
    """Tokens that the service has the model read beside what it is sent."""
    reply: Path | None = None
    """The object of a reply's JSON that has the counts."""
    events: tuple[Path, ...] = ()
    """The objects of events' JSON that have them; of a later one in a stream each count replaces that of an earlier.
    The last of these paths is the one that completes them."""
    done: frozenset[str] = frozenset()
    """Events after which nothing is missing: their type, or the whole of their data. Empty: the last path says all."""
    counts: Mapping[str, Path] | None = None
    """Kind of tokens to the path of its count, from the object on."""
    inside: Mapping[str, str] | None = None
    """Kinds that another kind's count has in it."""
    headers: Mapping[str, str] | None = None
    """Kind of tokens to the header of the reply that has its count, in place of the body."""
    free: frozenset[int] = frozenset()
    """Statuses of replies that cost nothing, beside those that refuse the request (4xx)."""

    @cached_property
    def model(self) -> Expression | None:
        """Which model is asked."""
        return _compiled(self.model_text)

    @cached_property
    def tiers(self) -> Expression | None:
        """At which tiers of service: a text, or a list of texts."""
        return _compiled(self.tiers_text)

    @cached_property
    def most(self) -> Expression | None:
        """How many tokens an answer may have."""
        return _compiled(self.most_text)

    @cached_property
    def times(self) -> Expression | None:
        """How many answers are asked for."""
        return _compiled(self.times_text)

    @cached_property
    def elsewhere(self) -> Expression | None:
        """Whether the model reads what does not stand in the request."""
        return _compiled(self.elsewhere_text)


def _compiled(text: str | None) -> Expression | None:
    return None if text is None else compile_expression(text)
