"""examples/kubernetes: whatever runs in the agents' namespace may send to the gate's port and nowhere else."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from control.cli import root

FOLDER = Path(__file__).resolve().parents[2] / "examples/kubernetes"
PORT = 8443


def documents(name: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((FOLDER / name).read_text(encoding="utf-8")))


AGENTS, GATE = documents("agents.yaml"), documents("gate.yaml")


def of_kind(kind: str, among: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in among if one["kind"] == kind]


def pods(among: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in among if one["kind"] in ("Deployment", "Job")]


def ways_out(agents: list[dict[str, Any]]) -> list[str]:
    """What the policies leave open besides the gate's port; empty when they hold. NetworkPolicies only ever add."""
    found = []
    policies = [one for one in of_kind("NetworkPolicy", agents) if "Egress" in one["spec"].get("policyTypes", [])]
    if not any(one["spec"]["podSelector"] == {} for one in policies):
        found.append("a pod that no policy selects may send anywhere")
    for policy in policies:
        assert policy["metadata"]["namespace"] == "agents"
        for rule in policy["spec"].get("egress", []):
            if not rule.get("to"):
                found.append("a rule without peers is for all of them")
            if rule.get("ports") != [{"protocol": "TCP", "port": PORT}]:
                found.append(f"ports {rule.get('ports')}")
            for peer in rule.get("to", []):
                if set(peer) != {"namespaceSelector", "podSelector"}:
                    found.append(f"peers by {sorted(peer)}")
                    continue
                names = {"kubernetes.io/metadata.name": "exeat"}
                if peer["namespaceSelector"] != {"matchLabels": names}:
                    found.append("another namespace")
                if peer["podSelector"] != {"matchLabels": {"app": "exeat"}}:
                    found.append("another pod of the gate's namespace")
    return found


def test_nothing_but_the_gates_port() -> None:
    assert ways_out(AGENTS) == []


def policy(agents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one["spec"] for one in agents if one["metadata"]["name"] == name)


def add_rule(rule: dict[str, Any]) -> Callable[[list[dict[str, Any]]], None]:
    return lambda agents: policy(agents, "only-exeat")["egress"].append(rule)


def change_peer(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda agents: policy(agents, "only-exeat")["egress"][0]["to"][0].update(changes)


def narrow(agents: list[dict[str, Any]]) -> None:
    for name in ("nothing", "only-exeat"):
        policy(agents, name)["podSelector"] = {"matchLabels": {"app": "support-agent"}}


def ingress_only(agents: list[dict[str, Any]]) -> None:
    policy(agents, "nothing")["policyTypes"] = ["Ingress"]
    policy(agents, "only-exeat")["policyTypes"] = ["Ingress"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(add_rule({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}), id="everywhere"),
        pytest.param(add_rule({"ports": [{"protocol": "UDP", "port": 53}]}), id="name-service"),
        pytest.param(add_rule({}), id="empty-rule"),
        pytest.param(change_peer(podSelector={}), id="every-pod-of-the-gates-namespace"),
        pytest.param(change_peer(namespaceSelector={}), id="every-namespace"),
        pytest.param(narrow, id="some-pods-only"),
        pytest.param(ingress_only, id="ingress-only"),
    ],
)
def test_a_policy_with_a_hole_is_noticed(change: Callable[[list[dict[str, Any]]], None]) -> None:
    agents = copy.deepcopy(AGENTS)
    change(agents)
    assert ways_out(agents) != []


def test_what_agents_are_led_to_is_the_gate() -> None:
    (service,), (gate,) = of_kind("Service", GATE), pods(GATE)
    (port,) = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (PORT, PORT)
    labels = {"app": "exeat"}
    assert gate["metadata"]["labels"] == labels
    assert service["spec"]["selector"] == labels
    for namespace, among in (("exeat", GATE), ("agents", AGENTS)):
        assert of_kind("Namespace", among)[0]["metadata"]["name"] == namespace
        assert {one["metadata"]["namespace"] for one in among if one["kind"] != "Namespace"} == {namespace}
    arguments = gate["spec"]["containers"][0]["args"]
    for pod in pods(AGENTS):
        (alias,) = pod["spec"]["hostAliases"]
        assert alias["ip"] == service["spec"]["clusterIP"]
        assert alias["hostnames"] == [arguments[arguments.index("--name") + 1]]
    (admitted,) = of_kind("NetworkPolicy", GATE)
    assert admitted["spec"]["podSelector"] == {}
    assert admitted["spec"]["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agents"}}}],
            "ports": [{"protocol": "TCP", "port": PORT}],
        }
    ]


@pytest.mark.parametrize("pod", pods(AGENTS), ids=["agent", "probe"])
def test_a_pod_holds_nothing_that_leads_around(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["dnsPolicy"] == "None"
    assert spec["dnsConfig"] == {"nameservers": ["127.0.0.1"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert [sorted(set(volume) - {"name"}) for volume in spec["volumes"]] == [["configMap"]]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_probe_runs_as_the_agent_does() -> None:
    agent, probe = pods(AGENTS)
    assert probe["metadata"] == agent["metadata"]
    apart = {"containers", "restartPolicy"}
    assert {k: v for k, v in probe["spec"].items() if k not in apart} == {
        k: v for k, v in agent["spec"].items() if k not in apart
    }


@pytest.mark.parametrize("pod", [pods(GATE)[0], pods(AGENTS)[1]], ids=["gate", "probe"])
def test_commands_are_commands(pod: dict[str, Any]) -> None:
    arguments = pod["spec"]["containers"][0]["args"]
    command: click.Command = root
    # With its settings: a command keeps what its first context says about --help.
    context = click.Context(root, **root.context_settings)
    while isinstance(command, click.Group) and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        assert found is not None
        command, arguments = found, arguments[1:]
    assert command.make_context("exeat", list(arguments), parent=context).params
    with pytest.raises(click.UsageError):
        command.make_context("exeat", [*arguments, "--no-such-option"], parent=context)
