"""The catalogue's format: one service a file. pydantic stays here; `known_service` makes it what judges."""

import re
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

from rules.catalogue import tool as compiled
from rules.catalogue.effect import Effect
from rules.catalogue.known import ENDPOINT, KnownService
from rules.catalogue.usage_document import UsageDocument, check_place_in_reply, place_in_reply, usage_of
from rules.conditions.condition import MAX_LENGTH, compile_expression
from rules.conditions.currency import EXPONENTS
from rules.policy import values
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid
from rules.policy.templates import check_endpoint, parse_template

SERVICE: Final = r"[a-z][a-z0-9-]{0,31}(?:\.[a-z0-9][a-z0-9_-]{0,31})?"
TOOL: Final = r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*"
UNIT: Final = r"[a-z][a-z_]{0,31}"
MAX_TOOLS: Final = 5000
RESERVED: Final = frozenset({"price", "calls", "bytes_out", "tokens", "recipients"})
"""Meters that are no unit of a tool's own; recipients are counted by where they stand."""
_HEADER: Final = r"[A-Za-z][A-Za-z0-9-]{0,63}"
_FIELD: Final = re.compile(r"(query|mutation) ([A-Za-z_][A-Za-z0-9_]{0,127})", re.ASCII)
_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")


def _named(pattern: str, what: str, fix: str) -> AfterValidator:
    def check(value: str) -> str:
        if len(value) > 128 or not re.fullmatch(pattern, value, re.ASCII):
            raise ValueInvalid(f"not {what}", fix)
        return value

    return AfterValidator(check)


def _check_host(value: str) -> str:
    return f"*.{normalise_host(value[2:])}" if value.startswith("*.") else normalise_host(value)


def _check_expression(value: str) -> str:
    return compile_expression(value).text


def _check_call(value: str) -> str:
    _call(value)
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_lookup(value: str) -> str:
    parse_template(value.partition("?")[0])
    return value


Endpoint = Annotated[str, AfterValidator(check_endpoint), Field(max_length=512, examples=["/mcp"])]
Expression = Annotated[str, AfterValidator(_check_expression), Field(max_length=MAX_LENGTH)]
ServiceName = Annotated[
    str, _named(SERVICE, "the name of a service", "use lower-case letters, digits and -; mcp.NAME for an MCP server")
]
ToolName = Annotated[str, _named(TOOL, "the name of a tool", "write words joined by dots, as in refund.create")]
UnitName = Annotated[str, _named(UNIT, "the name of a unit", "use lower-case letters and _, as in rows")]
Header = Annotated[str, _named(_HEADER, "the name of a header", "write it as in Stripe-Account")]
Digest = Annotated[str, _named("sha256:[0-9a-f]{64}", "a digest", "write sha256: and 64 hex digits")]
Present = Annotated[
    Any,
    PlainValidator(values.parse_present),
    PlainSerializer(values.write_present, return_type=Any),
    WithJsonSchema({"type": ["string", "object"], "examples": ["bearer", {"header": "X-Api-Key"}]}),
]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class LookupDocument(_Document):
    """A read that says what a request does not."""

    given: ToolName = Field(description="The argument that has to be there; {NAME} in `get` stands for it.")
    get: Annotated[str, AfterValidator(_check_lookup)] = Field(
        max_length=512, description="Path and query that are asked; the reply's JSON is `found`."
    )


class AccountDocument(_Document):
    """How a connection is bound to one account at the vendor."""

    header: Header | None = Field(default=None, description="A header that the gate sets to the connection's account.")
    also: list[Header] | None = Field(
        default=None, max_length=8, description="Other headers that say an account: an agent's own never leave."
    )
    arg: Expression | None = Field(default=None, description="Where an action says it; has to equal the connection's.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.header is None) == (self.arg is None):
            raise ValueInvalid("account is bound in one way", "write one of header: and arg:")
        if self.also is not None and self.header is None:
            raise ValueInvalid("also: there is no header that it stands beside", "write header:, or remove it")
        return self


class ToolDocument(_Document):
    """One named action."""

    call: Annotated[list[Annotated[str, AfterValidator(_check_call)]], BeforeValidator(_as_list)] | None = Field(
        default=None, min_length=1, max_length=32, description="METHOD and path template, or `query FIELD`; or a list."
    )
    where: Expression | None = Field(default=None, description="What tells it from tools with the same call.")
    effect: Literal["read", "write", "delete"] = Field(description="What it does.")
    undo: ToolName | None = Field(default=None, description="The tool that undoes it, or `never`.")
    amount: Expression | None = Field(default=None, description="How much money it moves, a whole number.")
    unit: Literal["minor", "major", "micro"] | None = Field(default=None, description="Of amount; minor if left out.")
    currency: Expression | None = Field(default=None, description="In which currency.")
    recipients: Expression | None = Field(default=None, description="Who gets what is sent.")
    mail: Expression | None = Field(default=None, description="The same, where they are mail addresses.")
    message: Expression | None = Field(default=None, description="The same: a message, base64url, with its header.")
    units: dict[UnitName, Expression] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="What a limit can count of it by this name, and how many.",
    )
    told: dict[UnitName, Annotated[str, AfterValidator(check_place_in_reply)]] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="Where a reply says how many of a unit it really was: keys of its JSON, or `header NAME`.",
    )
    lookups: list[LookupDocument] | None = Field(default=None, min_length=1, max_length=8)
    usage: UsageDocument | None = Field(default=None, description="What its calls use that their replies tell.")
    costs: Literal["unknown"] | None = Field(default=None, description="`unknown`: what a call costs nobody can tell.")
    batch: bool = Field(default=False, description="It carries other requests, and is always refused.")
    definition: Digest | None = Field(default=None, description="Digest of an MCP tool's definition.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.amount is None) != (self.currency is None):
            raise ValueInvalid("an amount has a currency", "write both amount: and currency:")
        if self.unit is not None and self.amount is None:
            raise ValueInvalid("unit: there is no amount", "remove it")
        if sum(text is not None for text in (self.recipients, self.mail, self.message)) > 1:
            raise ValueInvalid("recipients stand in one place", "keep one of recipients:, mail: and message:")
        if self.told is not None and not self.told.keys() <= (self.units or {}).keys():
            raise ValueInvalid("told: a reply corrects what a request says", "say the same units in units:")
        if self.told is not None and self.usage is not None:
            raise ValueInvalid("told: a reply that tells its usage tells nothing else", "keep one of told: and usage:")
        if self.usage is not None and self.costs is not None:
            raise ValueInvalid("costs: usage tells what a call costs", "remove one of them")
        told = next((key for key in ("usage", "told") if getattr(self, key) is not None), None)
        if told is not None and (self.call is None or any(_FIELD.fullmatch(call) for call in self.call)):
            raise ValueInvalid(
                f"{told}: only a call of its own has a reply of its own", "write METHOD and path in call:"
            )
        if self.effect == "read" and self.undo is not None:
            raise ValueInvalid("undo: nothing has to undo a read", "remove it")
        return self


class ServiceDocument(_Document):
    """One service."""

    catalogue: Literal[1] = Field(description="Version of this format.")
    service: ServiceName
    about: str | None = Field(default=None, max_length=512, description="Where the service is documented.")
    hosts: list[Annotated[str, AfterValidator(_check_host)]] | None = Field(default=None, max_length=64)
    protocol: Literal["rest", "mcp"] = "rest"
    graphql: list[Annotated[str, AfterValidator(lambda path: parse_template(path).text)]] | None = Field(
        default=None, max_length=8, description="Paths that take GraphQL."
    )
    endpoint: Endpoint | None = Field(default=None, description="Path at which MCP is spoken; `/mcp` if left out.")
    idempotency: Header | None = Field(default=None, description="Header by which it knows a repeated call.")
    present: Present | None = Field(default=None, description="How the secret is presented, if the policy is silent.")
    account: AccountDocument | None = None
    query: list[Annotated[str, Field(max_length=64)]] | None = Field(
        default=None, max_length=256, description="Parameters that it takes from the query beside a body."
    )
    modes: dict[str, list[str]] | None = Field(default=None, description="What secrets of each mode begin with.")
    decimals: dict[str, int] | None = Field(
        default=None, description="Decimals of the smallest unit, where they are not what ISO 4217 has."
    )
    tools: dict[ToolName, ToolDocument] = Field(default={}, max_length=MAX_TOOLS)


def known_service(document: ServiceDocument) -> KnownService:
    """The service that calls are judged by. Raises `ValueInvalid` for what does not fit together."""
    taken = {"unknown", compiled.NEVER}.intersection(document.tools)
    if taken:
        raise ValueInvalid(f"{taken.pop()}: this name means something else", "give the tool another name")
    tools = {f"{document.service}.{name}": _tool(document, name, tool) for name, tool in document.tools.items()}
    for tool in tools.values():
        if tool.undo not in (None, compiled.NEVER, *tools):
            raise ValueInvalid(
                f"{tool.name}: undo: there is no tool {tool.undo}", values.suggest(tool.undo or "", tuple(tools))
            )
    seen: dict[object, str] = {}
    for tool in tools.values():
        for call in tool.calls if tool.where_text is None else ():
            key = (
                (call.method, call.template.segments, call.template.rest)
                if isinstance(call, compiled.HttpCall)
                else call
            )
            if seen.setdefault(key, tool.name) != tool.name:
                raise ValueInvalid(f"{tool.name}: the same call as {seen[key]}", "tell them apart with where:")
    if document.endpoint is not None and document.protocol != "mcp":
        raise ValueInvalid("endpoint: only MCP servers have one", "remove it, or write protocol: mcp")
    for currency in document.decimals or ():
        if currency not in EXPONENTS:
            raise ValueInvalid(f"decimals: {currency} is no currency", "use three capitals of ISO 4217")
    account = document.account
    return KnownService(
        name=document.service,
        hosts=tuple(document.hosts or ()),
        protocol=document.protocol,
        graphql=tuple(document.graphql or ()),
        tools=tools,
        about=document.about,
        idempotency=document.idempotency,
        present=document.present,
        account_header=None if account is None else account.header,
        account_also=tuple((account.also or ()) if account is not None else ()),
        account_arg=None if account is None or account.arg is None else compile_expression(account.arg),
        query=frozenset(document.query or ()),
        modes={mode: tuple(begins) for mode, begins in (document.modes or {}).items()},
        decimals=dict(document.decimals or {}),
        endpoint=document.endpoint or ENDPOINT,
    )


def _tool(document: ServiceDocument, name: str, tool: ToolDocument) -> compiled.Tool:
    kinds = (("text", tool.recipients), ("mail", tool.mail), ("message", tool.message))
    kind, recipients = next(((kind, text) for kind, text in kinds if text is not None), ("text", None))
    if (tool.call is None) == (document.protocol == "rest"):
        raise ValueInvalid(
            f"{name}: a tool of a REST service has a call, one of an MCP server none", "add call:, or remove it"
        )
    taken = RESERVED.intersection(tool.units or ())
    if taken:
        raise ValueInvalid(f"{name}: units: {min(taken)} is counted otherwise", "give the unit another name")
    if tool.definition is not None and document.protocol != "mcp":
        raise ValueInvalid(f"{name}: definition: only tools of MCP servers have one", "remove it")
    effect: Effect = tool.effect
    return compiled.Tool(
        name=f"{document.service}.{name}",
        effect=effect,
        calls=tuple(map(_call, tool.call or ())),
        where_text=tool.where,
        undo=tool.undo if tool.undo in (None, compiled.NEVER) else f"{document.service}.{tool.undo}",
        amount_text=tool.amount,
        unit=tool.unit or "minor",
        currency_text=tool.currency,
        recipients_text=recipients,
        recipients_kind=kind,  # type: ignore[arg-type]  # one of the three above
        units_text=tuple(sorted((tool.units or {}).items())),
        told=tuple((unit, place_in_reply(text)) for unit, text in sorted((tool.told or {}).items())),
        lookups=tuple(_lookup(name, lookup) for lookup in tool.lookups or ()),
        usage=None if tool.usage is None else usage_of(tool.usage),
        unpriced=tool.costs is not None,
        batch=tool.batch,
        definition=tool.definition,
    )


def _lookup(name: str, lookup: LookupDocument) -> compiled.Lookup:
    unknown = set(_PARAMETER.findall(lookup.get)) - {lookup.given}
    if unknown:
        raise ValueInvalid(f"{name}: get: {unknown.pop()} is not the argument that is given", f"use {{{lookup.given}}}")
    return compiled.Lookup(lookup.given, lookup.get, lookup.get.partition("?")[0])


def _call(text: str) -> compiled.HttpCall | compiled.Field:
    field = _FIELD.fullmatch(text)
    if field is not None:
        return compiled.Field(field[1], field[2])  # type: ignore[arg-type]  # one of two words
    method, _, path = text.partition(" ")
    if not path:
        raise ValueInvalid("not a call", "write a method and a path: POST /v1/refunds")
    return compiled.HttpCall(values.check_method(method), parse_template(path))
