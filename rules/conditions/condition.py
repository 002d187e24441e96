"""The one place that knows CEL (github.com/google/cel-spec), through Google's own implementation.

What makes it fit to stand in a policy: expressions are typed when they are compiled, have no side effects and no loops
but over what is there, and evaluation is bounded (iterations by a budget, patterns by RE2). An error is a value here:
`a || error` is true if `a` is, and whatever is left as an error means that the condition cannot be told.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from rules.conditions.asked import Asked, asked_by
from rules.conditions.clock import Clock, clock_of
from rules.conditions.cost import check_cost
from rules.conditions.currency import EXPONENTS, unit_of, written_out
from rules.conditions.syntax import read_syntax
from rules.conditions.unknown import Unknown
from rules.conditions.variables import CURRENCY, NOW, VARIABLES
from rules.policy.invalid import ValueInvalid
from rules.policy.values import suggest

MAX_LENGTH: Final = 2000
"""Characters. Longer ones are several rules."""
_TOGETHER: Final = 64
"""Conditions that share one making of CEL's values, whose memory is given back only with it."""
_BUILDS: Final = re.compile(r"\+|\b(?:map|filter)\b")
"""In the text of whatever makes lists and texts, which can be as large as the body, and larger."""
_MESSAGE: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")


class Values:
    """The values of variables, for any number of conditions. They are made into CEL's own once for several of these.

    Belongs to one decision: it holds copies of what the call was sent with.
    """

    __slots__ = ("_activation", "_first", "_left", "_values", "said", "untold")

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values: dict[str, object] = dict(values)
        self._activation: Any = None
        self._left = 0
        self._first = True
        self.said: dict[str, bool | None] = {}
        """What conditions said, by their texts."""
        self.untold: dict[tuple[Asked, frozenset[str]], frozenset[str]] = {}
        """Variables that cannot be told to who asks so, and reads these."""

    def add(self, values: Mapping[str, object]) -> None:
        """More are known. What was said stands: a condition is asked only once all that it reads is there."""
        self._values.update(values)
        self._activation = None

    def of(self, names: Iterable[str]) -> dict[str, object]:
        """Those of these variables that are known."""
        return {name: self._values[name] for name in names if name in self._values}

    def evaluate(self, expression: Any, without: frozenset[str], *, alone: bool) -> Any:
        """What CEL makes of it, not told some of them. Raises RuntimeError beyond the budget: each evaluation's own."""
        if without:
            return expression.eval(data={name: v for name, v in self._values.items() if name not in without})
        # Most calls meet one condition: making what others could share would cost them more than it saves.
        if alone or self._first:
            self._first = False
            return expression.eval(data=self._values)
        if self._activation is None or self._left == 0:
            self._activation = _OF_ALL.Activation(self._values)
            self._left = _TOGETHER
        self._left -= 1
        return expression.eval(self._activation)


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition."""

    text: str
    reads: frozenset[str] = field(compare=False)
    """Names of the variables that it may ask for."""
    currencies: frozenset[str] = field(compare=False)
    """Those that it compares amounts in."""
    clock: Clock | None = field(compare=False)
    """What it asks of the time; None: nothing."""
    _asked: Asked = field(repr=False, compare=False)
    _expression: Any = field(repr=False, compare=False)
    _alone: bool = field(repr=False, compare=False)

    def holds(self, values: Values) -> bool | None:
        """Whether it is true for these values; None where that cannot be told. Never raises.

        Of the currencies in `currencies`, the call's own is the one whose `unit_of` is among the values.
        """
        if self.text not in values.said:
            values.said[self.text] = self._evaluated(values)
        return values.said[self.text]

    def _evaluated(self, values: Values) -> bool | None:
        asked = (self._asked, self.reads)
        if asked not in values.untold:  # rules about one tool mostly read the same members
            values.untold[asked] = self._asked.untold(values.of(self.reads))
        try:
            found = values.evaluate(self._expression, values.untold[asked], alone=self._alone)
        except RuntimeError:  # beyond the budget
            return None
        value = found.value() if found.type() == cel.Type.BOOL else None
        return value if isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression of the catalogue: where in a call something stands."""

    text: str
    _asked: Asked = field(repr=False, compare=False)
    _expression: Any = field(repr=False, compare=False)

    def value(self, **values: object) -> object:
        """What it says for these values (`args`, `found`). Raises `Unknown` where that cannot be told."""
        if self._asked.untold(values):
            raise Unknown
        try:
            found = self._expression.eval(data=values)
        except RuntimeError:  # beyond the budget
            raise Unknown from None
        if found.type() == cel.Type.ERROR:
            raise Unknown
        return found.plain_value()


@lru_cache(maxsize=16_384)  # all of the largest policy's, which are compiled several times while it is loaded
def compile_condition(text: str) -> Condition:
    """The condition that a text says. Raises `ValueInvalid`, with the fix."""
    if len(text) > MAX_LENGTH:
        raise ValueInvalid(f"longer than {MAX_LENGTH} characters", "split it into several rules")
    written, currencies = written_out(text)
    try:
        expression = _environment(currencies).compile(written)
    except RuntimeError as error:
        raise _explained(str(error), text) from None
    if expression.return_type() != cel.Type.BOOL:
        raise ValueInvalid("not a condition: it does not say true or false", "compare it, as in body.amount <= 100")
    asked = _asked(expression)
    reads = {name for name in _NAMES if _needs(written, name, currencies)}
    clock = clock_of(written, lambda left, name, alone: _needs(left, name, currencies, alone=alone), frozenset(reads))
    told = frozenset(reads | ({CURRENCY} if currencies else set()))
    # A moment is made into CEL's own by an evaluation of its own alone: shared values take no `datetime`.
    alone = _BUILDS.search(text) is not None or NOW in reads
    return Condition(text, told, currencies, clock, asked, expression, alone)


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """The expression over `args` and `found` that a text says. Raises `ValueInvalid`, with the fix."""
    if len(text) > MAX_LENGTH:
        raise ValueInvalid(f"longer than {MAX_LENGTH} characters", "shorten it")
    try:
        expression = _OF_CATALOGUE.compile(text)
    except RuntimeError as error:
        raise _explained(str(error), text, ("args", "found")) from None
    return Expression(text, _asked(expression), expression)


def _asked(expression: Any) -> Asked:
    """What a compiled expression asks for. Raises `ValueInvalid` for one that may cost too much."""
    tree = read_syntax(expression.serialize())
    check_cost(tree)
    return asked_by(tree)


@lru_cache(maxsize=256)
def _environment(currencies: frozenset[str], without: str | None = None, *, alone: bool = False) -> Any:
    variables = {v.name: _TYPES[v.type] for v in VARIABLES if not _hidden(v.name, without, alone=alone)}
    return cel.NewEnv(variables=variables | {unit_of(currency): cel.Type.INT for currency in currencies})


def _hidden(name: str, without: str | None, *, alone: bool) -> bool:
    return without is not None and (name == without or (not alone and name.startswith(f"{without}.")))


def _needs(text: str, name: str, currencies: frozenset[str], *, alone: bool = False) -> bool:
    """Whether it does not compile without the name: CEL's own reading of what is a reference and what is not.

    `alone`: without that very name, those behind it and a point still being there.
    """
    if name not in text:
        return False
    try:
        _environment(currencies, name, alone=alone).compile(text)
    except RuntimeError:
        return True
    return False


def _explained(message: str, text: str, known: Iterable[str] | None = None) -> ValueInvalid:
    """CEL's error, in the policy's words."""
    found = _MESSAGE.search(message)
    if found is None:
        return ValueInvalid("not a condition in CEL", "see docs/reference/policy.md")
    undeclared = _UNDECLARED.match(found[3])
    declared = tuple(_NAMES if known is None else known)
    names = (
        [undeclared[1].partition(".")[0]]
        if undeclared is not None
        else [n for n in _OF_NOW.findall(text) if n not in declared]
    )
    if names:
        return ValueInvalid(f"there is no variable or function {names[0]}", suggest(names[0], declared))
    what = found[3].removesuffix(" (in container '')")
    return ValueInvalid(f"{what}, at line {found[1]}, character {found[2]}", "see docs/reference/policy.md")


_OF_NOW: Final = re.compile(r"\bnow\.[A-Za-z_]+\b(?!\()")
_TYPES: Final[Mapping[str, Any]] = {
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "dyn": cel.Type.DYN,
    "timestamp": cel.Type.TIMESTAMP,
    "list(string)": cel.Type.List(cel.Type.STRING),
    "map(string, string)": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
    "map(string, dyn)": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
_NAMES: Final = tuple(variable.name for variable in VARIABLES)
_OF_ALL: Final = _environment(frozenset(EXPONENTS))
_OF_CATALOGUE: Final = cel.NewEnv(variables={"args": cel.Type.DYN, "found": cel.Type.DYN})
