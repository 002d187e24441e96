"""What must hold between the parts of one tenant's policy, beyond the schema of each part."""

from collections.abc import Iterable, Iterator
from typing import Final

from rules.bodies import HELD
from rules.catalogue.catalogue import NOTHING_ADDED, Catalogue
from rules.conditions.condition import compile_condition
from rules.policy import values
from rules.policy.addresses import parse_dial
from rules.policy.alert_checks import check_alerts
from rules.policy.finding import (
    DENIED_RULE,
    DUPLICATE_RULE,
    INSPECTED_STREAM,
    NO_ALLOW_RULE,
    UNUSED_CONNECTION,
    Finding,
)
from rules.policy.hosts import literal_address
from rules.policy.limit_checks import check_limits
from rules.policy.matcher import ANY, Matcher, Rule
from rules.policy.models import AccountDocument, ConnectionDocument, RuleDocument, TenantDocument
from rules.policy.ports import not_http
from rules.policy.price_checks import check_prices
from rules.policy.reading import Location
from rules.policy.templates import parse_template
from rules.policy.tool_checks import check_services, check_tools, check_workflows
from rules.prices.library import NOTHING_ADDED as NO_BOOKS_ADDED
from rules.prices.library import Library

MAX_TTL_SECONDS: Final = 24 * 3600
"""No agent's credential lives longer, whatever a policy says."""
DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def check(
    document: TenantDocument,
    catalogue: Catalogue = NOTHING_ADDED,
    library: Library = NO_BOOKS_ADDED,
    declared: Iterable[str] | None = (),
) -> Iterator[Finding]:
    """Every finding in a tenant's policy, beside this catalogue and these price books.

    `declared` names connections that are written but could not be read, so that one mistake is not reported as many;
    None when it is not known which are, and references to them are not judged.
    """
    names = None if declared is None else tuple(sorted({*document.connections, *declared}))
    yield from _credentials(document)
    yield from _connections(document)
    yield from check_services(document, catalogue)
    yield from check_limits(document, catalogue, library, names)
    yield from check_prices(document, catalogue, library)
    yield from check_workflows(document, catalogue)
    yield from check_alerts(document)
    used: set[str] = set()
    for name, account in document.accounts.items():
        yield from _stage(name, account)
        yield from _rules(name, account, names)
        yield from check_tools(name, account, document, catalogue)
        used.update(rule.allow.connection or ANY for rule in account.rules if rule.allow is not None)
    if ANY not in used:
        for name in document.connections:
            if name not in used:
                yield Finding(
                    ("connections", name),
                    "no rule allows a call on this connection",
                    "remove it or allow some",
                    False,
                    True,
                    UNUSED_CONNECTION,
                )


def _credentials(document: TenantDocument) -> Iterator[Finding]:
    credentials = document.credentials
    if credentials.max_ttl > MAX_TTL_SECONDS:
        yield Finding(("credentials", "max_ttl"), "max_ttl: longer than a credential may live", "write at most 24h")
    if credentials.ttl > credentials.max_ttl:
        fix = f"write ttl: {values.write_duration(credentials.max_ttl)} or less, or raise max_ttl"
        yield Finding(("credentials", "ttl"), "ttl: longer than max_ttl", fix)


def destination(connection: ConnectionDocument) -> tuple[str, str, int]:
    """Scheme, host and port that a connection stands for."""
    return connection.scheme, connection.host, connection.port or DEFAULT_PORTS[connection.scheme]


def _connections(document: TenantDocument) -> Iterator[Finding]:
    taken: dict[tuple[str, str, int], str] = {}
    for name, connection in document.connections.items():
        at = ("connections", name)
        scheme, host, port = destination(connection)
        first = taken.setdefault((scheme, host, port), name)
        if first != name:
            # A call is told apart by its destination only; two connections to one would make the secret a guess.
            yield Finding(
                (*at, "host"), f"{scheme}://{host}:{port} is connection {first} already", "remove one of them"
            )
        if scheme == "http":
            if not connection.unsafe_plaintext:
                yield Finding(
                    (*at, "scheme"),
                    "http sends the call and its secret readable",
                    "use https, or add unsafe_plaintext: true if the network is trusted with them",
                )
            for key in ("ca", "extra_ca"):
                if getattr(connection, key) is not None:
                    yield Finding(
                        (*at, key), f"{key}: http has no certificate to verify", f"remove {key}, or use https"
                    )
        elif connection.unsafe_plaintext:
            yield Finding((*at, "unsafe_plaintext"), "unsafe_plaintext: the scheme is https", "remove it")
        if connection.ca is not None and connection.extra_ca is not None:
            yield Finding(
                (*at, "extra_ca"),
                "extra_ca: means nothing beside ca, which replaces the public authorities",
                "keep one of them; put all certificates into its file",
            )
        yield from _port(at, connection, port)
        if connection.present is not None and connection.secret is None:
            yield Finding((*at, "present"), "present: there is no secret to present", "add secret: NAME, or remove it")
        if connection.dial is not None and connection.networks is not None:
            yield Finding((*at, "networks"), "networks: means nothing beside dial", "remove networks or dial")
        address = literal_address(host)
        if address is not None and connection.dial is None and not address.is_global:
            inside = any(address in network for network in connection.networks or ())
            if not inside:
                yield Finding((*at, "host"), f"host: {address} is a private address", f"add networks: [{address}]")


def _port(at: Location, connection: ConnectionDocument, port: int) -> Iterator[Finding]:
    """The port that will be dialled has to be one where HTTP can be meant."""
    dialled = None if connection.dial is None else parse_dial(connection.dial)[1]
    spoken = not_http(port if dialled is None else dialled)
    if spoken is not None and not connection.unsafe_port:
        key = "port" if dialled is None else "dial"
        yield Finding(
            (*at, key),
            f"{key}: port {dialled or port} belongs to another service ({spoken})",
            "name the port of the HTTP service, or add unsafe_port: true if HTTP is spoken there",
        )
    elif spoken is None and connection.unsafe_port:
        yield Finding((*at, "unsafe_port"), "unsafe_port: this port needs none", "remove it")


def _stage(name: str, account: AccountDocument) -> Iterator[Finding]:
    at: Location = ("accounts", name)
    if account.stage == "observe" and account.until is None:
        message = "stage: observe has no end"
        yield Finding((*at, "stage"), message, "add until: and the last day on which rules are only tried")
    if account.stage != "observe" and account.until is not None:
        yield Finding((*at, "until"), "until: only stage observe ends", "remove it, or write stage: observe")


def _rules(name: str, account: AccountDocument, connections: tuple[str, ...] | None) -> Iterator[Finding]:
    at: Location = ("accounts", name, "rules")
    ids: dict[str, int] = {}
    for index, rule in enumerate(account.rules):
        here = (*at, index)
        if ids.setdefault(rule.id, index) != index:
            yield Finding((*here, "id"), f"id: {rule.id} is taken by a rule above", "rename one of them")
        if (rule.allow is None) == (rule.deny is None):
            yield Finding(here, f"{rule.id} must either allow or deny", "write one of allow: and deny:")
            continue
        verb, target = ("allow", rule.allow) if rule.allow is not None else ("deny", rule.deny)
        if target is None:
            continue
        if target.connection is None and target.tools is None and (verb == "allow" or target.effects is None):
            message = f"{rule.id} says neither which connection nor which tools"
            yield Finding((*here, verb), message, "add connection: NAME and path:, or tools:")
        elif rule.allow is not None and rule.allow.path is None and target.tools is None and target.effects is None:
            yield Finding((*here, verb), "path: is missing", "add path: /api/**, or say which tools: or effects:")
        if target.connection is not None and connections is not None and target.connection not in (ANY, *connections):
            yield Finding(
                (*here, verb, "connection"),
                f"connection: {target.connection} is not declared",
                values.suggest(target.connection, connections),
            )
    yield from _unmatchable(name, account)


def _unmatchable(name: str, account: AccountDocument) -> Iterator[Finding]:
    at: Location = ("accounts", name)
    allow = compiled_rules(account.rules, allow=True)
    if not allow:
        message = f"{name} has no allow rule: every call is denied"
        yield Finding(at, message, "allow what it needs", False, True, NO_ALLOW_RULE)
        return
    deny = compiled_rules(account.rules, allow=False)
    always = Matcher(tuple(rule for rule in deny if rule.by_place))
    seen: dict[tuple[object, ...], str] = {}
    for allows, rule in (*((False, rule) for rule in deny), *((True, rule) for rule in allow)):
        # Templates that differ only in their parameters' names are one.
        same = (
            allows,
            rule.connection,
            rule.methods,
            rule.template.segments,
            rule.template.rest,
            rule.when,
            rule.tools,
            rule.effects,
        )
        first = seen.setdefault(same, rule.id)
        if first != rule.id:
            here = (*at, "rules", rule.position)
            yield Finding(here, f"{rule.id} says the same as {first}", "remove one of them", False, name=DUPLICATE_RULE)
    for rule in allow:
        over = always.covering(rule)
        if over is not None:
            yield Finding(
                (*at, "rules", rule.position),
                f"{rule.id} can never allow a call: {over.id} denies all of them",
                f"narrow {over.id}, or remove {rule.id}",
                fatal=False,
                name=DENIED_RULE,
            )
    reading = tuple(rule for rule in (*allow, *deny) if rule.reads_body)
    inspecting = Matcher(tuple(rule for rule in reading if rule.tools is None and rule.effects is None))
    for rule in allow:
        reads = None if rule.body.stream_bytes is None else inspecting.covering(rule)
        if reads is not None:
            yield Finding(
                (*at, "rules", rule.position),
                f"{rule.id} can never stream a body: {reads.id} reads all of them",
                f"narrow {reads.id}, or remove body from {rule.id}",
                fatal=False,
                name=INSPECTED_STREAM,
            )


def compiled_rules(rules: Iterable[RuleDocument], *, allow: bool) -> tuple[Rule, ...]:
    """The allow or the deny rules, compiled, with their positions in the whole list."""
    found: list[Rule] = []
    for position, rule in enumerate(rules):
        target = rule.allow if allow else rule.deny
        if target is not None:
            found.append(
                Rule(
                    rule.id,
                    target.connection or ANY,
                    None if target.methods is None else frozenset(target.methods),
                    parse_template(target.path or "/**"),
                    position,
                    (rule.allow.body if rule.allow is not None else None) or HELD,
                    None if rule.when is None else compile_condition(rule.when),
                    None if target.tools is None else tuple(target.tools),
                    None if target.effects is None else frozenset(target.effects),
                )
            )
    return tuple(found)


__all__ = ["DEFAULT_PORTS", "MAX_TTL_SECONDS", "Finding", "check", "compiled_rules", "destination"]
