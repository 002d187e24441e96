"""A reply that is one JSON value: what it used stands in one of its members, wherever that is."""

from proxy.usage.counts import Impossible, read_counts, tokens_of
from proxy.usage.finder import Finder
from rules.catalogue.usage import Usage
from rules.prices.tokens import Tokens


class WholeTap:
    """A `Tap`."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._finder = Finder(usage.reply or ())

    @property
    def held(self) -> int:
        """Of the member."""
        return self._finder.held

    def feed(self, data: bytes) -> None:
        """This passes now."""
        self._finder.feed(data)

    def tell(self, *, whole: bool) -> Tokens | None:
        """What was used; None before the value is whole: until then it may be said twice."""
        found = self._finder.end() if whole else None
        if found is None:
            return None
        try:
            return tokens_of(read_counts(found, self._usage.counts or {}), self._usage)
        except Impossible:
            return None

    def give_up(self) -> None:
        """Nothing is known, and nothing is kept."""
        self._finder = Finder(())
