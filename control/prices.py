"""What price books say, as operators are shown it."""

from datetime import date
from pathlib import Path
from typing import Final

from control.codec import Json
from control.operations import Refused
from control.policies import check_policy
from rules.policy.values import Money, suggest
from rules.prices.book import Book, Price, Rates
from rules.prices.library import BUILTIN, NOTHING_ADDED, Library, library_of
from rules.prices.tokens import KINDS

_SHOWN: Final = 128


def library_at(policy: Path | None) -> Library:
    """What comes with Exeat, with what a policy adds. Raises `PolicyRefused` for a policy that is not valid."""
    return NOTHING_ADDED if policy is None else library_of(check_policy(policy).source.books)


def book_named(name: str, library: Library) -> Book:
    """The book of that name. Raises `Refused` with the nearest one."""
    book = library.named(name)
    if book is None:
        shown = name[:_SHOWN] if name.isprintable() else "of that name"
        raise Refused(f"there is no price book {shown}", suggest(name, library.names))
    return book


def origin_of(name: str, library: Library) -> str:
    """Where a book is written: `built in`, `policy`, or both."""
    if not any(document.book == name for document in library.documents):
        return "built in"
    return "built in, policy" if name in BUILTIN else "policy"


def prices_of(book: Book, day: date) -> dict[str, Price]:
    """What each model costs on a day; one that costs nothing yet is left out."""
    found = {}
    for name, prices in book.models.items():
        current = next((price for price in prices if price.since is None or price.since <= day), None)
        if current is not None:
            found[name] = current
    return found


def book_view(book: Book, library: Library) -> dict[str, Json]:
    """A book as a whole, without its models."""
    return {
        "book": book.name,
        "from": origin_of(book.name, library),
        "currency": book.currency,
        "digest": book.digest,
        "read": None if book.read is None else book.read.isoformat(),
        "source": book.source,
        "models": len(book.models),
    }


def price_view(name: str, price: Price) -> dict[str, Json]:
    """What one model costs, in micro-units for a million tokens."""
    return {
        "model": name,
        "since": None if price.since is None else price.since.isoformat(),
        "micros": _rates_view(price.rates),
        "long": None if price.long is None else {"above": price.above, "micros": _rates_view(price.long)},
        "context": price.context,
        "most": price.most,
    }


def _rates_view(rates: Rates) -> dict[str, Json]:
    return {kind: getattr(rates, kind) for kind in KINDS}


def price_row(name: str, rates: Rates, currency: str) -> tuple[str, ...]:
    """For people: without the currency, which is the whole book's."""
    return (name, *(str(Money(getattr(rates, kind), currency)).partition(" ")[0] for kind in KINDS))
