"""The policy as calls are judged by it: frozen, indexed, and identified by the digest of its bundle.

The bundle is the whole policy as canonical JSON (RFC 8785), authorities' certificates included. What is stored, sent to
another node or named in a record is the bundle or its digest; YAML is only how people write one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from credentials.binding import Binding
from credentials.presentation import Bearer
from rules.alerts.destination import AlertDestination
from rules.catalogue.catalogue import MCP, Catalogue, catalogue_of
from rules.catalogue.known import KnownService
from rules.conditions.variables import OF_TOOL
from rules.limits.limit import Limits, Plan
from rules.limits.plan import limits_of, plan_of, share_of
from rules.policy import values
from rules.policy.addresses import parse_dial
from rules.policy.alert_models import destination_of
from rules.policy.authorities import ALERTS
from rules.policy.bundle import BUNDLE_VERSION, canonical_json, read_bundle
from rules.policy.checks import compiled_rules, destination
from rules.policy.matcher import ANY, Matcher, Rule, names_tools_of
from rules.policy.models import AccountDocument, ConnectionDocument, TenantDocument
from rules.policy.source import PolicySource
from rules.policy.workflow_models import WorkflowDocument
from rules.prices.book import Book
from rules.prices.library import Library, library_of
from rules.services import Service, named, of_host
from rules.workflows import WorkflowOutcome

KEEP_INPUTS_SECONDS: Final = 30 * 86_400
"""Where a policy does not say, or is no more."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A tenant's link to one destination."""

    tenant: str
    name: str
    scheme: str
    host: str
    port: int
    service: Service | None
    """Whose clients' errors denials look like; None: problem details."""
    known: KnownService | None
    """What the catalogue knows of the service; None: each call is a write of an unknown tool."""
    account: str | None
    """The account at the vendor that every call has to be about; None: whichever the secret reaches."""
    mode: str | None
    """What kind of secret it takes, as the service has kinds."""
    binding: Binding | None
    """Which secret is attached, and how; None: none is."""
    dial: tuple[str, int] | None
    """Literal address and port to dial in place of what DNS says."""
    networks: tuple[IPv4Network | IPv6Network, ...]
    """Private networks that the host's addresses may lie in."""
    ca_pem: str | None
    """The authorities that the host is verified against: instead of the public ones, or beside them."""
    ca_added: bool
    """Whether `ca_pem` is trusted beside the public authorities."""
    denied_keys: frozenset[str]
    """SHA-256 in hexadecimal of the keys that the tenant trusts in no chain."""
    price_micros: int
    """What one call costs; 0 when it is free."""
    currency: str | None
    book: Book | None
    """What says what a call costs by what it used, in place of a price."""
    max_tokens: int | None
    """Tokens that are set aside for an answer, where a request does not say how many it may have; None: a guess."""
    unsafe_plaintext: bool


@dataclass(frozen=True, slots=True)
class Owners:
    """Who answers for an account."""

    accountable: str
    system: str
    risk: str


@dataclass(frozen=True, slots=True)
class Account:
    """A service account."""

    tenant: str
    name: str
    owners: Owners
    stage: str
    max_ttl_seconds: int
    default_ttl_seconds: int
    allow: Matcher
    deny: Matcher
    reading: Matcher
    """All rules, of both kinds, that read the body."""
    timed: Matcher
    """All rules, of both kinds, that ask for the time."""
    timed_allow: frozenset[str]
    """Those of them that allow."""
    by_clock: bool
    """Whether a call of it that is allowed now may be denied a little later, with nothing else changed."""
    conditional: bool
    """Whether any of its rules asks for more than connection, method and path."""
    by_tool: frozenset[str]
    """Connections on which it matters to a rule which tool a call is."""
    observed_until: datetime | None
    """Aware UTC; until then its rules are only tried, and what they deny is recorded; None: they are in force."""
    limits: Limits
    plan: Plan
    """By its own limits and its tenant's."""


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """One tenant's part of the active policy."""

    tenant: str
    digest: str
    """Of the whole set."""
    timezone: ZoneInfo
    roles: Mapping[str, tuple[str, ...]]
    accounts: Mapping[str, Account]
    connections: Mapping[str, Connection]
    denied_keys: frozenset[str]
    """SHA-256 in hexadecimal of keys that no certificate of an origin's chain may be over."""
    limits: Limits
    """Of all accounts together."""
    share_percent: int | None
    """Of every limit, what is granted while the counters that workers share cannot be asked; None: nothing."""
    alerts: Mapping[str, AlertDestination]
    """Where its alerts go besides the log."""
    keep_inputs_seconds: int
    """How long it is kept what calls were decided on; 0: not at all."""
    workflows: Mapping[str, WorkflowOutcome]
    """What counts as an outcome, of the workflows that say so."""
    _destinations: Mapping[tuple[str, str, int], Connection] = field(repr=False, compare=False)

    def connection_for(self, scheme: str, host: str, port: int) -> Connection | None:
        """The connection that a normalised destination belongs to; None when it belongs to none."""
        return self._destinations.get((scheme, host, port))


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that is applied as one."""

    digest: str
    """`sha256:` and 64 hex digits over `bundle`."""
    tenants: Mapping[str, TenantPolicy]
    bundle: bytes

    @classmethod
    def from_bundle(cls, bundle: bytes) -> "PolicySet":
        """The policy whose bundle this is, with the same bytes, digest and decisions.

        Raises PolicyInvalid when the bytes are no canonical bundle, or hold what this version refuses; the caller must
        not go on with another policy in its place.
        """
        source = read_bundle(bundle)
        catalogue, library = catalogue_of(source.services), library_of(source.books)
        return _compile(source.documents, source.authorities, bundle, catalogue, library)


def compile_policy(source: PolicySource) -> PolicySet:
    """The policy that a source says. Never fails for a source that `load_policy` returned."""
    data: dict[str, object] = {
        "bundle": BUNDLE_VERSION,
        "tenants": [document.model_dump(mode="json", exclude_none=True) for document in source.documents],
        "authorities": {tenant: dict(of_tenant) for tenant, of_tenant in source.authorities.items()},
    }
    if source.services:
        data["services"] = [s.model_dump(mode="json", exclude_none=True, exclude_unset=True) for s in source.services]
    if source.books:
        data["prices"] = [b.model_dump(mode="json", exclude_none=True, exclude_unset=True) for b in source.books]
    catalogue, library = catalogue_of(source.services), library_of(source.books)
    return _compile(source.documents, source.authorities, canonical_json(data), catalogue, library)


def _compile(
    documents: tuple[TenantDocument, ...],
    authorities: Mapping[str, Mapping[str, str]],
    bundle: bytes,
    catalogue: Catalogue,
    library: Library,
) -> PolicySet:
    digest = f"sha256:{hashlib.sha256(bundle).hexdigest()}"
    tenants = {
        document.tenant: _tenant(document, authorities.get(document.tenant, {}), digest, catalogue, library)
        for document in documents
    }
    return PolicySet(digest, MappingProxyType(tenants), bundle)


def _tenant(
    document: TenantDocument, authorities: Mapping[str, str], digest: str, catalogue: Catalogue, library: Library
) -> TenantPolicy:
    denied_keys = frozenset(key.removeprefix("sha256:") for key in document.denied_keys or ())
    connections = {
        name: _connection(document.tenant, name, connection, authorities.get(name), denied_keys, catalogue, library)
        for name, connection in document.connections.items()
    }
    whole = limits_of(document.limits)
    return TenantPolicy(
        tenant=document.tenant,
        digest=digest,
        timezone=values.zone(document.timezone),
        roles=MappingProxyType({role: tuple(people) for role, people in document.roles.items()}),
        accounts=MappingProxyType(
            {name: _account(document, name, account, connections, whole) for name, account in document.accounts.items()}
        ),
        connections=MappingProxyType(connections),
        denied_keys=denied_keys,
        limits=whole,
        share_percent=share_of(document.limits),
        alerts=MappingProxyType(
            {
                name: destination_of(document.tenant, name, alert, authorities.get(ALERTS + name), denied_keys)
                for name, alert in (document.alerts or {}).items()
            }
        ),
        keep_inputs_seconds=KEEP_INPUTS_SECONDS if document.inputs is None else document.inputs.keep,
        workflows=MappingProxyType({name: _outcome(one) for name, one in (document.workflows or {}).items()}),
        _destinations=MappingProxyType({(c.scheme, c.host, c.port): c for c in connections.values()}),
    )


def _outcome(document: WorkflowDocument) -> WorkflowOutcome:
    outcome = document.outcome
    return WorkflowOutcome(tuple(outcome.tools), None if outcome.status is None else frozenset(outcome.status))


def _connection(
    tenant: str,
    name: str,
    document: ConnectionDocument,
    ca_pem: str | None,
    denied_keys: frozenset[str],
    catalogue: Catalogue,
    library: Library,
) -> Connection:
    price = document.price
    book = library.named(price.book) if isinstance(price, values.Booked) else None
    scheme, host, port = destination(document)
    known = catalogue.of(name, host, document.service, document.endpoint)
    present = document.present or (None if known is None else known.present) or Bearer()
    binding = None
    if document.secret is not None:
        begins = () if known is None or document.mode is None else known.modes[document.mode]
        binding = Binding(tenant, name, scheme, host, port, document.secret, present, begins)
    dial = None
    if document.dial is not None:
        address, dial_port = parse_dial(document.dial)
        dial = (str(address), dial_port or port)
    return Connection(
        tenant=tenant,
        name=name,
        scheme=scheme,
        host=host,
        port=port,
        service=_form(host, document.service, known),
        known=known,
        account=document.account,
        mode=document.mode,
        binding=binding,
        dial=dial,
        networks=tuple(document.networks or ()),
        ca_pem=ca_pem,
        ca_added=document.extra_ca is not None,
        denied_keys=denied_keys,
        price_micros=price.micros if isinstance(price, values.Money) else 0,
        currency=price.currency if isinstance(price, values.Money) else None if book is None else book.currency,
        book=book,
        max_tokens=price.max_tokens if isinstance(price, values.Booked) else None,
        unsafe_plaintext=document.unsafe_plaintext,
    )


def _form(host: str, service: str | None, known: KnownService | None) -> Service | None:
    """Whose clients call there, in the table of services."""
    if known is not None and known.protocol == MCP:
        return named(MCP)
    return of_host(host) if service is None else named(service.partition(".")[0])


def _by_tool(rule: Rule, connection: Connection) -> bool:
    if rule.connection not in (ANY, connection.name):
        return False
    if rule.tools is not None:
        return connection.known is not None and any(names_tools_of(name, connection.known.name) for name in rule.tools)
    return rule.effects is not None or (rule.when is not None and not OF_TOOL.isdisjoint(rule.when.reads))


def _end(day: str | None, zone: ZoneInfo) -> datetime | None:
    """The end of a day that a policy writes, by its clocks."""
    if day is None:
        return None
    return (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=zone) + timedelta(days=1)).astimezone(UTC)


def _account(
    tenant: TenantDocument,
    name: str,
    document: AccountDocument,
    connections: Mapping[str, Connection],
    whole: Limits,
) -> Account:
    allow = compiled_rules(document.rules, allow=True)
    deny = compiled_rules(document.rules, allow=False)
    own = limits_of(document.limits)
    # Whether a tool is still what it was only the body tells, whatever the rules are about.
    pinned = frozenset(name for name, c in connections.items() if c.known is not None and c.known.pinned)
    timed = Matcher(tuple(rule for rule in (*allow, *deny) if rule.reads_time))
    return Account(
        tenant=tenant.tenant,
        name=name,
        owners=Owners(document.owners.accountable, document.owners.system, document.owners.risk),
        stage=document.stage,
        max_ttl_seconds=tenant.credentials.max_ttl,
        default_ttl_seconds=tenant.credentials.ttl,
        allow=Matcher(allow),
        deny=Matcher(deny),
        reading=Matcher(tuple(rule for rule in (*allow, *deny) if rule.reads_body)),
        timed=timed,
        timed_allow=frozenset(rule.id for rule in allow if rule.reads_time),
        by_clock=bool(timed.rules) or document.until is not None,
        conditional=bool(pinned) or not all(rule.by_place for rule in (*allow, *deny)),
        by_tool=pinned | {name for name, c in connections.items() if any(_by_tool(r, c) for r in (*allow, *deny))},
        observed_until=_end(document.until, values.zone(tenant.timezone)),
        limits=own,
        plan=plan_of(tenant.tenant, name, own, whole, connections),
    )


__all__ = [
    "ANY",
    "Account",
    "Connection",
    "Owners",
    "PolicySet",
    "TenantPolicy",
    "canonical_json",
    "compile_policy",
    "read_bundle",
]
