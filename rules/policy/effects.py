"""What a rule's calls do: read, write or delete."""

from rules.catalogue.catalogue import NOTHING_ADDED
from rules.catalogue.effect import EFFECTS, of_method
from rules.catalogue.known import KnownService
from rules.catalogue.tool import HttpCall, Tool
from rules.policy.matcher import ANY, Rule, names_tools_of, wider
from rules.policy.templates import PARAMETER, Template


def effects_of(rule: Rule) -> frozenset[str]:
    """Every effect that a call which the rule matches may have. All that asks a rule for its effects asks here."""
    if rule.effects is not None:
        return rule.effects
    if rule.tools is not None:
        return frozenset(effect for name in rule.tools for effect in _of_tool(name))
    return _of_methods(rule)


def _of_tool(name: str) -> frozenset[str]:
    """What the tools that a name means do, as far as what comes with Exeat says; what is not known may do anything."""
    known = NOTHING_ADDED.named(name.partition(".")[0])
    if known is None:
        return frozenset(EFFECTS)
    if not name.endswith(ANY):
        return frozenset({known.tools[name].effect}) if name in known.tools else frozenset(EFFECTS)
    beginning = name.removesuffix(ANY)
    found = frozenset(tool.effect for whole, tool in known.tools.items() if whole.startswith(beginning))
    return found if found and beginning != f"{known.name}." else frozenset(EFFECTS)


def effects_on(rule: Rule, service: KnownService | None, never: tuple[Rule, ...] = ()) -> frozenset[str]:
    """Every effect that a call which the rule matches may have on a connection to this service; empty: it matches none.

    `never` are the deny rules there that ask for tools or effects and for nothing else: what they keep out is left out.
    """
    found = _on_unknown(rule) if service is None else _on_known(rule, service, never)
    denied = frozenset(effect for deny in never if deny.tools is None for effect in deny.effects or ())
    if "write" in denied:  # who denies writes means what a delete does, too
        return found & {"read"} if service is not None else frozenset()
    # Where the catalogue does not tell a delete from a write, to deny deletes may keep nothing out.
    return found - denied if service is not None and service.protocol == "rest" else found


def _on_unknown(rule: Rule) -> frozenset[str]:
    """What is not known is a write of an unknown tool; told is what its method says."""
    if rule.effects is not None and "write" not in rule.effects:
        return frozenset()
    if rule.tools is not None and not {ANY, "unknown"} & set(rule.tools):
        return frozenset()
    return _of_methods(rule)


def _on_known(rule: Rule, service: KnownService, never: tuple[Rule, ...]) -> frozenset[str]:
    named = (ANY,) if rule.tools is None else tuple(name for name in rule.tools if names_tools_of(name, service.name))
    gone = {name for deny in never if deny.effects is None for name in deny.tools or ()}
    found: set[str] = set()
    for name, tool in service.tools.items():
        if {name, *wider(name)} & set(named) and not {name, *wider(name)} & gone and _fits(rule, tool):
            found.add(tool.effect)
    whole = {ANY, f"{service.name}.*"}
    if whole.isdisjoint(gone):
        if rule.tools is None and rule.effects is None:
            found |= _of_methods(rule)
        elif service.protocol == "mcp" or service.graphql:
            # What is not listed is for GraphQL and MCP as it says itself.
            found |= set(EFFECTS) if named else set()
        elif any(not name.endswith(ANY) and name not in service.tools for name in named):
            found |= {"write", "delete"}
    return frozenset(found if rule.effects is None else found & rule.effects)


def _fits(rule: Rule, tool: Tool) -> bool:
    """Whether a request line that the rule's place admits can stand for the tool."""
    calls = [call for call in tool.calls if isinstance(call, HttpCall)]
    if len(calls) < len(tool.calls) or not calls:
        return True  # a field of GraphQL, or a tool of an MCP server, has any
    return any(
        (rule.methods is None or call.method in rule.methods) and overlap(rule.template, call.template)
        for call in calls
    )


def overlap(one: Template, other: Template) -> bool:
    """Whether some path fits both."""
    short, long = sorted((one, other), key=lambda template: len(template.segments))
    if len(short.segments) < len(long.segments) and not short.rest:
        return False
    pairs = zip(short.segments, long.segments, strict=False)
    return all(PARAMETER in pair or pair[0] == pair[1] for pair in pairs)


def _of_methods(rule: Rule) -> frozenset[str]:
    return frozenset(EFFECTS) if rule.methods is None else frozenset(of_method(method) for method in rule.methods)


def only_reads(rule: Rule) -> bool:
    """Whether no call that the rule matches changes anything."""
    return effects_of(rule) <= {"read"}
