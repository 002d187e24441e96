"""The catalogue against requests as services document them: which tool each is, what it moves, and to whom."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from credentials.principal import Principal
from rules.action import Action
from rules.call import Call, Facts
from rules.catalogue.builtin import BUILTIN, builtin
from rules.classification import classified
from rules.conditions.unknown import Unknown
from rules.content.content import read_content
from rules.content.refused import ContentRefused
from rules.lookups import answered, wanted
from rules.meters.units import units_of
from rules.policy.compile import TenantPolicy, compile_policy
from rules.policy.load import parse_policy
from rules.services import of_host

FOLDER = Path(__file__).parent / "vectors" / "catalogue"
PRINCIPAL = Principal("acme", "agent", "w", "r", "jti", 0, 0, 2**40)


@dataclass(frozen=True)
class Vector:
    service: str
    data: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.service}: {self.data['name']}"


def load() -> list[Vector]:
    files = (json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json")))
    return [Vector(file["service"], data) for file in files for data in file["vectors"]]


ALL = load()


@cache
def policy(host: str, service: str) -> TenantPolicy:
    """One rule that asks for everything, so that bodies are read and lookups wanted."""
    reads = "amount >= 0 || currency != '' || recipients.size() >= 0 || args.size() >= 0"
    text = (
        "exeat: 1\ntenant: acme\nconnections:\n"
        f"  it: {{host: {host}, service: {service}}}\n"
        "accounts:\n  agent:\n    owners: {accountable: a@b.example, system: a@b.example, risk: a@b.example}\n"
        f'    rules: [{{id: all, allow: {{connection: it, path: /**}}, when: "{reads}"}}]\n'
    )
    return compile_policy(parse_policy({"acme.yaml": text.encode()})).tenants["acme"]


def facts_of(vector: Vector) -> tuple[Call, Facts]:
    """The call classified, its body read. Raises `ContentRefused`."""
    data = vector.data
    known = builtin(vector.service)
    assert known is not None
    host = data.get("host") or next(host for host in known.hosts if "*" not in host)
    active = policy(host, vector.service)
    path, _, query = data["target"].partition("?")
    call = Call("c_1", PRINCIPAL, "https", host, 443, data["method"], path, query)
    facts = classified(call, Facts(active, active.connections["it"], datetime(2026, 11, 25, tzinfo=UTC)))
    kind = data.get("content_type")
    try:
        content = read_content(() if kind is None else (kind.encode(),), (data.get("body") or "").encode())
    except ContentRefused:
        if data["expect"]["tool"] is None:
            raise
        return call, facts  # the request line says what it is; what is in the body nobody can tell
    return call, classified(call, replace(facts, content=content))


def told(action: Action, name: str, found: Any) -> object:
    try:
        match name:
            case "amount":
                return action.money(found).micros
            case "currency":
                return action.money(found).currency
            case "recipients":
                return action.recipients(found)
            case "account":
                return action.account()
            case "args":
                return action.args
            case "effect":
                return action.effect
            case "tool":
                return action.tool
            case "batch":
                return action.batch
            case "units":
                return {unit: action.count(unit, found) for unit in units_of(action.known)} if action.known else {}
            case _:
                raise AssertionError(f"a vector expects {name}, which nobody knows")
    except Unknown:
        return None


@pytest.mark.parametrize("vector", ALL, ids=str)
def test_a_request_is_what_its_service_says(vector: Vector) -> None:
    expected = vector.data["expect"]
    if isinstance(expected, dict) and expected.get("refused"):
        with pytest.raises(ContentRefused):
            facts_of(vector)
        return
    call, facts = facts_of(vector)
    lookup = vector.data.get("lookup")
    if lookup is not None:
        want = wanted(call, facts)
        assert want is not None
        assert f"{want.path}?{want.query}".removesuffix("?") == lookup.removeprefix("GET ")
    facts = answered(facts, vector.data.get("found"))
    each = expected if isinstance(expected, list) else [expected]
    assert len(facts.actions) == len(each)
    for action, one in zip(facts.actions, each, strict=True):
        for name, value in one.items():
            came = told(action, name, facts.found)
            if name == "args" and value is not None:
                assert isinstance(came, dict)
                came = {key: came.get(key) for key in value}
            assert came == value, name


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_service_is_whole(name: str) -> None:
    known = builtin(name)
    assert known is not None
    assert len(known.tools) >= 10
    assert any(vector.service == name for vector in ALL)
    for host in known.hosts:
        form = of_host(host.removeprefix("*.") if "*" not in host else f"x{host[1:]}")
        assert form is not None, host
        assert form.name == name
    for tool in known.tools.values():
        # Compiled only when asked: a mistake must not wait for a call.
        _ = (tool.where, tool.amount, tool.currency, tool.recipients, tool.units)
        for lookup in tool.lookups:
            asked = known.candidates("GET", tuple(lookup.route[1:].split("/")))
            assert {found.effect for found, _ in asked} == {"read"}, (tool.name, lookup.route)
