"""docs/reference/prices.md: its example is valid, no key is left out, and the built-in books are these."""

import re
from datetime import date
from pathlib import Path

import pytest

from rules.policy.reading import read
from rules.prices.document import BookDocument, LongDocument, PriceDocument, RatesDocument, price_book
from rules.prices.library import BUILTIN, builtin
from rules.prices.tokens import Tokens

DOC = (Path(__file__).parents[2] / "docs" / "reference" / "prices.md").read_text()


def test_the_example_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", DOC, re.M | re.S)
    reading, errors = read(text.encode(), "ours.yaml")
    assert reading is not None
    assert not errors
    book = price_book(BookDocument.model_validate(reading.data))
    assert book.cost("large", Tokens(input=200_001), (), date(2026, 12, 1)) == 800_004
    assert book.cost("large", Tokens(input=200_001), (), date(2026, 11, 30)) == 500_003


@pytest.mark.parametrize(("title", "document"), [("A book", BookDocument), ("A price", PriceDocument)])
def test_every_key_is_explained(title: str, document: type) -> None:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", DOC, re.M | re.S)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M))
    assert list(rows) == list(document.model_fields)  # type: ignore[attr-defined]


def test_a_long_call_has_the_same_prices() -> None:
    assert {*LongDocument.model_fields} == {*RatesDocument.model_fields, "above"}


def test_the_built_in_books_are_listed() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\S+) \| (\d+) \| <(\S+)> \|$", DOC, re.M)
    books = [book for name in BUILTIN if (book := builtin(name)) is not None]
    assert rows == [(b.name, b.currency, str(b.read), str(len(b.models)), b.source) for b in books]
