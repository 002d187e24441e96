"""How the catalogue says what a tool's calls use. pydantic stays here; `usage_of` makes it what counts calls."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rules.catalogue.usage import Path, Usage
from rules.conditions.condition import MAX_LENGTH, compile_expression
from rules.policy.invalid import ValueInvalid

_PATH: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,7}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}", re.ASCII)


def _check_path(value: str) -> str:
    if not _PATH.fullmatch(value):
        raise ValueInvalid("not a place in a reply", "write the keys to it, joined by dots, as in usage.input_tokens")
    return value


def check_place_in_reply(value: str) -> str:
    """A place in a reply's JSON, or one of its headers: `meta.rows`, `header X-Rows`."""
    kind, _, name = value.partition(" ")
    if kind == "header":
        _check_header(name)
    else:
        _check_path(value)
    return value


def place_in_reply(text: str) -> Path | str:
    """The keys to it, or the header's name in lower case."""
    return text.removeprefix("header ").lower() if text.startswith("header ") else _path(text)


def _check_header(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueInvalid("not the name of a header", "write it as in X-Tokens-Used")
    return value


def _check_expression(value: str) -> str:
    return compile_expression(value).text


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Expression = Annotated[str, AfterValidator(_check_expression), Field(max_length=MAX_LENGTH)]
_Place = Annotated[str, AfterValidator(_check_path)]
_Kind = Literal["input", "cached", "cache_write", "cache_write_1h", "output"]


class UsageDocument(BaseModel):
    """What calls of a tool use: tokens of a model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    model: _Expression | None = Field(default=None, description="Which model is asked.")
    tiers: _Expression | None = Field(default=None, description="At which tiers of service: a text, or a list.")
    most: _Expression | None = Field(default=None, description="Tokens that an answer may have at most.")
    times: _Expression | None = Field(default=None, description="How many answers are asked for; one if left out.")
    elsewhere: _Expression | None = Field(
        default=None, description="Whether the model reads what does not stand in the request."
    )
    hidden: int = Field(default=0, ge=0, le=1_000_000, description="Tokens that the service adds to what it is sent.")
    reply: _Place | None = Field(default=None, description="The object in a reply's JSON that has the counts.")
    events: Annotated[list[_Place], BeforeValidator(_as_list), Field(min_length=1, max_length=8)] | None = Field(
        default=None, description="Those in the JSON of events; the last of them completes the counts."
    )
    done: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        default=None, max_length=8, description="Types of events, or their whole data, behind which nothing is missing."
    )
    counts: dict[_Kind, _Place] | None = Field(
        default=None, min_length=1, description="Kinds of tokens, and where in that object each is counted."
    )
    inside: dict[_Kind, _Kind] | None = Field(default=None, description="Kinds that another kind's count has in it.")
    headers: dict[_Kind, Annotated[str, AfterValidator(_check_header)]] | None = Field(
        default=None, min_length=1, description="Headers of the reply that count them, in place of its body."
    )
    free: list[Annotated[int, Field(ge=500, le=599)]] | None = Field(
        default=None, max_length=16, description="Statuses that cost nothing, beside 4xx."
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.counts is None) == (self.headers is None):
            raise ValueInvalid("usage: it is counted in one place", "write one of counts: and headers:")
        if self.counts is not None and self.reply is None and self.events is None:
            raise ValueInvalid("usage: no reply has the counts", "write reply:, events: or both")
        if self.headers is not None and (self.reply is not None or self.events is not None or self.done is not None):
            raise ValueInvalid("usage: headers stand in no body", "remove reply:, events: and done:")
        if self.done is not None and self.events is None:
            raise ValueInvalid("done: there are no events", "write events:, or remove it")
        for part, of in (self.inside or {}).items():
            if part == of or not {part, of} <= {*(self.counts or ()), *(self.headers or ())}:
                raise ValueInvalid(f"inside: {part} cannot be in {of}", "name two kinds that are counted")
            if of in (self.inside or {}) and (self.inside or {})[of] == part:
                raise ValueInvalid("inside: two kinds in each other", "keep one of them")
        return self


def usage_of(document: UsageDocument) -> Usage:
    """What calls are counted by."""
    counts = document.counts
    return Usage(
        model_text=document.model,
        tiers_text=document.tiers,
        most_text=document.most,
        times_text=document.times,
        elsewhere_text=document.elsewhere,
        hidden=document.hidden,
        reply=None if document.reply is None else _path(document.reply),
        events=tuple(map(_path, document.events or ())),
        done=frozenset(document.done or ()),
        counts=None if counts is None else {str(kind): _path(place) for kind, place in counts.items()},
        inside={str(part): str(of) for part, of in (document.inside or {}).items()},
        headers=None if document.headers is None else {str(k): name.lower() for k, name in document.headers.items()},
        free=frozenset(document.free or ()),
    )


def _path(text: str) -> Path:
    return tuple(text.split("."))
