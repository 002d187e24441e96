"""The policy's schema. pydantic stays here, at the edge: `compile` turns a document into frozen dataclasses.

Every model refuses unknown keys and converts nothing by itself. A dumped document (`model_dump(mode="json")`) is again
a valid document with the same meaning; that is how a policy is stored.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rules.policy import cases
from rules.policy.alert_models import AlertDocument
from rules.policy.fields import (
    AtText,
    Authority,
    Body,
    CallText,
    ConnectionOrAny,
    Day,
    Dial,
    Duration,
    Effects,
    Email,
    Endpoint,
    ExpectedText,
    FormBody,
    Host,
    JsonBody,
    Keep,
    KeyHash,
    Method,
    Name,
    Network,
    Path,
    Present,
    Price,
    SecretName,
    ServiceName,
    ToolPattern,
    VendorAccount,
    When,
    Workflow,
    Zone,
    deny_everything,
    named_tools,
    refuse_true,
)
from rules.policy.limit_models import LimitsDocument, TenantLimitsDocument
from rules.policy.workflow_models import WorkflowDocument


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
    endpoint: Endpoint | None = Field(
        default=None, description="Path at which an MCP server speaks MCP; /mcp, or what its file says, when left out."
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
    price: Price | None = Field(default=None, description="What one call costs, or the price book that says it.")
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
            BeforeValidator(named_tools, json_schema_input_type=ToolPattern | list[ToolPattern] | AllowDocument),
        ]
        | None
    ) = None
    deny: (
        Annotated[
            DenyDocument,
            BeforeValidator(deny_everything, json_schema_input_type=ToolPattern | list[ToolPattern] | DenyDocument),
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

    exeat: Annotated[Literal[1], BeforeValidator(refuse_true)] = Field(description="Version of this schema.")
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
    limits: TenantLimitsDocument | None = Field(
        default=None, description="What all accounts may use together, beside each one's own limits."
    )
    alerts: dict[Name, AlertDocument] | None = Field(
        default=None, max_length=64, description="Where alerts go, by name; the log has them in any case."
    )
    connections: dict[Name, ConnectionDocument] = {}
    accounts: dict[Name, AccountDocument] = {}
    workflows: dict[Workflow, WorkflowDocument] | None = Field(
        default=None, min_length=1, max_length=1000, description="What agents do, and what counts as its outcome."
    )
    tests: list[CaseDocument] | None = Field(
        default=None,
        min_length=1,
        max_length=cases.MAX_CASES,
        description="Calls and what must become of them; a policy that fails one is not applied.",
    )
