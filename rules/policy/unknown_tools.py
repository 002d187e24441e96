"""Rules that open what the catalogue does not know of a service, beside rules that deny some of its tools.

Under another path than the catalogue has the service may take the one for the other.
"""

from collections.abc import Iterator

from rules.catalogue.catalogue import Catalogue
from rules.catalogue.known import KnownService
from rules.catalogue.loose import loose
from rules.catalogue.tool import HttpCall
from rules.policy.checks import compiled_rules
from rules.policy.effects import overlap
from rules.policy.finding import UNKNOWN_BESIDE_DENIED, Finding
from rules.policy.matcher import ANY, Rule, names_tools_of, wider
from rules.policy.models import TenantDocument


def unknown_beside_denied(document: TenantDocument, catalogue: Catalogue) -> Iterator[Finding]:
    """A warning for each such allow rule."""
    connected = {
        name: known
        for name, of in document.connections.items()
        if (known := catalogue.of(name, of.host, of.service, of.endpoint)) is not None
    }
    for name, account in document.accounts.items():
        deny = compiled_rules(account.rules, allow=False)
        if all(rule.tools is None for rule in deny):
            continue
        warned: set[int] = set()
        allow = compiled_rules(account.rules, allow=True)
        for connection, known in connected.items():
            denied = _denied(deny, connection, known)
            for rule in allow if denied else ():
                if rule.connection not in (ANY, connection) or rule.position in warned or not _opens(rule, known):
                    continue
                over = next((over for call, over in denied if _meets(rule, call)), None)
                if over is None:
                    continue
                warned.add(rule.position)
                message = (
                    f"{rule.id} allows what is not known of {known.name}, and {over.id} denies a tool of it: under"
                    " another path the service may take the one for the other"
                )
                fix = f"name tools in {rule.id} or a narrower path:, or deny {known.name}.unknown"
                at = ("accounts", name, "rules", rule.position)
                yield Finding(at, message, fix, False, name=UNKNOWN_BESIDE_DENIED)


def _denied(deny: tuple[Rule, ...], connection: str, known: KnownService) -> tuple[tuple[HttpCall | None, Rule], ...]:
    """The calls of the service's tools that are denied, in their loose form, each with the first rule that does; None
    stands for those of MCP. Empty where all that is unknown is denied, too."""
    here = tuple(rule for rule in deny if rule.connection in (ANY, connection))
    if any(_closes(rule, known) for rule in here):
        return ()
    by_name: dict[str, Rule] = {}
    for rule in here:
        for name in rule.tools or ():
            if names_tools_of(name, known.name):
                by_name.setdefault(name, rule)
    if known.protocol == "mcp":
        return tuple((None, rule) for rule in list(by_name.values())[:1])
    # What is not listed, or is a field of GraphQL, has its own name under every path.
    return tuple(
        (HttpCall(call.method, loose(call.template)), by_name[named])
        for tool in known.tools.values()
        if (named := next((name for name in (tool.name, *wider(tool.name)) if name in by_name), None)) is not None
        for call in tool.calls
        if isinstance(call, HttpCall)
    )


def _opens(rule: Rule, known: KnownService) -> bool:
    """Whether it allows what is unknown: by that name, or by a place that is more than one path."""
    if rule.tools is not None:
        return f"{known.name}.unknown" in rule.tools
    return rule.effects is None and rule.template.rest


def _closes(rule: Rule, known: KnownService) -> bool:
    """Whether it denies all that is unknown."""
    if rule.when is not None or rule.methods is not None or rule.template.segments:
        return False
    of_tool = rule.tools is None or not {ANY, f"{known.name}.*", f"{known.name}.unknown"}.isdisjoint(rule.tools)
    return of_tool and (rule.effects is None or "write" in rule.effects)


def _meets(rule: Rule, call: HttpCall | None) -> bool:
    """Whether a request that the allow rule lets out may be this call."""
    if call is None:
        return rule.methods is None or "POST" in rule.methods
    return (rule.methods is None or call.method in rule.methods) and overlap(loose(rule.template), call.template)
