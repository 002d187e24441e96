"""The price books of a policy: what comes with Exeat, and what the policy adds to it or says otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

from pydantic import ValidationError

from rules.policy.reading import read
from rules.prices.book import Book
from rules.prices.document import BookDocument, price_book

BUILTIN: Final = ("anthropic", "openai")
"""A new one is one file in `books/`, and its name here."""


@cache
def builtin_document(name: str) -> BookDocument | None:
    """The file of the built-in book of that name; None when there is none."""
    if name not in BUILTIN:
        return None
    file = resources.files("rules.prices") / "books" / f"{name}.yaml"
    reading, errors = read(file.read_bytes(), file.name)
    if reading is None or errors:
        raise RuntimeError(f"{file.name} in this installation is damaged: {errors}")
    try:
        return BookDocument.model_validate(reading.data)
    except ValidationError as error:
        raise RuntimeError(f"{file.name} in this installation is damaged: {error}") from error


@cache
def builtin(name: str) -> Book | None:
    """The built-in book of that name; None when there is none."""
    document = builtin_document(name)
    return None if document is None else price_book(document)


@dataclass(frozen=True)
class Library:
    """The books that connections of a policy can be priced by."""

    documents: tuple[BookDocument, ...] = ()
    """Those in the policy's files, by name."""
    _books: dict[str, Book] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_books", {d.book: price_book(whole(d)) for d in self.documents})

    @property
    def names(self) -> tuple[str, ...]:
        """Of all books in it."""
        return tuple(sorted({*BUILTIN, *self._books}))

    def named(self, name: str) -> Book | None:
        """The book of that name, with what the policy adds."""
        return self._books.get(name) or builtin(name)


def whole(document: BookDocument) -> BookDocument:
    """A policy's file with what is built in under its name: models and tiers beside and in place of those. Raises
    `ValueInvalid` for currencies that do not go together."""
    base = builtin_document(document.book)
    if base is None:
        return document
    return BookDocument.model_validate(
        {
            **base.model_dump(mode="json", exclude_none=True),
            **document.model_dump(mode="json", exclude_none=True, exclude_unset=True),
            "tiers": _dumped(base)["tiers"] | _dumped(document)["tiers"],
            "models": _dumped(base)["models"] | _dumped(document)["models"],
        }
    )


def _dumped(document: BookDocument) -> dict[str, dict[str, object]]:
    dumped: dict[str, dict[str, object]] = document.model_dump(mode="json", exclude_none=True)
    return dumped


def library_of(documents: Iterable[BookDocument]) -> Library:
    """The library with these files."""
    return Library(tuple(sorted(documents, key=lambda document: document.book)))


NOTHING_ADDED: Final = Library()
"""What comes with Exeat, alone."""
