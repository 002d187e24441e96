"""`exeat catalogue`: what is known of services and their tools, and files for what is not known yet."""

from pathlib import Path
from typing import Final

import click

from control.catalogue.views import (
    calls_of,
    catalogue_at,
    effects_of,
    found,
    origin_of,
    service_view,
    tool_view,
)
from control.cli.catalogue_import import import_group
from control.cli.invocation import Exit, Invocation, Trouble, columns, command_options, counted
from control.codec import Json
from control.operations import PolicyRefused
from rules.catalogue.catalogue import MCP, Catalogue
from rules.catalogue.effect import EFFECTS
from rules.catalogue.known import KnownService
from rules.catalogue.tool import NEVER, Tool

_KINDS: Final = {"text": "recipients", "mail": "recipients (mail addresses)", "message": "recipients (of a message)"}

_policy = click.option(
    "--policy", "path", type=click.Path(path_type=Path), metavar="PATH", help="With the services of this policy."
)


@click.group(short_help="List services and their tools, and import new ones.")
def catalogue() -> None:
    """List the services that policies can name tools of, and make files for new ones.

    docs/reference/catalogue.md has the format of such a file.
    """


catalogue.add_command(import_group)


@catalogue.command("list", short_help="List the services that are known.")
@_policy
@command_options
def list_command(invocation: Invocation, *, path: Path | None) -> None:
    """List the services that are known: their hosts, and how many tools of each effect they have."""
    known = _catalogue(path)
    services = [service for name in known.names if (service := known.named(name)) is not None]
    document: Json = {"services": [service_view(service, origin_of(service.name, known)) for service in services]}
    rows = [("SERVICE", *(effect.upper() for effect in EFFECTS), "FROM", "HOSTS")]
    for service in services:
        numbers = tuple(str(number) for number in effects_of(service).values())
        rows.append((service.name, *numbers, origin_of(service.name, known), _short(service.hosts)))
    invocation.answer(document, columns(rows))


@catalogue.command("show", short_help="Show a service's tools, or one tool in full.")
@click.argument("name", metavar="SERVICE|TOOL")
@_policy
@command_options
def show_command(invocation: Invocation, name: str, *, path: Path | None) -> None:
    """Show a service's tools (stripe), or one tool in full (stripe.refund.create).

    A request that fits none of a service's tools is its tool `unknown`, a write. Exit code 1 when there is none of
    that name.
    """
    known = _catalogue(path)
    thing = found(name, known)
    if isinstance(thing, Tool):
        invocation.answer(tool_view(thing), _tool_text(thing))
        return
    origin = origin_of(thing.name, known)
    document: Json = {**service_view(thing, origin), "tools": [tool_view(tool) for tool in thing.tools.values()]}
    invocation.answer(document, _service_text(thing, origin))


def _catalogue(path: Path | None) -> Catalogue:
    try:
        return catalogue_at(path)
    except PolicyRefused as refused:
        raise Trouble(f"{path} is not valid: {refused}", f"Look closer: exeat check {path}", Exit.NO) from refused


def _short(hosts: tuple[str, ...]) -> str:
    return " ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "") if hosts else "-"


def _service_text(service: KnownService, origin: str) -> str:
    head = f"{service.name}  {service.protocol}  {counted(len(service.tools), 'tool')}  ({origin})"
    lines = [head, *(f"  host {host}" for host in service.hosts)]
    lines += [f"  about {service.about}"] if service.about else []
    lines += [f"  MCP is spoken at {service.endpoint}"] if service.protocol == MCP else []
    lines += [
        f"  every root field at {path} is a tool too: query.FIELD reads, mutation.FIELD writes"
        for path in service.graphql
    ]
    lines.append(columns([("TOOL", "EFFECT", "UNDO", "KNOWN", "CALL"), *map(_row, service.tools.values())]))
    lines.append(f"anything else is {service.name}.unknown, a write")
    return "\n".join(line for line in lines if line)


def _row(tool: Tool) -> tuple[str, ...]:
    known = [word for word, text in (("amount", tool.amount_text), ("recipients", tool.recipients_text)) if text]
    known += ["tokens"] if tool.usage is not None else []
    if tool.batch:
        known.append("always refused")
    calls = calls_of(tool)
    more = f" (and {len(calls) - 1} more)" if len(calls) > 1 else ""
    call = calls[0] + more if calls else "-"
    return (tool.name, tool.effect, _undo(tool), ", ".join(known) or "-", call)


def _undo(tool: Tool) -> str:
    if tool.effect == "read":
        return "-"
    return {None: "not known", NEVER: "never"}.get(tool.undo, tool.undo or "")


def _tool_text(tool: Tool) -> str:
    rows: list[tuple[str, ...]] = [("effect", tool.effect)]
    rows += [("call", call) for call in calls_of(tool)]
    rows += [("where", tool.where_text)] if tool.where_text else []
    if tool.effect != "read":
        rows.append(("undo", {None: "not known", NEVER: "never: it is irreversible"}.get(tool.undo, tool.undo or "")))
    if tool.amount_text is not None:
        rows += [("amount", f"{tool.amount_text}  ({tool.unit} units)"), ("currency", tool.currency_text or "")]
    if tool.recipients_text is not None:
        rows.append((_KINDS[tool.recipients_kind], tool.recipients_text))
    rows += [("lookup", f"given {lookup.given}: GET {lookup.target}") for lookup in tool.lookups]
    if tool.usage is not None:
        usage = tool.usage
        said = usage.counts if usage.counts is not None else usage.headers or {}
        rows += [("model", usage.model_text)] if usage.model_text else []
        rows += [("tokens at most", usage.most_text)] if usage.most_text else []
        rows.append(("tokens", f"the reply tells {', '.join(said)}"))
    rows += [("costs", "what a call costs nobody can tell: denied where a limit counts it")] if tool.unpriced else []
    rows += [("batch", "it carries other requests, and is always refused")] if tool.batch else []
    rows += [("definition", tool.definition)] if tool.definition else []
    return f"{tool.name}\n{columns(rows, '  ')}"
