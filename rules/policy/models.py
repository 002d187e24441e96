"""The policy's schema. pydantic stays here, at the edge: `compile` turns a document into frozen dataclasses.

Every model refuses unknown keys and converts nothing by itself. A dumped document (`model_dump(mode="json")`) is again
a valid document with the same meaning; that is how a policy is stored.
"""

import re
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator
from pydantic.json_schema import WithJsonSchema

from rules.bodies import Handling
from rules.catalogue.document import TOOL
from rules.conditions.condition import MAX_LENGTH, compile_condition
from rules.policy import cases, values
from rules.policy.addresses import parse_dial, parse_network
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid
from rules.policy.matcher import ANY
from rules.policy.templates import parse_template
from rules.services import NAMES


def _text(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)})


def _check_connection(value: str) -> str:
    return value if value == ANY else values.check_name(value)


def _check_tool(value: str) -> str:
    if len(value) > 128 or not re.fullmatch(rf"\*|{TOOL}(?:\.\*)?", value, re.ASCII):
        raise ValueInvalid("not the name of a tool", "write stripe.refund.create, stripe.refund.*, or * for all")
    return value


def _check_vendor_account(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,127}", value, re.ASCII):
        raise ValueInvalid("not an account at a service", "write it as the service shows it, such as acct_1Abc or acme")
    return value


def _check_day(value: str) -> str:
    try:
        return datetime.strptime(value, "%Y-%m-%d").strftime("%Y-%m-%d")  # noqa: DTZ007 - a wall calendar's
    except ValueError:
        raise ValueInvalid("not a day", "write it as in 2026-12-31") from None


def _check_path(value: str) -> str:
    return parse_template(value).text


def _check_condition(value: str) -> str:
    return compile_condition(value).text


def _check_dial(value: object) -> str:
    address, port = parse_dial(value)
    host = f"[{address}]" if address.version == 6 else str(address)
    return host if port is None else f"{host}:{port}"


def _check_authority(value: str) -> str:
    parts = value.split("/")
    if value.startswith("/") or "\\" in value or "\0" in value or not all(parts) or ".." in parts:
        raise ValueInvalid(
            "not a file beside the policy", "put the PEM file into the policy's folder and name it from there"
        )
    return value


def _deny_everything(value: object) -> object:
    return {"connection": ANY} if value == ANY else _named_tools(value)


def _named_tools(value: object) -> object:
    """A tool, or a list of them, is short for a rule about them on every connection."""
    if isinstance(value, str | list):
        return {"tools": [value] if isinstance(value, str) else value}
    return value


def _refuse_true(value: object) -> object:
    # To Python, and so to a Literal, `true` is 1.
    return str(value) if isinstance(value, bool) else value


Name = Annotated[str, AfterValidator(values.check_name), _text(values.NAME, "support-agent")]
ConnectionOrAny = Annotated[str, AfterValidator(_check_connection), _text(rf"(?:\*|{values.NAME})", "tickets", "*")]
SecretName = Annotated[str, AfterValidator(values.check_secret_name), _text(values.REFERENCE, "zendesk/prod")]
ServiceName = Annotated[str, AfterValidator(values.check_service_name), Field(examples=[*NAMES])]
Email = Annotated[str, AfterValidator(values.check_email), _text(values.EMAIL, "ana@acme.example")]
Host = Annotated[str, AfterValidator(normalise_host), Field(examples=["api.example.com"])]
Method = Annotated[
    str, AfterValidator(values.check_method), WithJsonSchema({"type": "string", "enum": list(values.METHODS)})
]
Path = Annotated[str, AfterValidator(_check_path), Field(max_length=2048, examples=["/api/v2/tickets/{id}", "/v1/**"])]
When = Annotated[
    str,
    AfterValidator(_check_condition),
    Field(max_length=MAX_LENGTH, examples=["body.amount <= 100", "now.weekday in ['sat', 'sun']"]),
]
ToolPattern = Annotated[
    str, AfterValidator(_check_tool), Field(max_length=128, examples=["stripe.refund.create", "github.issues.*", "*"])
]
Effects = Annotated[list[Literal["read", "write", "delete"]], Field(min_length=1, max_length=3)]
VendorAccount = Annotated[str, AfterValidator(_check_vendor_account), Field(max_length=128, examples=["acct_1Abc"])]
Day = Annotated[str, AfterValidator(_check_day), _text("[0-9]{4}-[0-9]{2}-[0-9]{2}", "2026-12-31")]
Zone = Annotated[str, AfterValidator(values.check_timezone), Field(examples=["Europe/Berlin"])]
Authority = Annotated[str, AfterValidator(_check_authority), Field(max_length=255, examples=["corp-ca.pem"])]
KeyHash = Annotated[str, AfterValidator(values.check_key_hash), _text(values.KEY_HASH, "sha256:" + "0a" * 32)]
Dial = Annotated[
    str,
    PlainValidator(_check_dial),
    WithJsonSchema({"type": "string", "examples": ["10.1.2.3", "127.0.0.1:9443", "[fd12::1]:8443"]}),
]
Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(parse_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["10.1.0.0/16"]}),
]
Money = Annotated[
    values.Money,
    PlainValidator(values.parse_money),
    PlainSerializer(str, return_type=str),
    _text(values.MONEY, "0.002 USD"),
]
Duration = Annotated[
    int,
    PlainValidator(values.parse_duration),
    PlainSerializer(values.write_duration, return_type=str),
    _text(values.DURATION, "5m"),
]
Keep = Annotated[
    int,
    PlainValidator(values.parse_keep),
    PlainSerializer(values.write_keep, return_type=str),
    _text(f"(?:none|{values.DURATION})", "30d", "none"),
]
Present = Annotated[
    Any,  # a `Presentation`: pydantic cannot check a Protocol, and need not
    PlainValidator(values.parse_present),
    PlainSerializer(values.write_present, return_type=Any),
    WithJsonSchema(
        {
            "oneOf": [
                {"const": "bearer", "description": "`Authorization: Bearer SECRET`"},
                {
                    "type": "object",
                    "description": "`Authorization: Basic`, with this user and the secret as the password",
                    "properties": {"basic": {"type": "string"}},
                    "required": ["basic"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "description": "The secret, behind an optional prefix, in a header field of this name",
                    "properties": {"header": {"type": "string"}, "prefix": {"type": "string"}},
                    "required": ["header"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


Body = Annotated[
    Handling,
    PlainValidator(values.parse_body),
    PlainSerializer(values.write_body, return_type=Any),
    WithJsonSchema(
        {
            "oneOf": [
                {"const": "inspect", "description": "Decoded before it is judged; what was decoded is what is sent"},
                {
                    "type": "object",
                    "description": "Bodies longer than what is held are streamed, up to this size",
                    "properties": {
                        "stream": {"type": "string", "pattern": f"^{values.SIZE}$", "examples": ["500 MiB"]}
                    },
                    "required": ["stream"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


CallText = Annotated[
    str, AfterValidator(cases.check_call), Field(max_length=4096, examples=["POST stripe /v1/refunds?expand=charge"])
]
ExpectedText = Annotated[
    str,
    AfterValidator(cases.check_expected),
    WithJsonSchema({"type": "string", "enum": ["allow", *(f"deny {code}" for code in cases.CODES)]}),
]
AtText = Annotated[str, AfterValidator(cases.check_at), Field(examples=["tue 10:00", "2026-11-24 10:00"])]
Workflow = Annotated[str, AfterValidator(cases.check_workflow), Field(examples=["refunds"])]
JsonBody = Annotated[
    str,
    PlainValidator(cases.parse_json_body),
    WithJsonSchema({"type": ["object", "array", "string", "integer", "boolean"], "examples": [{"amount": 100}]}),
]
FormBody = Annotated[
    str,
    PlainValidator(cases.parse_form_body),
    WithJsonSchema({"type": ["object", "string"], "examples": [{"amount": 100}, "amount=100"]}),
]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class CredentialsDocument(_Document):
    """How long the credentials of a tenant's agents live."""

    ttl: Duration = Field(
        default=300, description="Lifetime of a credential when none is asked for.", json_schema_extra={"default": "5m"}
    )
    max_ttl: Duration = Field(
        default=3600,
        description="The longest lifetime that may be asked for; at most 24h.",
        json_schema_extra={"default": "1h"},
    )


class InputsDocument(_Document):
    """How long it is kept what a tenant's calls were decided on."""

    keep: Keep = Field(description="At least 1d; or none: nothing is kept.")


class ConnectionDocument(_Document):
    """A tenant's link to one host of a service."""

    host: Host = Field(description="The exact host name.")
    service: ServiceName | None = Field(
        default=None, description="The service, as the catalogue names it; by the host when left out."
    )
    account: VendorAccount | None = Field(
        default=None, description="The account at the service that every call has to be about."
    )
    mode: Name | None = Field(default=None, description="The kind of secret that it takes, as the service has kinds.")
    scheme: Literal["https", "http"] = "https"
    port: int | None = Field(default=None, ge=1, le=65535, description="443, or 80 for http, when left out.")
    secret: SecretName | None = Field(
        default=None, description="The secret attached to allowed calls; none if left out."
    )
    present: Present | None = Field(default=None, description="How the secret is presented; bearer when left out.")
    price: Money | None = Field(default=None, description="What one call costs.")
    dial: Dial | None = Field(default=None, description="Literal address to dial in place of what DNS says.")
    networks: list[Network] | None = Field(
        default=None, min_length=1, max_length=64, description="Private networks that the host's addresses may lie in."
    )
    ca: Authority | None = Field(
        default=None, description="PEM file beside the policy; the host is verified against it and nothing else."
    )
    extra_ca: Authority | None = Field(
        default=None, description="PEM file beside the policy, trusted for the host beside the public authorities."
    )
    unsafe_plaintext: bool = Field(
        default=False, description="Must be true for scheme http: the secret travels readable."
    )
    unsafe_port: bool = Field(
        default=False, description="Must be true for a port that belongs to another protocol, such as 22 or 6379."
    )


class OwnersDocument(_Document):
    """Who answers for a service account."""

    accountable: Email = Field(description="The human accountable for what the account does.")
    system: Email = Field(description="Who runs the agent.")
    risk: Email = Field(description="Who accepted the risk.")


class RateDocument(_Document):
    """So many calls in a period, and so many at once."""

    connection: ConnectionOrAny = Field(description="A connection, or * for all of them together.")
    max: int = Field(ge=1, le=1_000_000)
    per: Literal["second", "minute", "hour", "day"]
    burst: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Calls at once; the same as max if left out."
    )


class SpendDocument(_Document):
    """An amount that a calendar window's calls may cost together."""

    meter: Literal["price"] = Field(description="What is counted: the price of the connections called.")
    max: Money
    per: Literal["day"] = Field(description="A day begins at midnight in the policy's time zone.")


class LimitsDocument(_Document):
    """What an account may use."""

    concurrency: int | None = Field(default=None, ge=1, le=10_000, description="Calls in flight at once.")
    rate: list[RateDocument] = Field(default=[], max_length=256)
    spend: list[SpendDocument] = Field(default=[], max_length=16)


class AllowDocument(_Document):
    """The calls that a rule allows: all that is written has to fit."""

    connection: ConnectionOrAny | None = Field(
        default=None, description="A connection, or * for any of the tenant's; any when left out beside tools."
    )
    methods: list[Method] | None = Field(default=None, min_length=1, description="All methods when left out.")
    path: Path | None = Field(
        default=None,
        description="Path template: {name} is one segment, /** at the end is any rest. Optional beside tools, effects.",
    )
    tools: list[ToolPattern] | None = Field(
        default=None, min_length=1, max_length=256, description="Tools, or beginnings of their names with .*"
    )
    effects: Effects | None = Field(default=None, description="What the tool does: read, write, delete.")
    body: Body | None = Field(
        default=None,
        description="How bodies are treated; when left out they are held whole, at most 1 MiB, and sent as they came.",
    )


class DenyDocument(_Document):
    """The calls that a rule denies, whatever allows them: all that is written has to fit."""

    connection: ConnectionOrAny | None = Field(
        default=None,
        description="A connection, or * for any of the tenant's; any when left out beside tools or effects.",
    )
    methods: list[Method] | None = Field(default=None, min_length=1, description="All methods when left out.")
    path: Path = Field(default="/**", description="Path template; every path when left out.")
    tools: list[ToolPattern] | None = Field(
        default=None, min_length=1, max_length=256, description="Tools, or beginnings of their names with .*"
    )
    effects: Effects | None = Field(default=None, description="What the tool does; a delete is a write, too.")


class RuleDocument(_Document):
    """One rule: it either allows or denies."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["allow"]}, {"required": ["deny"]}]})

    id: Name = Field(description="Unique in the account; stands in denials and records.")
    when: When | None = Field(
        default=None, description="A condition in CEL; the rule matches only calls for which it is true."
    )
    allow: (
        Annotated[
            AllowDocument,
            BeforeValidator(_named_tools, json_schema_input_type=ToolPattern | list[ToolPattern] | AllowDocument),
        ]
        | None
    ) = None
    deny: (
        Annotated[
            DenyDocument,
            BeforeValidator(_deny_everything, json_schema_input_type=ToolPattern | list[ToolPattern] | DenyDocument),
        ]
        | None
    ) = None


class AccountDocument(_Document):
    """A service account: the non-human principal that an agent acts as."""

    owners: OwnersDocument
    stage: Literal["observe", "autonomous"] = Field(
        default="autonomous", description="observe: rules are only tried, until a day; autonomous: they decide."
    )
    until: Day | None = Field(default=None, description="The last day of stage observe.")
    limits: LimitsDocument = LimitsDocument()
    rules: list[RuleDocument] = Field(default=[], max_length=100_000)


class CaseDocument(_Document):
    """A call, and what must become of it under this policy."""

    account: Name = Field(description="Who calls.")
    call: CallText = Field(description="Method, connection, and path with query; or a tool.")
    args: JsonBody | None = Field(
        default=None, description="A tool's arguments; `amount: 100 USD` states how much it moves."
    )
    connection: Name | None = Field(
        default=None, description="The connection, where several are of the tool's service."
    )
    found: JsonBody | None = Field(default=None, description="What the service answers where it is asked for more.")
    body: JsonBody | None = Field(default=None, description="Sent as JSON; a text is sent as it stands.")
    form: FormBody | None = Field(default=None, description="Sent as a form; a text is sent as it stands.")
    at: AtText | None = Field(
        default=None, description="When, in the policy's time zone; needed where a rule asks for the time."
    )
    workflow: Workflow | None = Field(default=None, description="`default` when left out.")
    expect: ExpectedText = Field(description="`allow`, or `deny` and the code.")
    rule: Name | None = Field(default=None, description="The rule that must decide.")


class TenantDocument(_Document):
    """The policy of one tenant."""

    exeat: Annotated[Literal[1], BeforeValidator(_refuse_true)] = Field(description="Version of this schema.")
    tenant: Name
    timezone: Zone = Field(default="UTC", description="Where a day of a spend limit begins and ends.")
    roles: dict[Name, list[Email]] = Field(default={}, description="Named groups of people.")
    credentials: CredentialsDocument = CredentialsDocument()
    inputs: InputsDocument | None = Field(
        default=None, description="How long decision inputs are kept, for replays; 30d when left out."
    )
    denied_keys: list[KeyHash] | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="SHA-256 of public keys that no certificate of a host's chain may be over.",
    )
    connections: dict[Name, ConnectionDocument] = {}
    accounts: dict[Name, AccountDocument] = {}
    tests: list[CaseDocument] | None = Field(
        default=None,
        min_length=1,
        max_length=cases.MAX_CASES,
        description="Calls and what must become of them; a policy that fails one is not applied.",
    )
