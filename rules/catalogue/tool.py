"""One named action on a service, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from rules.catalogue.effect import Effect
from rules.catalogue.usage import Path, Usage
from rules.conditions.condition import Expression, compile_expression
from rules.policy.templates import Template

NEVER: Final = "never"
"""In place of the tool that undoes another: nothing does."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request line that stands for a tool."""

    method: str
    template: Template


@dataclass(frozen=True, slots=True)
class Field:
    """A root field of GraphQL that stands for a tool."""

    operation: Literal["query", "mutation"]
    name: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """A read that says what a request does not: asked by the gate itself, before the request is judged."""

    given: str
    """The argument that has to be there."""
    target: str
    """Path and query, with `{name}` for arguments."""
    route: str
    """The path alone."""


@dataclass(frozen=True)
class Tool:
    """A tool. Its expressions are compiled when they are first asked."""

    name: str
    """Whole, as in `stripe.refund.create`."""
    effect: Effect
    calls: tuple[HttpCall | Field, ...] = ()
    """Empty for a tool of an MCP server."""
    where_text: str | None = None
    undo: str | None = None
    """Whole name of the tool that undoes it, or `never`; None: not known."""
    amount_text: str | None = None
    unit: Literal["minor", "major", "micro"] = "minor"
    currency_text: str | None = None
    recipients_text: str | None = None
    recipients_kind: Literal["text", "mail", "message"] = "text"
    units_text: tuple[tuple[str, str], ...] = ()
    """What a limit can count of a call, by name, and where it stands."""
    told: tuple[tuple[str, Path | str], ...] = ()
    """Units of which the reply says how many it really was: the keys of its JSON to it, or the name of a header."""
    lookups: tuple[Lookup, ...] = ()
    usage: Usage | None = None
    """What its calls use that their replies tell; None: nothing, or it is `unpriced`."""
    unpriced: bool = False
    """What a call costs can be told neither before nor after it."""
    batch: bool = False
    """It carries other requests, which nobody has judged."""
    definition: str | None = None
    """Digest of an MCP tool's definition, where it is pinned."""

    @property
    def irreversible(self) -> bool:
        """Whether nothing undoes it, as far as the service documents that."""
        return self.undo == NEVER

    @cached_property
    def where(self) -> Expression | None:
        """What tells it from others with the same call."""
        return _compiled(self.where_text)

    @cached_property
    def amount(self) -> Expression | None:
        """How much it moves, a whole number in `unit`."""
        return _compiled(self.amount_text)

    @cached_property
    def currency(self) -> Expression | None:
        """In which currency."""
        return _compiled(self.currency_text)

    @cached_property
    def recipients(self) -> Expression | None:
        """Who gets what is sent, as `recipients_kind` says."""
        return _compiled(self.recipients_text)

    @cached_property
    def units(self) -> Mapping[str, Expression]:
        """How many of each."""
        return {name: compile_expression(text) for name, text in self.units_text}


def _compiled(text: str | None) -> Expression | None:
    return None if text is None else compile_expression(text)
