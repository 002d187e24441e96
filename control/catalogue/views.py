"""What the catalogue knows, as operators are shown it."""

from collections import Counter
from pathlib import Path

from control.codec import Json
from control.operations import Refused
from control.policies import check_policy
from rules.catalogue.builtin import BUILTIN
from rules.catalogue.catalogue import NOTHING_ADDED, Catalogue, catalogue_of
from rules.catalogue.effect import EFFECTS
from rules.catalogue.known import KnownService
from rules.catalogue.tool import Field, HttpCall, Tool
from rules.catalogue.usage import Usage
from rules.policy.values import suggest


def catalogue_at(policy: Path | None) -> Catalogue:
    """What comes with Exeat, with what a policy adds. Raises `PolicyRefused` for a policy that is not valid."""
    return NOTHING_ADDED if policy is None else catalogue_of(check_policy(policy).source.services)


def origin_of(name: str, catalogue: Catalogue) -> str:
    """Where a service is described: `built in`, `policy`, or both."""
    added = any(document.service == name for document in catalogue.documents)
    if not added:
        return "built in"
    return "built in, policy" if name in BUILTIN else "policy"


def effects_of(service: KnownService) -> dict[str, int]:
    """How many of a service's tools have which effect; every effect is there."""
    counted = Counter(tool.effect for tool in service.tools.values())
    return {effect: counted[effect] for effect in EFFECTS}


def found(name: str, catalogue: Catalogue) -> KnownService | Tool:
    """The service or the tool of that name. Raises `Refused` with the nearest name."""
    service = catalogue.named(name)
    if service is not None:
        return service
    # A service's name may have a dot of its own: mcp.tracker.
    parts = name.split(".")
    owner = next(
        (
            known
            for size in (2, 1)
            if (known := catalogue.named(".".join(parts[:size]))) is not None and size < len(parts)
        ),
        None,
    )
    if owner is None:
        fix = suggest(parts[0] if "." in name else name, catalogue.names)
        raise Refused(f"the catalogue has no service or tool {shown(name)}", fix)
    tool = owner.tools.get(name)
    if tool is None:
        near = suggest(name, tuple(owner.tools))
        fix = near if near.startswith("did") else f"exeat catalogue show {owner.name} lists its tools."
        raise Refused(f"{owner.name} has no tool {shown(name)}; a request for it is {owner.name}.unknown", fix)
    return tool


def shown(name: str) -> str:
    """A name that somebody typed, fit for a terminal."""
    return name[:128] if name.isprintable() else "of that name"


def calls_of(tool: Tool) -> list[str]:
    """The requests that are this tool, as the format writes them; empty for one of an MCP server."""
    return [_call(call) for call in tool.calls]


def _call(call: HttpCall | Field) -> str:
    if isinstance(call, Field):
        return f"{call.operation} {call.name}"
    return f"{call.method} {call.template.text}"


def tool_view(tool: Tool) -> dict[str, Json]:
    """All that is known of a tool."""
    return {
        "tool": tool.name,
        "effect": tool.effect,
        "calls": list(calls_of(tool)),
        "where": tool.where_text,
        "undo": tool.undo,
        "amount": tool.amount_text,
        "unit": None if tool.amount_text is None else tool.unit,
        "currency": tool.currency_text,
        "recipients": tool.recipients_text,
        "recipients_kind": None if tool.recipients_text is None else tool.recipients_kind,
        "lookups": [{"given": lookup.given, "get": lookup.target} for lookup in tool.lookups],
        "told": {unit: at if isinstance(at, str) else ".".join(at) for unit, at in tool.told},
        "usage": None if tool.usage is None else _usage_view(tool.usage),
        "costs": "unknown" if tool.unpriced else None,
        "batch": tool.batch,
        "definition": tool.definition,
    }


def _usage_view(usage: Usage) -> dict[str, Json]:
    """How what a tool's calls use is told."""
    counts: Json = {kind: ".".join(path) for kind, path in usage.counts.items()} if usage.counts is not None else None
    events: list[Json] = [".".join(path) for path in usage.events]
    done: list[Json] = [*sorted(usage.done)]
    free: list[Json] = [*sorted(usage.free)]
    return {
        "model": usage.model_text,
        "tiers": usage.tiers_text,
        "most": usage.most_text,
        "times": usage.times_text,
        "elsewhere": usage.elsewhere_text,
        "hidden": usage.hidden,
        "reply": None if usage.reply is None else ".".join(usage.reply),
        "events": events,
        "done": done,
        "counts": counts,
        "inside": dict(usage.inside or {}),
        "headers": None if usage.headers is None else dict(usage.headers),
        "free": free,
    }


def service_view(service: KnownService, origin: str) -> dict[str, Json]:
    """A service as a whole, without its tools."""
    return {
        "service": service.name,
        "from": origin,
        "hosts": list(service.hosts),
        "protocol": service.protocol,
        "graphql": list(service.graphql),
        "endpoint": service.endpoint if service.protocol == "mcp" else None,
        "about": service.about,
        "tools": dict(effects_of(service)),
    }
