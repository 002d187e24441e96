"""The variables of a condition, in one table, and what each stands for in a call."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rules.call import Call, Facts
from rules.conditions.currency import unit_of
from rules.conditions.unknown import Unknown
from rules.content.content import Value
from rules.content.form import read_form
from rules.content.refused import ContentRefused
from rules.policy.templates import Template, normal_segments

if TYPE_CHECKING:
    from rules.action import Action

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
BODY: Final = "body"
PATH: Final = "path"
QUERY: Final = "query"
NOW: Final = "now"
"""Of the time, alone and as the beginning of a name."""
AMOUNT: Final = "amount"
CURRENCY: Final = "currency"
RECIPIENTS: Final = "recipients"
OF_BODY: Final = frozenset({BODY, "args", AMOUNT, CURRENCY, RECIPIENTS})
"""Variables that the body may have to be read for."""
OF_TOOL: Final = frozenset({"tool", "effect", "args", AMOUNT, CURRENCY, RECIPIENTS})
"""Variables that depend on which tool a call is."""
OF_LOOKUP: Final = frozenset({AMOUNT, CURRENCY, RECIPIENTS})
"""Variables that the service may have to be asked for."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a condition is evaluated for."""

    call: Call
    facts: Facts
    template: Template
    """Of the rule that has the condition."""
    action: "Action | None" = None
    """What of the call it is asked about; None: the call was not classified."""

    @property
    def asked(self) -> "Action":
        """The action. Raises `Unknown` without one."""
        if self.action is None:
            raise Unknown
        return self.action

    @property
    def found(self) -> Value:
        """The reply of the lookup, if there was one."""
        return self.facts.found

    @property
    def now(self) -> datetime:
        """In the policy's time zone."""
        return self.facts.now if self.facts.policy is None else self.facts.now.astimezone(self.facts.policy.timezone)


@dataclass(frozen=True, slots=True)
class Variable:
    """One name that a condition may use."""

    name: str
    type: str
    """As CEL writes it."""
    meaning: str
    value: Callable[[Judged], object]
    """Raises `Unknown` where the call has none."""


def _path(judged: Judged) -> Mapping[str, str]:
    segments = normal_segments(judged.call.path)
    if segments is None:
        raise Unknown
    found: dict[str, str] = {}
    for name, at in judged.template.parameters:
        try:
            found[name] = segments[at].encode("latin-1").decode("utf-8")
        except (IndexError, UnicodeDecodeError):
            raise Unknown from None
    return found


def _query(judged: Judged) -> object:
    try:
        return read_form(judged.call.query.encode("ascii"))
    except (ContentRefused, UnicodeEncodeError):
        raise Unknown from None


def _body(judged: Judged) -> object:
    if judged.facts.content is None:
        raise Unknown
    return judged.facts.content.value


def _connection(judged: Judged) -> str:
    if judged.facts.connection is None:
        raise Unknown
    return judged.facts.connection.name


def _known[T](value: T | None) -> T:
    if value is None:
        raise Unknown
    return value


def _stage(judged: Judged) -> str:
    policy = judged.facts.policy
    account = None if policy is None else policy.accounts.get(judged.call.principal.account)
    return _known(account).stage


VARIABLES: Final = (
    Variable("tenant", "string", "The tenant.", lambda judged: judged.call.principal.tenant),
    Variable("account", "string", "The service account.", lambda judged: judged.call.principal.account),
    Variable("workflow", "string", "What the agent says it is doing.", lambda judged: judged.call.principal.workflow),
    Variable("run", "string", "The run's id.", lambda judged: judged.call.principal.run),
    Variable("stage", "string", "The account's stage.", _stage),
    Variable("connection", "string", "The connection's name.", _connection),
    Variable("tool", "string", "The tool's whole name.", lambda judged: _known(judged.asked.tool)),
    Variable("effect", "string", "`read`, `write` or `delete`.", lambda judged: _known(judged.asked.effect)),
    Variable("args", "map(string, dyn)", "The tool's arguments; see below.", lambda judged: _known(judged.asked.args)),
    Variable(
        AMOUNT,
        "int",
        "How much it moves, in millionths; compare it with `usd(100)`.",
        lambda judged: judged.asked.money(judged.found).micros,
    ),
    Variable(CURRENCY, "string", "In which currency: `USD`.", lambda judged: judged.asked.money(judged.found).currency),
    Variable(
        RECIPIENTS,
        "list(string)",
        "Who gets what is sent: mail addresses in lower case, channels, users.",
        lambda judged: judged.asked.recipients(judged.found),
    ),
    Variable("method", "string", "The method, in capitals.", lambda judged: judged.call.method),
    Variable(PATH, "map(string, string)", "The segments that the rule's `{name}`s stand for, decoded.", _path),
    Variable(QUERY, "map(string, dyn)", "The query's parameters; see below.", _query),
    Variable(BODY, "dyn", "The body; see below.", _body),
    Variable(NOW, "timestamp", "When the call is judged.", lambda judged: judged.facts.now),
    Variable(
        "now.weekday",
        "string",
        "`mon` to `sun`, in the policy's time zone, as all of these.",
        lambda judged: WEEKDAYS[judged.now.weekday()],
    ),
    Variable("now.date", "string", "As in `2026-11-25`.", lambda judged: judged.now.strftime("%Y-%m-%d")),
    Variable("now.time", "string", "As in `09:05`.", lambda judged: judged.now.strftime("%H:%M")),
    Variable("now.hour", "int", "0 to 23.", lambda judged: judged.now.hour),
)
"""A new variable is one line here; the reference is checked against it."""


_VARIABLES: Final = {variable.name: variable for variable in VARIABLES}


def values_of(judged: Judged, names: Iterable[str]) -> dict[str, object]:
    """The values of these variables, and the call's own currency as a unit; without those that have no value."""
    values: dict[str, object] = {}
    for name in names:
        with suppress(Unknown):
            values[name] = _VARIABLES[name].value(judged)
    if CURRENCY in values:
        values[unit_of(str(values[CURRENCY]))] = 1
    return values
