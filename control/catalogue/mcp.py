"""A catalogue file from an MCP server's list of tools, each pinned to the definition that the server gave.

The effects are what the server says of itself in `annotations`; MCP calls these hints, and a client that makes
decisions by them trusts the server. So the file says so, and a person decides.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from control.catalogue.openapi import Imported, LeftOut
from control.catalogue.tool_names import RESERVED
from control.catalogue.writing import Draft, catalogue_text
from control.operations import Refused, WrongUse
from proxy.replies.definition import definition_digest
from proxy.replies.reading import Value
from rules.catalogue.catalogue import MCP
from rules.catalogue.document import SERVICE, TOOL
from rules.catalogue.effect import Effect
from rules.content.refused import ContentRefused
from rules.policy.hosts import literal_address, normalise_host
from rules.policy.invalid import ValueInvalid
from rules.policy.templates import check_endpoint

_NOT_WRITTEN: Final = "its name cannot be written in a catalogue"


def mcp_service_name(url: str, name: str | None) -> str:
    """`mcp.NAME`; from the host when none is given. Raises `WrongUse`."""
    if name is None:
        labels = [label for label in (urlsplit(url).hostname or "").split(".") if label not in ("mcp", "api", "www")]
        name = labels[0] if len(labels) > 1 and not labels[-1].isdigit() else None
        if name is None:
            raise WrongUse("the URL does not say what to call the server", "Name it: --name tracker")
    service = f"{MCP}.{name.removeprefix(f'{MCP}.')}"
    if not re.fullmatch(SERVICE, service, re.ASCII):
        raise WrongUse("not a name", "Use lower-case letters, digits, - and _: --name tracker")
    return service


def import_mcp(listed: list[Value], service: str, url: str) -> Imported:
    """The file for these tools. Raises `Refused`."""
    tools: dict[str, Draft] = {}
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for tool in listed:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(name, str):
            raise Refused("the server lists a tool without a name", "The gate would refuse the whole list.")
        shown = name[:128] if name.isprintable() and name.isascii() else "one with characters that cannot be shown"
        if name in seen:
            # Which of two would be called is the server's secret.
            tools.pop(name, None)
            left_out.append(LeftOut(shown, "the server lists the name twice"))
            continue
        seen.add(name)
        if name in RESERVED or len(name) > 128 or not re.fullmatch(TOOL, name, re.ASCII):
            left_out.append(LeftOut(shown, _NOT_WRITTEN))
            continue
        try:
            tools[name] = Draft(name, effect_of(tool), definition=definition_digest(tool))
        except ContentRefused as error:
            left_out.append(LeftOut(shown, f"its definition has no digest: {error.detail}"))
    if not tools:
        raise Refused("none of the server's tools can be written", left_out[0].reason if left_out else "It has none.")
    comments = [
        "Made by `exeat catalogue import mcp`. Effects are what the server says of itself: review each of them.",
        "definition: pins a tool to what it was; one that changes is neither shown nor called until it is accepted.",
    ]
    hosts = _hosts(url)
    try:
        text = catalogue_text(service, hosts, "mcp", tools.values(), comments, _endpoint(url))
    except (ValidationError, ValueError) as error:
        raise Refused("the file would not be valid", "Please report it.") from error
    return Imported(text, service, hosts, tuple(tools.values()), tuple(left_out))


def effect_of(tool: dict[str, Value]) -> Effect:
    """What the server declares; a write where it does not, and the worse where it says two things."""
    annotations = tool.get("annotations")
    hints = annotations if isinstance(annotations, dict) else {}
    if hints.get("destructiveHint") is True:
        return "delete"
    return "read" if hints.get("readOnlyHint") is True else "write"


def _endpoint(url: str) -> str:
    """Where the server spoke MCP. Raises `WrongUse`."""
    try:
        return check_endpoint(urlsplit(url).path or "/")
    except ValueInvalid as error:
        raise WrongUse(f"the URL's path: {error.message}", error.fix) from None


def _hosts(url: str) -> tuple[str, ...]:
    try:
        host = normalise_host(urlsplit(url).hostname or "")
    except ValueInvalid:
        return ()
    # An address, or this machine, is shared by many services.
    return () if literal_address(host) is not None or host == "localhost" else (host,)
