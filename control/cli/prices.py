"""`exeat prices`: what the tokens of models cost, by the books that connections are charged by."""

from datetime import UTC, datetime
from pathlib import Path

import click

from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options
from control.codec import Json
from control.operations import PolicyRefused
from control.prices import book_named, book_view, library_at, origin_of, price_row, price_view, prices_of
from rules.prices.library import Library
from rules.prices.tokens import KINDS

_policy = click.option(
    "--policy", "path", type=click.Path(path_type=Path), metavar="PATH", help="With the price books of this policy."
)


@click.group(short_help="List price books, and what models cost.")
def prices() -> None:
    """List the price books that connections can be charged by, and what models cost by them.

    docs/reference/prices.md has the format of a book.
    """


@prices.command("list", short_help="List the price books that are known.")
@_policy
@command_options
def list_command(invocation: Invocation, *, path: Path | None) -> None:
    """List the price books that are known: their currencies, and when each was read from where."""
    library = _library(path)
    books = [book_named(name, library) for name in library.names]
    document: Json = {"books": [book_view(book, library) for book in books]}
    rows: list[tuple[str, ...]] = [("BOOK", "MODELS", "CURRENCY", "READ ON", "FROM", "SOURCE")]
    rows += [
        (
            book.name,
            str(len(book.models)),
            book.currency,
            "-" if book.read is None else book.read.isoformat(),
            origin_of(book.name, library),
            book.source or "-",
        )
        for book in books
    ]
    invocation.answer(document, columns(rows))


@prices.command("show", short_help="Show what models cost by a price book.")
@click.argument("name", metavar="BOOK")
@_policy
@command_options
def show_command(invocation: Invocation, name: str, *, path: Path | None) -> None:
    """Show what models cost today by a price book (openai): for a million tokens of each kind.

    Exit code 1 when there is none of that name.
    """
    library = _library(path)
    book = book_named(name, library)
    current = prices_of(book, datetime.now(UTC).date())
    tiers: dict[str, Json] = dict(book.tiers)
    models: list[Json] = [price_view(model, price) for model, price in current.items()]
    document: Json = {**book_view(book, library), "tiers": tiers, "prices": models}
    rows: list[tuple[str, ...]] = [("MODEL", *(kind.upper() for kind in KINDS))]
    for model, price in current.items():
        rows.append(price_row(model, price.rates, book.currency))
        if price.long is not None:
            rows.append(price_row(f"  above {price.above} read", price.long, book.currency))
    lines = [
        f"{book.name}  {book.currency} for a million tokens  ({origin_of(name, library)})",
        f"  digest {book.digest}",
    ]
    lines += [f"  read {book.read}"] if book.read is not None else []
    lines += [f"  source {book.source}"] if book.source is not None else []
    lines += [f"  tier {tier}: {percent}%" for tier, percent in book.tiers.items() if percent != 100]
    lines += [columns(rows), "any other model costs what the dearest of these does"]
    invocation.answer(document, "\n".join(lines))


def _library(path: Path | None) -> Library:
    try:
        return library_at(path)
    except PolicyRefused as refused:
        raise Trouble(f"{path} is not valid: {refused}", f"Look closer: exeat check {path}", Exit.NO) from refused
