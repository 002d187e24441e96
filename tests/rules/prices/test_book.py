"""What a book says that tokens cost: whole micro-units, rounded up, and never nothing for what it does not know."""

from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rules.policy.reading import read
from rules.prices.book import Book
from rules.prices.document import BookDocument, digest, price_book
from rules.prices.library import BUILTIN, builtin, builtin_document, library_of
from rules.prices.tokens import KINDS, Tokens

TODAY = date(2026, 11, 25)
BOOK = """
prices: 1
book: ours
read: 2026-11-01
tiers: {plain: 100%, quick: 250%, slow: 50%}
models:
  small: {input: 0.15 USD, cached: 0.075 USD, output: 0.60 USD, context: 1000, most: 100}
  small-pro: {input: 3 USD, output: 12 USD}
  old:
    - {input: 10 USD, output: 20 USD}
    - {since: 2026-11-25, input: 5 USD, output: 10 USD}
  long: {input: 1 USD, output: 2 USD, cache_write: 1.25 USD, long: {above: 1000, input: 2 USD, output: 3 USD}}
  team-*: {input: 4 USD, output: 4 USD}
  team-a*: {input: 6 USD, output: 6 USD}
"""


def document(text: str) -> BookDocument:
    reading, errors = read(text.encode(), "book.yaml")
    assert reading is not None
    assert not errors
    return BookDocument.model_validate(reading.data)


def book(text: str = BOOK) -> Book:
    return price_book(document(text))


OURS = book()
COUNTS = st.integers(0, 2**40)
TOKENS = st.builds(Tokens, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)


@pytest.mark.parametrize(
    ("model", "tokens", "tiers", "micros"),
    [
        ("small", Tokens(input=1_000_000), (), 150_000),
        ("small", Tokens(input=1), (), 1),
        ("small", Tokens(), (), 0),
        ("small", Tokens(input=10, cached=10, output=10), (), 9),  # 1.5 + 0.75 + 6 = 8.25
        ("small", Tokens(cache_write=1_000_000), (), 150_000),  # as input, where no price of its own is written
        ("small", Tokens(input=1_000_000), ("quick",), 375_000),
        ("small", Tokens(input=1_000_000), ("slow",), 75_000),
        ("small", Tokens(input=1_000_000), ("quick", "slow"), 187_500),
        ("small", Tokens(input=1_000_000), ("a tier of tomorrow",), 375_000),
        ("small-2026-01-31", Tokens(input=1_000_000), (), 150_000),
        ("small-20260131", Tokens(input=1_000_000), (), 150_000),
        ("small-pro", Tokens(input=1_000_000), (), 3_000_000),
        ("small-audio", Tokens(input=1_000_000), (), 6_000_000),  # no model of the book: the dearest of each kind
        ("small-audio", Tokens(output=1_000_000), (), 12_000_000),
        (None, Tokens(output=1_000_000), (), 12_000_000),
        ("old", Tokens(output=1_000_000), (), 10_000_000),
        ("long", Tokens(input=1000, output=1_000_000), (), 2_001_000),
        ("long", Tokens(input=900, cached=100, cache_write=1, output=1_000_000), (), 3_002_002),
        ("team-b", Tokens(input=1_000_000), (), 4_000_000),
        ("team-ab", Tokens(input=1_000_000), (), 6_000_000),
        ("team-*", Tokens(input=1_000_000), (), 4_000_000),
    ],
)
def test_what_tokens_cost(model: str | None, tokens: Tokens, tiers: tuple[str, ...], micros: int) -> None:
    assert OURS.cost(model, tokens, tiers, TODAY) == micros


def test_a_price_holds_from_its_day_on() -> None:
    assert OURS.cost("old", Tokens(input=1_000_000), (), date(2026, 11, 24)) == 10_000_000
    assert OURS.cost("old", Tokens(input=1_000_000), (), date(2026, 11, 25)) == 5_000_000


def test_a_model_that_has_no_price_yet_costs_what_the_dearest_does() -> None:
    early = book("prices: 1\nbook: b\nmodels: {a: {input: 1 USD}, z: {since: 2027-01-01, input: 7 USD}}")
    assert early.cost("z", Tokens(input=1_000_000), (), TODAY) == 7_000_000
    assert early.cost("a", Tokens(input=1_000_000), (), TODAY) == 1_000_000


@given(
    st.sampled_from([*OURS.models, "unknown", None]),
    TOKENS,
    st.lists(st.sampled_from(["quick", "slow", "?"]), max_size=2),
)
def test_the_exact_cost_is_rounded_up_and_never_down(model: str | None, tokens: Tokens, tiers: list[str]) -> None:
    rates = OURS.price(model, TODAY).rates_of(tokens.read)
    exact = Fraction(sum(getattr(tokens, kind) * getattr(rates, kind) for kind in KINDS), 1_000_000)
    for tier in tiers:
        exact *= Fraction(OURS.percent(tier), 100)
    cost = OURS.cost(model, tokens, tiers, TODAY)
    assert exact <= cost < exact + 1
    assert (cost == 0) == (tokens.total == 0)


@given(st.sampled_from([*OURS.models, "unknown"]), TOKENS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_set_aside_covers_whatever_kinds_the_tokens_turn_out_to_be(
    model: str, tokens: Tokens, more_read: int, more_written: int
) -> None:
    most = OURS.most(model, tokens.read + more_read, tokens.output + more_written, ("quick",), TODAY)
    assert most >= OURS.cost(model, tokens, ("quick",), TODAY)


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_book_says_where_and_when_it_was_read(name: str) -> None:
    found = builtin(name)
    assert found is not None
    assert found.source is not None
    assert found.read is not None
    assert found.read <= TODAY
    assert found.currency == "USD"
    for prices in found.models.values():
        for price in prices:
            for rates in filter(None, (price.rates, price.long)):
                assert 0 < rates.cached <= rates.input <= rates.cache_write <= rates.cache_write_1h
                assert rates.output >= rates.input or price.most == 1
            assert price.long is None or price.long.input > price.rates.input


def test_the_digest_is_of_what_a_book_says_and_of_nothing_else() -> None:
    same = BOOK.replace("{plain: 100%, quick: 250%, slow: 50%}", "{slow: 50%, quick: 250%, plain: 100%}")
    assert digest(document(same)) == digest(document(BOOK)) == OURS.digest
    assert digest(document(BOOK.replace("0.15 USD", "0.16 USD"))) != OURS.digest
    assert OURS.digest.startswith("sha256:")


def test_a_policys_book_adds_to_the_one_that_is_built_in() -> None:
    added = document(
        "prices: 1\nbook: openai\nmodels: {ft-ours: {input: 9 USD, output: 9 USD}, gpt-4o: {input: 1 USD}}"
    )
    library = library_of([added])
    found, base = library.named("openai"), builtin("openai")
    assert found is not None
    assert base is not None
    assert found.digest != base.digest
    assert found.cost("ft-ours", Tokens(input=1_000_000), (), TODAY) == 9_000_000
    assert found.cost("gpt-4o", Tokens(input=1_000_000), (), TODAY) == 1_000_000
    assert found.cost("gpt-4.1", Tokens(input=1_000_000), (), TODAY) == 2_000_000
    assert found.tiers == base.tiers
    assert library.named("anthropic") is builtin("anthropic")
    assert library.named("nobody") is None


def test_a_book_in_another_currency_is_no_part_of_a_built_in_one() -> None:
    with pytest.raises(ValidationError, match="several currencies"):
        library_of([document("prices: 1\nbook: openai\nmodels: {ours: {input: 9 EUR}}")])


@pytest.mark.parametrize(
    "models",
    [
        "{a: {input: 1 USD, output: 1 EUR}}",
        "{a: [{input: 1 USD}, {input: 2 USD}]}",
        "{a: {input: -1 USD}}",
        "{a: {input: 1}}",
        "{a: {output: 1 USD}}",
        "{'a b': {input: 1 USD}}",
        "{a: {input: 1 USD, long: {input: 2 USD}}}",
        "{}",
        "{a: {input: 1 USD, since: yesterday}}",
        "{a: []}",
    ],
)
def test_what_cannot_be_a_book_is_refused(models: str) -> None:
    with pytest.raises(ValidationError):
        document(f"prices: 1\nbook: b\nmodels: {models}")


def test_a_built_in_book_written_out_is_the_same_book() -> None:
    for name in BUILTIN:
        base = builtin_document(name)
        assert base is not None
        again = BookDocument.model_validate(base.model_dump(mode="json", exclude_none=True, exclude_unset=True))
        assert digest(again) == digest(base)
