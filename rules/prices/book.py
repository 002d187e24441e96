"""A price book: what the tokens of a vendor's models cost. Whole micro-units, rounded up, never a float.

A model that the book does not have costs as much as the dearest that it has, kind by kind: a cap that counts nothing
for a new model would be none. So does a tier of service that it does not have.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Final

from rules.prices.tokens import KINDS, Tokens

MILLION: Final = 1_000_000
WHOLE: Final = 100
"""Percent."""
_SNAPSHOT: Final = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})", re.ASCII)
"""A model's name with a day behind it is the model as it was then: `gpt-4o-2024-08-06`, `claude-opus-4-5-20251101`."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-units for a million tokens of each kind."""

    input: int
    cached: int
    cache_write: int
    cache_write_1h: int
    output: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs from a day on."""

    since: date | None
    """None: as long as anybody remembers."""
    rates: Rates
    above: int | None = None
    """More input than this, and the whole call costs `long`."""
    long: Rates | None = None
    context: int | None = None
    """Tokens that it can read at most; None: nobody says."""
    most: int | None = None
    """Tokens that it can write at most; None: nobody says."""

    def rates_of(self, read: int) -> Rates:
        """What a call that read so many tokens pays."""
        return self.long if self.long is not None and self.above is not None and read > self.above else self.rates


@dataclass(frozen=True)
class Book:
    """The prices of one vendor."""

    name: str
    currency: str
    digest: str
    """`sha256:` and 64 hex digits over its canonical JSON: what records name it by."""
    models: Mapping[str, tuple[Price, ...]]
    """By name, the newest first; a name that ends in `*` is the beginning of names."""
    tiers: Mapping[str, int]
    """What a tier of service costs, in percent of these prices."""
    source: str | None = None
    """Where the vendor says so."""
    read: date | None = None
    """The day on which somebody read it there."""
    _beginnings: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        beginnings = sorted((name[:-1] for name in self.models if name.endswith("*")), key=len, reverse=True)
        object.__setattr__(self, "_beginnings", tuple(beginnings))

    def entry(self, model: str | None) -> str | None:
        """The name under which the book has a model; None where it has none."""
        if model is None:
            return None
        if model in self.models and not model.endswith("*"):
            return model
        dated = _SNAPSHOT.search(model, max(0, len(model) - 11))
        if dated is not None and dated.end() == len(model) and model[: dated.start()] in self.models:
            return model[: dated.start()]
        return next((f"{begins}*" for begins in self._beginnings if model.startswith(begins)), None)

    def price(self, model: str | None, day: date) -> Price:
        """What a model costs on a day; of one that the book has not, what the dearest would."""
        entry = self.entry(model)
        if entry is not None:
            for price in self.models[entry]:
                if price.since is None or price.since <= day:
                    return price
        return _dearest(self, day)

    def cost(self, model: str | None, tokens: Tokens, tiers: Iterable[str], day: date) -> int:
        """What a call costs, in micro-units of the book's currency, rounded up."""
        rates = self.price(model, day).rates_of(tokens.read)
        total: int = sum(getattr(tokens, kind) * getattr(rates, kind) for kind in KINDS)
        divisor = MILLION
        for tier in tiers:
            total *= self.percent(tier)
            divisor *= WHOLE
        return -(-total // divisor)

    def most(self, model: str | None, read: int, written: int, tiers: Iterable[str], day: date) -> int:
        """What a call can cost at most that reads and writes no more than so many tokens."""
        rates = self.price(model, day).rates_of(read)
        dearest = max((kind for kind in KINDS if kind != "output"), key=lambda kind: getattr(rates, kind))
        return self.cost(model, Tokens(**{dearest: read, "output": written}), tiers, day)

    def percent(self, tier: str) -> int:
        """What a tier of service costs in percent; of one that the book has not, what the dearest would."""
        found = self.tiers.get(tier)
        return max((*self.tiers.values(), WHOLE)) if found is None else found


@lru_cache(maxsize=256)
def _dearest_of(book: str, prices: tuple[Price, ...], day: date) -> Price:
    """Kind by kind, whatever the model reads. `book` is its digest."""
    rates = [r for price in prices for r in (price.rates, price.long) if r is not None]
    return Price(None, Rates(**{kind: max(getattr(one, kind) for one in rates) for kind in KINDS}))


def _dearest(book: Book, day: date) -> Price:
    current = (
        next((price for price in prices if price.since is None or price.since <= day), prices[-1])
        for prices in book.models.values()
    )
    return _dearest_of(book.digest, tuple(current), day)
