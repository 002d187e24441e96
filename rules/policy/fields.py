"""The kinds of values in a policy's schema, as pydantic reads, writes and describes them."""

import re
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator
from pydantic.json_schema import WithJsonSchema

from rules.bodies import Handling
from rules.catalogue.document import TOOL
from rules.conditions.condition import MAX_LENGTH, compile_condition
from rules.policy import cases, values
from rules.policy.addresses import parse_dial, parse_network
from rules.policy.hosts import normalise_host
from rules.policy.invalid import ValueInvalid
from rules.policy.matcher import ANY
from rules.policy.templates import check_endpoint, parse_template
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


def deny_everything(value: object) -> object:
    """`*` is short for a rule about everything, a tool or a list of them for one about those."""
    return {"connection": ANY} if value == ANY else named_tools(value)


def named_tools(value: object) -> object:
    """A tool, or a list of them, is short for a rule about them on every connection."""
    if isinstance(value, str | list):
        return {"tools": [value] if isinstance(value, str) else value}
    return value


def refuse_true(value: object) -> object:
    """As text, so that it is no 1."""
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
Endpoint = Annotated[str, AfterValidator(check_endpoint), Field(max_length=512, examples=["/mcp"])]
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
Price = Annotated[
    Any,  # `Money` or `values.Booked`
    PlainValidator(values.parse_price),
    PlainSerializer(values.write_price, return_type=Any),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "pattern": f"^{values.MONEY}$", "examples": ["0.002 USD"]},
                {
                    "type": "object",
                    "description": "By what a call used, at the prices of a book",
                    "properties": {
                        "book": {"type": "string", "pattern": f"^{values.NAME}$", "examples": ["openai"]},
                        "max_tokens": {"type": "integer", "minimum": 1, "maximum": values.MAX_TOKENS},
                    },
                    "required": ["book"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
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
