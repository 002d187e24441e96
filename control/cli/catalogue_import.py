"""`exeat catalogue import`: files for the catalogue from what a service publishes about itself."""

import os
import re
from collections import Counter
from pathlib import Path

import click

from control.catalogue.document_reading import MAX_JSON_BYTES
from control.catalogue.mcp import import_mcp, mcp_service_name
from control.catalogue.mcp_server import McpServer
from control.catalogue.openapi import Imported, import_openapi
from control.cli.invocation import Exit, Invocation, Trouble, command_options, counted, say
from control.codec import Json
from rules.catalogue.effect import EFFECTS, Effect

_output = click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: standard output."
)


@click.group("import", short_help="Make a file for the catalogue.")
def import_group() -> None:
    """Make a file for the catalogue. Review it, then put it into the policy's folder."""


@import_group.command("openapi", short_help="From an OpenAPI document.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--service", metavar="NAME", help="Default: from the host, as in acme for api.acme.example.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="In place of the document's; repeatable.")
@_output
@command_options
def openapi(
    invocation: Invocation, file: Path, *, service: str | None, hosts: tuple[str, ...], output: Path | None
) -> None:
    """From an OpenAPI 3.0 or 3.1 document, JSON or YAML. Nothing is fetched.

    Each operation becomes a tool. GET and HEAD read, DELETE deletes, all else writes: review that. What cannot be
    written is left out, and said.
    """
    _check_output(output)
    imported = import_openapi(_read(file), service, hosts)
    finish(invocation, imported, output)


@import_group.command("mcp", short_help="From an MCP server's list of tools.")
@click.argument("url")
@click.option("--name", metavar="NAME", help="The service is mcp.NAME. Default: from the host.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent to the server; repeatable.")
@_output
@command_options
def mcp(invocation: Invocation, url: str, *, name: str | None, headers: tuple[str, ...], output: Path | None) -> None:
    """From the tools that an MCP server lists, over streamable HTTP.

    Each tool is pinned to its definition. Its effect is what the server says of itself (readOnlyHint,
    destructiveHint), and a write where it says nothing: review that.
    """
    _check_output(output)
    server = McpServer(url, dict(map(_header, headers)))
    service = mcp_service_name(url, name)
    finish(invocation, import_mcp(server.tools(), service, url), output)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or not (value.isascii() and value.isprintable()):
        # The text is not repeated: most headers that are given here are secrets.
        raise Trouble("--header is not a header", "Write it as in 'Authorization: Bearer ...'", Exit.WRONG_USE)
    return name, value


def finish(invocation: Invocation, imported: Imported, output: Path | None) -> None:
    """The file is written where it was asked for, and what is not in it is told."""
    if output is not None:
        _write(output, imported.text)
    effects = Counter(tool.effect for tool in imported.tools)
    left_out: Json = [{"operation": left.operation, "reason": left.reason} for left in imported.left_out]
    document: Json = {
        "service": imported.service,
        "hosts": list(imported.hosts),
        "tools": {effect: effects[effect] for effect in EFFECTS},
        "left_out": left_out,
        "file": None if output is None else str(output),
        "text": imported.text if output is None else None,
    }
    if not invocation.as_json:
        _tell(imported, effects)
    invocation.answer(document, imported.text.removesuffix("\n") if output is None else "")


def _tell(imported: Imported, effects: Counter[Effect]) -> None:
    numbers = ", ".join(f"{effects[effect]} {effect}" for effect in EFFECTS)
    say(f"{imported.service}: {counted(len(imported.tools), 'tool')} ({numbers}); review their effects")
    if not imported.hosts:
        say(f"no host is known: write service: {imported.service} in its connection")
    reasons = Counter(left.reason for left in imported.left_out)
    for reason, number in sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])):
        example = next(left.operation for left in imported.left_out if left.reason == reason)
        say(f"left out {number}: {reason}, as in {example}")
    if reasons:
        say(f"what is left out is {imported.service}.unknown, a write; --json lists it")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise Trouble(f"{file} cannot be read: {error.strerror}", "Check the path.", Exit.COULD_NOT) from error


def _check_output(output: Path | None) -> None:
    if output is not None and (output.exists() or output.is_symlink()):
        raise Trouble(
            f"{output} is there already",
            "What a person has reviewed is not overwritten: write beside it and compare.",
            Exit.WRONG_USE,
        )


def _write(output: Path, text: str) -> None:
    try:
        # Created by this command and by nothing in between.
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="ascii") as opened:
            opened.write(text)
    except OSError as error:
        raise Trouble(f"{output} cannot be written: {error.strerror}", "Check the folder.", Exit.COULD_NOT) from error
