"""The format of price books: one book a file. pydantic stays here; `price_book` makes it what calls are priced by."""

import hashlib
import json
import re
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)
from pydantic.json_schema import WithJsonSchema

from rules.policy import values
from rules.policy.invalid import ValueInvalid
from rules.prices.book import Book, Price, Rates
from rules.prices.tokens import KINDS

MAX_MODELS: Final = 2000
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,126}\*?", re.ASCII)
_PERCENT: Final = re.compile(r"([1-9][0-9]{0,3})%", re.ASCII)
_TIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def _parse_day(value: object) -> date:
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueInvalid("not a day", "write it as in 2026-12-31")


def _parse_percent(value: object) -> int:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueInvalid("not a part of a price", "write it in whole percent, as in 200%")
    return int(match[1])


def _check_model(value: str) -> str:
    if not _MODEL.fullmatch(value):
        raise ValueInvalid("not the name of a model", "write it as requests do, or its beginning with a * behind it")
    return value


def _check_tier(value: str) -> str:
    if not _TIER.fullmatch(value):
        raise ValueInvalid("not the name of a tier", "write it as requests do, as in priority")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


Amount = Annotated[
    values.Money,
    PlainValidator(values.parse_money),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.MONEY}$", "examples": ["2.50 USD"]}),
]
Day = Annotated[date, PlainValidator(_parse_day), PlainSerializer(date.isoformat, return_type=str)]
Percent = Annotated[int, PlainValidator(_parse_percent), PlainSerializer(lambda part: f"{part}%", return_type=str)]
Count = Annotated[int, Field(ge=1, le=100_000_000)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class RatesDocument(_Document):
    """What a million tokens cost."""

    input: Amount = Field(description="Tokens that the model reads.")
    cached: Amount | None = Field(default=None, description="Those read from the vendor's cache; as input if left out.")
    cache_write: Amount | None = Field(default=None, description="Those written to it; as input if left out.")
    cache_write_1h: Amount | None = Field(
        default=None, description="Those written to it for long; as cache_write if left out."
    )
    output: Amount | None = Field(default=None, description="Tokens that it writes; as input if left out.")


class LongDocument(RatesDocument):
    """What they cost in a call that reads much."""

    above: Count = Field(description="More input tokens than this, and the whole call costs this.")


class PriceDocument(RatesDocument):
    """What a model costs from a day on."""

    since: Day | None = Field(default=None, description="The first day; always, if left out.")
    context: Count | None = Field(default=None, description="Tokens that the model can read at most.")
    most: Count | None = Field(default=None, description="Tokens that it can write at most.")
    long: LongDocument | None = Field(default=None, description="What calls cost that read much.")


class BookDocument(_Document):
    """One price book."""

    prices: Annotated[Literal[1], BeforeValidator(lambda value: str(value) if isinstance(value, bool) else value)] = (
        Field(description="Version of this format.")
    )
    book: Annotated[str, AfterValidator(values.check_name)] = Field(
        description="Its name; a built-in one adds to that."
    )
    source: str | None = Field(default=None, max_length=512, description="Where the vendor says so.")
    read: Day | None = Field(default=None, description="The day on which somebody read it there.")
    tiers: dict[Annotated[str, AfterValidator(_check_tier)], Percent] = Field(
        default={}, max_length=64, description="What tiers of service cost, in percent of these prices."
    )
    models: dict[
        Annotated[str, AfterValidator(_check_model)],
        Annotated[list[PriceDocument], BeforeValidator(_as_list), Field(min_length=1, max_length=32)],
    ] = Field(min_length=1, max_length=MAX_MODELS, description="By name; one price, or a list of them by day.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        currencies = {amount.currency for one in self.models.values() for price in one for amount in _amounts(price)}
        if len(currencies) > 1:
            raise ValueInvalid("prices in several currencies", "write one book for each currency")
        for name, prices in self.models.items():
            days = [price.since for price in prices]
            if len(set(days)) < len(days):
                raise ValueInvalid(f"models: {name[:64]}: two prices from the same day", "keep one of them")
        return self


def _amounts(price: RatesDocument) -> list[values.Money]:
    found = [getattr(price, kind) for kind in KINDS]
    if isinstance(price, PriceDocument) and price.long is not None:
        found += [getattr(price.long, kind) for kind in KINDS]
    return [amount for amount in found if amount is not None]


def price_book(document: BookDocument) -> Book:
    """The book that calls are priced by."""
    models = {
        name: tuple(sorted(map(_price, prices), key=lambda price: price.since or date.min, reverse=True))
        for name, prices in document.models.items()
    }
    first = next(iter(document.models.values()))[0]
    return Book(
        name=document.book,
        currency=first.input.currency,
        digest=digest(document),
        models=models,
        tiers=dict(document.tiers),
        source=document.source,
        read=document.read,
    )


def digest(document: BookDocument) -> str:
    """`sha256:` and 64 hex digits over the book as canonical JSON (RFC 8785); its names are ASCII."""
    data: dict[str, Any] = document.model_dump(mode="json", exclude_none=True)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _price(document: PriceDocument) -> Price:
    long = document.long
    return Price(
        since=document.since,
        rates=_rates(document),
        above=None if long is None else long.above,
        long=None if long is None else _rates(long),
        context=document.context,
        most=document.most,
    )


def _rates(document: RatesDocument) -> Rates:
    """Whatever has no price of its own costs as much as what it is a kind of: nothing is ever free by silence."""
    read = document.input.micros
    cached = read if document.cached is None else document.cached.micros
    written = read if document.cache_write is None else document.cache_write.micros
    long = written if document.cache_write_1h is None else document.cache_write_1h.micros
    return Rates(read, cached, written, long, read if document.output is None else document.output.micros)
