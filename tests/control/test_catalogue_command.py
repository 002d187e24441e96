"""`exeat catalogue list` and `show`: what is known, from what comes with Exeat and from a policy's folder."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from control.cli import run_command
from rules.catalogue.builtin import BUILTIN, builtin

OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = f"exeat: 1\ntenant: acme\nconnections:\n  crm: {{host: crm.example}}\naccounts:\n  a: {{owners: {OWNERS}}}\n"
CRM = """\
catalogue: 1
service: crm
hosts: [crm.example, "*.crm.example"]
tools:
  lead.get: {call: "GET /leads/{id}", effect: read}
  lead.create: {call: POST /leads, effect: write, undo: lead.drop}
  lead.drop: {call: "DELETE /leads/{id}", effect: delete, undo: never}
"""
MCP = "catalogue: 1\nservice: mcp.tracker\nprotocol: mcp\ntools:\n  find: {effect: read}\n"
ADDED = "catalogue: 1\nservice: stripe\ntools:\n  reserve.create: {call: POST /v1/reserves, effect: write}\n"

type Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def exeat(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command(["catalogue", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    for name, text in (("acme", POLICY), ("crm", CRM), ("tracker", MCP), ("stripe", ADDED)):
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def test_every_service_that_comes_with_it_is_listed(exeat: Command) -> None:
    code, out, _ = exeat("list")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == ["SERVICE", *BUILTIN]
    for row in rows[1:]:
        service = builtin(row[0])
        assert service is not None
        effects = Counter(tool.effect for tool in service.tools.values())
        assert row[1:4] == [str(effects[effect]) for effect in ("read", "write", "delete")]
        assert service.hosts[0] in row


def test_a_policys_services_are_listed_beside_them(exeat: Command, policy: Path) -> None:
    code, out, _ = exeat("list", "--policy", policy, "--json")
    services = {entry["service"]: entry for entry in json.loads(out)["services"]}
    assert code == 0
    assert set(services) == {*BUILTIN, "crm", "mcp.tracker"}
    assert services["crm"]["from"] == "policy"
    assert services["crm"]["hosts"] == ["crm.example", "*.crm.example"]
    assert services["crm"]["tools"] == {"read": 1, "write": 1, "delete": 1}
    assert services["mcp.tracker"]["protocol"] == "mcp"
    assert services["stripe"]["from"] == "built in, policy"
    alone = builtin("stripe")
    assert alone is not None
    assert sum(services["stripe"]["tools"].values()) == len(alone.tools) + 1


def test_a_service_is_shown_with_all_its_tools(exeat: Command, policy: Path) -> None:
    code, out, _ = exeat("show", "crm", "--policy", policy)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["crm", "rest", "3", "tools", "(policy)"]
    assert lines[-4:] == [
        ["crm.lead.get", "read", "-", "-", "GET", "/leads/{id}"],
        ["crm.lead.create", "write", "crm.lead.drop", "-", "POST", "/leads"],
        ["crm.lead.drop", "delete", "never", "-", "DELETE", "/leads/{id}"],
        ["anything", "else", "is", "crm.unknown,", "a", "write"],
    ]


def test_a_tool_is_shown_in_full(exeat: Command) -> None:
    code, out, _ = exeat("show", "stripe.refund.create", "--json")
    stripe = builtin("stripe")
    assert stripe is not None
    tool = stripe.tools["stripe.refund.create"]
    shown = json.loads(out)
    assert code == 0
    assert shown["calls"][0] == "POST /v1/refunds"
    assert (shown["effect"], shown["undo"], shown["amount"]) == ("write", "stripe.refund.cancel", tool.amount_text)
    assert len(shown["lookups"]) == len(tool.lookups) > 0
    text = exeat("show", "stripe.refund.create")[1]
    assert all(
        word in text
        for word in ("POST /v1/refunds", "stripe.refund.cancel", tool.amount_text or "?", "minor", "lookup")
    )


def test_a_tool_of_a_service_with_a_dot_is_found(exeat: Command, policy: Path) -> None:
    code, out, _ = exeat("show", "mcp.tracker.find", "--policy", policy)
    assert (code, out.splitlines()[0]) == (0, "mcp.tracker.find")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("strip", "did you mean stripe?"),
        ("strip.refund.create", "did you mean stripe?"),
        ("stripe.refund.creat", "did you mean stripe.refund.create?"),
        ("stripe.qqqqqqqq", "exeat catalogue show stripe lists its tools"),
        ("stripe.unknown", "a request for it is stripe.unknown"),
        ("crm", "the catalogue has no service or tool crm"),
        ("\x1b[31m", "no service or tool of that name"),
    ],
)
def test_an_unknown_name_is_no_with_the_nearest_one(exeat: Command, name: str, says: str) -> None:
    code, out, err = exeat("show", name)
    assert (code, out) == (1, "")
    assert says in err
    assert "\x1b" not in err


def test_a_policy_that_is_not_valid_is_no(exeat: Command, policy: Path) -> None:
    (policy / "crm.yaml").write_text(CRM.replace("effect: read", "effect: look"))
    code, _, err = exeat("list", "--policy", policy)
    assert code == 1
    assert "exeat check" in err
