"""The page about workers and the compose file: what they say to type is understood, and fits together."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from control.cli import root

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/how-to/workers.md").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
GATE, COUNTERS = COMPOSE["services"]["gate"], COMPOSE["services"]["counters"]


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options as the command line reads them. Raises for what it would refuse; only files are not looked for."""
    context: click.Context = click.Context(root, **root.context_settings)
    command: click.Command | None = root
    while isinstance(command, click.Group):
        command = command.get_command(context, arguments.pop(0))
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    return command.make_context("exeat", list(arguments), parent=context).params


def test_the_pages_commands_are_commands() -> None:
    commands = re.findall(r"^\$ exeat (.*)$", PAGE, re.M)
    assert len(commands) == 4
    for command in commands:
        understood(shlex.split(command))


def test_the_compose_file_starts_workers_that_find_their_counters() -> None:
    options = understood(list(GATE["command"]))
    assert options["workers"] == 2
    assert options["redis"] == "redis://counters:6379/0"
    assert str(options["redis_auth"]) == "/run/secrets/counters"
    assert {secret["source"] for secret in GATE["secrets"]} == {"counters"}
    assert str(options["state"]) == GATE["volumes"][0].partition(":")[2]
    assert set(COUNTERS["networks"]) & set(GATE["networks"])
    assert COMPOSE["networks"]["counters"]["internal"], "nobody else reaches the counters"


def test_the_compose_files_counters_forget_nothing_and_are_locked() -> None:
    command = COUNTERS["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--aclfile") + 1] == f"/run/secrets/{COUNTERS['secrets'][0]}"
    assert "ports" not in COUNTERS
