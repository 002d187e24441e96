"""The most that a call can use of a model, before it is sent. Pure, and never nothing where something may be used.

What is read: a token stands for a byte of the request at least, so the body's length is an upper bound of what stands
in it, and the model's own context of everything. What does not stand in it (a conversation that the vendor keeps, a
picture behind a URL) is guessed from what calls of this model used before. What is written: what the request itself
sets as its maximum, else what the policy's connection says, else again what calls used before.

A guess is no bound. What a call really used counts in any case, and the calls after it are refused. Where nobody told
what it used, the guess is not taken for it: it counts as the most that the model can read and write.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Final

from rules.catalogue.usage import Usage
from rules.conditions.unknown import Unknown
from rules.prices.learned import READ, WRITTEN, Bounds, guess
from rules.prices.tokens import MAX_COUNT, Tokens

if TYPE_CHECKING:
    from rules.action import Action
    from rules.conditions.condition import Expression
    from rules.content.content import Value
    from rules.policy.compile import Connection
    from rules.prices.book import Book

MAX_TIMES: Final = 10_000
"""More answers to one request no service gives."""
_MAX_NAME: Final = 128
UNNAMED: Final = "-"
"""What is learned of models that no book has: one number for all of them, or an agent could begin anew each time."""

type Learned = Callable[[str, str], int | None]
"""The maximum by model and by `read` or `written`, as calls before told; None: none did."""


def nothing_learned(model: str, what: str) -> int | None:
    """Before the first call, and where nobody remembers: in tests of a policy, and in replays."""
    return None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one call may use at most, and how its reply will tell what it used."""

    usage: Usage
    model: str | None
    """As the request names it; None: it could not be told."""
    known_as: str
    """What it is remembered by."""
    tiers: tuple[str, ...]
    read: int
    written: int
    guessed: bool
    """Whether any of it is no bound but a guess."""
    book: "Book | None"
    day: date
    """By which the book says its prices."""
    read_ceiling: int
    """What it can have read at most where nobody told: beyond `read` where that is guessed."""
    written_ceiling: int
    """The same of what it wrote."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.read + self.written

    @property
    def micros(self) -> int:
        """What they cost at most; 0 where no book says it."""
        return self._most(self.read, self.written)

    @property
    def ceiling(self) -> tuple[int, int]:
        """Tokens, and micro-units, that a call has used at most of which nobody told."""
        return self.read_ceiling + self.written_ceiling, self._most(self.read_ceiling, self.written_ceiling)

    def _most(self, read: int, written: int) -> int:
        book = self.book
        return 0 if book is None else book.most(self.model, read, written, self.tiers, self.day)

    def cost(self, tokens: Tokens) -> int:
        """What a call cost that used these; 0 where no book says it."""
        return 0 if self.book is None else self.book.cost(self.model, tokens, self.tiers, self.day)


def estimated(
    actions: "tuple[Action, ...]", connection: "Connection", length: int, day: date, learned: Learned = nothing_learned
) -> Estimate | None:
    """The most that a call can use, with a body of so many bytes; None where no tool that it asks for uses anything.

    Where it may be taken for one of several tools, the most of them.
    """
    found: Estimate | None = None
    for action in actions:
        if action.known is None or action.known.usage is None:
            continue
        one = _of(action.known.usage, action.args, connection, length, day, learned)
        if found is None:
            found = one
        else:
            found = replace(
                found,
                read=max(found.read, one.read),
                written=max(found.written, one.written),
                guessed=found.guessed or one.guessed,
                read_ceiling=max(found.read_ceiling, one.read_ceiling),
                written_ceiling=max(found.written_ceiling, one.written_ceiling),
                model=found.model if found.model == one.model else None,
                tiers=tuple({*found.tiers, *one.tiers}),
            )
    return found


def _of(
    usage: Usage,
    args: "Mapping[str, Value] | None",
    connection: "Connection",
    length: int,
    day: date,
    learned: Learned,
) -> Estimate:
    told = _text(_value(usage.model, args))
    model = told if told is not None and len(told) <= _MAX_NAME else None
    book = connection.book
    entry = None if book is None else book.entry(model)
    price = None if book is None else book.price(model, day)
    context = None if price is None else price.context
    guessed = False
    known_as = entry or UNNAMED

    read = read_ceiling = length + usage.hidden
    if usage.elsewhere_text is not None and _value(usage.elsewhere, args) is not False:
        bounds = _below(READ, context)
        read += guess(learned(known_as, "read"), bounds)
        read_ceiling += bounds.ceiling
        guessed = True
    if context is not None:
        read, read_ceiling = min(read, context), min(read_ceiling, context)

    each, times = _whole(_value(usage.most, args)), 1
    if usage.times_text is not None:
        number = _whole(_value(usage.times, args))
        if number is None or not 1 <= number <= MAX_TIMES:
            each = None  # what cannot be told of a request may be anything
        else:
            times = number
    if each is None:
        each = connection.max_tokens
    longest = each
    if each is None or longest is None:
        bounds = _below(WRITTEN, None if price is None else price.most)
        each, longest = guess(learned(known_as, "written"), bounds), bounds.ceiling
        guessed = True
    written, written_ceiling = min(each * times, MAX_COUNT), min(longest * times, MAX_COUNT)
    tiers = _texts(_value(usage.tiers, args))
    return Estimate(usage, model, known_as, tiers, read, written, guessed, book, day, read_ceiling, written_ceiling)


def _below(bounds: Bounds, ceiling: int | None) -> Bounds:
    if ceiling is None:
        return bounds
    return Bounds(min(bounds.start, ceiling), min(bounds.floor, ceiling), ceiling)


def _value(expression: "Expression | None", args: "Mapping[str, Value] | None") -> object:
    """What an expression says of a request; None where that cannot be told."""
    if expression is None or args is None:
        return None
    try:
        return expression.value(args=args)
    except Unknown:
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    """The tiers asked for; one that is no text is one that no book has."""
    many = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(one if isinstance(one, str) else "" for one in many if one is not None)
