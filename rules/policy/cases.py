"""Cases: calls that stand in a policy with what must become of them (`tests`), as text and as what they mean.

A case is written down once and tried for years, so everything about it is fixed: a time of day stands in one certain
week, and a body is the bytes that it is sent as.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus
from zoneinfo import ZoneInfo

from credentials.names import is_name
from rules.codes import Code
from rules.conditions.variables import WEEKDAYS
from rules.policy import values
from rules.policy.invalid import ValueInvalid
from rules.policy.values import Money

if TYPE_CHECKING:
    from rules.policy.models import CaseDocument

MAX_CASES: Final = 10_000
MAX_BODY: Final = 64 * 1024
"""Characters of a case's body: far below what the gate holds, so that no size decides a case."""
CODES: Final = (
    Code.RULE_DENIED,
    Code.NOT_ALLOWED,
    Code.CONDITION_FAILED,
    Code.CONTENT_REFUSED,
    Code.AMOUNT_UNKNOWN,
    Code.ACCOUNT_MISMATCH,
    Code.BATCH_REFUSED,
    Code.AMBIGUOUS_TARGET,
    Code.METHOD_REFUSED,
    Code.MALFORMED_REQUEST,
)
"""What a case may expect: the refusals that depend on nothing but the policy and the request."""
BY_RULE: Final = frozenset({Code.RULE_DENIED, Code.CONDITION_FAILED, Code.AMOUNT_UNKNOWN})
"""Those of them that a rule decides."""
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
DEFAULT_WORKFLOW: Final = "default"

_MONDAY: Final = datetime(2026, 1, 5)  # noqa: DTZ001 - a wall clock's; its zone is the policy's
"""Of the week in which a case's weekdays lie."""
_CALL: Final = re.compile(rf"([A-Za-z]{{1,32}}) +({values.NAME}) +(/[^\s]*)", re.ASCII)
_TOOL: Final = re.compile(r"[a-z][a-z0-9-]*(?:[./][A-Za-z0-9_-]+)+", re.ASCII)
_AT: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}|[a-z]{3}) ([0-9]{2}:[0-9]{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is tried and never sent: by whom, what, and when."""

    account: str
    workflow: str
    method: str
    connection: str
    """Empty: the only one of the tool's service."""
    target: str
    """Path and query, as an agent would send them."""
    content_type: str | None
    body: bytes
    at: datetime | None
    """Aware UTC; None: at no time, so that no rule may ask for it."""
    tool: str | None = None
    """The tool in whose place `method`, `target` and the body will be written; None: they are here."""
    args: Mapping[str, object] = field(default_factory=dict)
    amount: Money | None = None
    """How much the tool moves, where that is stated."""
    found: object = None
    """What the service is to answer to a lookup; None: it is not asked."""

    def __str__(self) -> str:
        if self.tool is not None:
            return f"{self.tool} as {self.account}"
        return f"{self.method} {self.connection} {self.target} as {self.account}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a case's call."""

    code: Code | None
    """Of the refusal; None: it is allowed."""
    rule: str | None
    """The rule that must decide; None: whichever does."""

    def __str__(self) -> str:
        by = "" if self.rule is None else f" by {self.rule}"
        return f"{'allow' if self.code is None else f'deny {self.code}'}{by}"


@dataclass(frozen=True, slots=True)
class Case:
    """One of a policy's own tests."""

    asked: Asked
    expected: Expected


def case_of(document: "CaseDocument", zone: ZoneInfo) -> Case:
    """What a case in a valid policy means."""
    method, connection, target = ("", "", "") if is_tool(document.call) else parse_call(document.call)
    args, amount = stated_amount(json.loads(document.args)) if document.args is not None else ({}, None)
    text = document.body if document.body is not None else document.form
    kind = JSON if document.body is not None else FORM
    asked = Asked(
        account=document.account,
        workflow=DEFAULT_WORKFLOW if document.workflow is None else document.workflow,
        method=method,
        connection=document.connection or connection,
        target=target,
        content_type=None if text is None else kind,
        body=b"" if text is None else text.encode("utf-8"),
        at=None if document.at is None else moment(document.at, zone),
        tool=document.call if is_tool(document.call) else None,
        args=args,
        amount=amount,
        found=None if document.found is None else json.loads(document.found),
    )
    return Case(asked, Expected(parse_expected(document.expect), document.rule))


def is_tool(call: str) -> bool:
    """Whether a case's call is a tool's whole name."""
    return _TOOL.fullmatch(call) is not None


def stated_amount(args: Mapping[str, object]) -> tuple[Mapping[str, object], Money | None]:
    """The arguments without an amount of money (`amount: 100 USD`), and that amount."""
    amount = args.get("amount")
    if not isinstance(amount, str) or not re.fullmatch(values.MONEY, amount, re.ASCII):
        return args, None
    return {name: value for name, value in args.items() if name != "amount"}, values.parse_money(amount)


def parse_call(value: str) -> tuple[str, str, str]:
    """Method, connection and target of `POST stripe /v1/refunds?x=y`."""
    match = _CALL.fullmatch(value)
    if match is None:
        fix = "write a tool, or a method, a connection and a path, as in POST stripe /v1/refunds?x=y"
        raise ValueInvalid("not a call", fix)
    if match[1] != match[1].upper():
        raise ValueInvalid("methods are upper-case", f"write {match[1].upper()} {match[2]} {match[3]}"[:120])
    return match[1], match[2], match[3]


def check_call(value: str) -> str:
    """The call itself, with one space between its parts."""
    if is_tool(value):
        return value
    return " ".join(parse_call(value))


def parse_expected(value: str) -> Code | None:
    """The code of `deny CODE`; None for `allow`."""
    words = value.split(" ")
    if words == ["allow"]:
        return None
    if words[0] != "deny":
        raise ValueInvalid("neither allow nor deny", "write allow, or deny and a code, as in deny rule_denied")
    if len(words) != 2:
        raise ValueInvalid("deny without one code", f"write the code behind it: {', '.join(CODES)}")
    code = next((code for code in CODES if code == words[1]), None)
    if code is None:
        message = "not a refusal that a policy and a request alone decide (limits and secrets are not tried)"
        raise ValueInvalid(message, values.suggest(words[1], CODES))
    return code


def check_expected(value: str) -> str:
    """The expectation itself."""
    parse_expected(value)
    return value


def check_at(value: str) -> str:
    """The time itself, weekdays in lower case."""
    lower = value.lower()
    moment(lower, ZoneInfo("UTC"))
    return lower


def moment(text: str, zone: ZoneInfo) -> datetime:
    """The moment, aware UTC, that `tue 10:00` or `2026-11-24 10:00` is in a zone. Of a repeated hour, the first."""
    match = _AT.fullmatch(text)
    if match is None or (match[1] not in WEEKDAYS and "-" not in match[1]):
        raise ValueInvalid("not a time", "write a weekday or a date, and a time: tue 10:00, or 2026-11-24 10:00")
    try:
        time = datetime.strptime(match[2], "%H:%M")  # noqa: DTZ007 - a wall clock's
        if match[1] in WEEKDAYS:
            day = _MONDAY + timedelta(days=WEEKDAYS.index(match[1]))
        else:
            day = datetime.strptime(match[1], "%Y-%m-%d")  # noqa: DTZ007
        wall = day.replace(hour=time.hour, minute=time.minute)
        found = wall.replace(tzinfo=zone).astimezone(UTC)
        back = found.astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError):
        fix = "write a date of the calendar and a time from 00:00 to 23:59"
        raise ValueInvalid("no such day or time", fix) from None
    if back != wall:
        raise ValueInvalid(f"there is no such time in {zone.key}: clocks skip it", "write a time an hour later")
    return found


def check_workflow(value: str) -> str:
    """The workflow itself, if a credential could say it."""
    if not is_name(value):
        raise ValueInvalid("not the name of a workflow", "use letters, digits and ._@:/+=-")
    return value


def parse_json_body(value: object) -> str:
    """The text that is sent as JSON: a text as it stands, anything else as JSON writes it."""
    return _bounded(value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))


def parse_form_body(value: object) -> str:
    """The text that is sent as a form: a text as it stands, a mapping as Stripe, Rails and PHP write it."""
    if isinstance(value, str):
        return _bounded(value)
    if not isinstance(value, dict):
        raise ValueInvalid("not a form", "write a mapping, as in {amount: 100}, or the text that is sent: amount=100")
    return _bounded("&".join(_pairs(value)))


def _pairs(fields: dict[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        yield from _pair(quote_plus(name), value)


def _pair(name: str, value: object) -> Iterator[str]:
    match value:
        case dict():
            for step, inner in value.items():
                yield from _pair(f"{name}[{quote_plus(str(step))}]", inner)
        case list():
            for item in value:
                yield from _pair(f"{name}[]", item)
        case bool():
            yield f"{name}={'true' if value else 'false'}"
        case None:
            yield f"{name}="
        case _:
            yield f"{name}={quote_plus(str(value))}"


def _bounded(text: str) -> str:
    if len(text) > MAX_BODY:
        raise ValueInvalid(f"longer than {MAX_BODY} characters", "keep what the rules read")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueInvalid("text with half a character (a lone surrogate)", "remove the escape") from None
    return text
