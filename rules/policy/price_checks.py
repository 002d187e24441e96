"""What must hold between a policy and its price books: that those it names are there, and have something to count."""

from collections.abc import Iterator

from rules.catalogue.catalogue import Catalogue
from rules.policy import values
from rules.policy.finding import Finding
from rules.policy.models import TenantDocument
from rules.prices.library import Library


def check_prices(document: TenantDocument, catalogue: Catalogue, library: Library) -> Iterator[Finding]:
    """Every finding in what connections say of their prices."""
    for name, connection in document.connections.items():
        price = connection.price
        if not isinstance(price, values.Booked):
            continue
        at = ("connections", name, "price")
        if library.named(price.book) is None:
            fix = f"{values.suggest(price.book, library.names)} Or put a file with prices: 1 beside the policy"
            yield Finding(at, f"book: there is no price book {price.book}", fix)
        known = catalogue.of(name, connection.host, connection.service)
        if known is None or not any(tool.usage is not None for tool in known.tools.values()):
            message = "book: it is not known what calls of this service use"
            yield Finding(at, message, "write what one call costs, or usage: in a file of the catalogue")


def currency_of(price: values.Money | values.Booked | None, library: Library) -> str | None:
    """In which currency calls cost something; None: they cost nothing."""
    if isinstance(price, values.Booked):
        book = library.named(price.book)
        return None if book is None else book.currency
    return None if price is None or price.micros == 0 else price.currency
