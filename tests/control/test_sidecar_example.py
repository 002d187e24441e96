"""The example of a pod: its commands are commands, and the agent shares with the gate what it must and no more."""

from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from control.cli import root

POD: dict[str, Any] = YAML(typ="safe").load(
    (Path(__file__).resolve().parents[2] / "examples/sidecar/pod.yaml").read_text(encoding="utf-8")
)
GATE, RELAY = POD["spec"]["initContainers"]
(AGENT,) = POD["spec"]["containers"]


def understood(arguments: list[str]) -> dict[str, Any]:
    """The options as the command line reads them. Raises for what it would refuse; only files are not looked for."""
    # With its settings: a command keeps what its first context says about --help.
    context = click.Context(root, **root.context_settings)
    command = root.get_command(context, arguments[0])
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    return command.make_context(arguments[0], list(arguments[1:]), parent=context).params


def mounts(container: dict[str, Any]) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("container", [GATE, RELAY], ids=["gate", "relay"])
def test_the_commands_are_commands(container: dict[str, Any]) -> None:
    assert understood(container["args"])
    with pytest.raises(click.UsageError):
        understood([*container["args"], "--no-such-option"])


def test_the_relay_writes_where_the_agent_reads_and_the_password_lies_where_it_looks() -> None:
    options = understood(RELAY["args"])
    assert options["env_file"].parent == Path(mounts(RELAY)["agent"]) == Path(mounts(AGENT)["agent"])
    assert options["password_file"].parent == Path(mounts(RELAY)["password"])
    assert str(options["env_file"]) in AGENT["command"][-1]
    assert str(options["env_file"]) in RELAY["startupProbe"]["exec"]["command"]
    assert options["listen"] == ("127.0.0.1", 9080)


def test_the_agent_shares_neither_user_nor_volume_with_the_gate() -> None:
    assert set(mounts(AGENT)) == {"agent"}
    assert AGENT["volumeMounts"][0]["readOnly"] is True
    assert not set(mounts(AGENT)) & set(mounts(GATE))
    users = [container["securityContext"]["runAsUser"] for container in (GATE, RELAY, AGENT)]
    assert users[0] == users[1] != users[2]
    assert mounts(GATE)["state"] == mounts(RELAY)["state"]
    assert GATE["env"] == RELAY["env"]
