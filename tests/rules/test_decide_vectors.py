"""The guards against vectors, and the vectors against the guards."""

import importlib
import pkgutil
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

import rules.guards
from credentials.principal import Principal
from rules.call import Call, Facts
from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim
from rules.decide import decide
from rules.decision import Allowed, Decision, Denied
from rules.guards import GUARDS
from rules.guards.verdict import Guard
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from rules.trial import judge

VECTORS = Path(__file__).parent / "vectors"


class Strict(BaseModel):
    """An unknown key in a vector is a failure: a misspelt expectation must not pass as none."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CallVector(Strict):
    tenant: str = "acme"
    account: str = "support-agent"
    scheme: str = "https"
    host: str = "acme.zendesk.com"
    port: int = 443
    method: str = "GET"
    path: str = "/api/v2/tickets/7"
    query: str = ""
    content_type: str | None = None
    body: str = ""


class FactsVector(Strict):
    policy: str | None = "acme"
    connection: str | None = None
    now: str = "2026-11-20T12:00:00"
    changed: list[str] = []


class Expectation(Strict):
    allow: list[str] | None = None
    route: str | None = None
    claims: list[dict[str, str | int]] | None = None
    deny: str | None = None
    rule: str | None = None


class Vector(Strict):
    name: str
    guard: str
    call: CallVector = CallVector()
    facts: FactsVector = FactsVector()
    expect: Expectation


def load_vectors() -> list[Vector]:
    raw = YAML(typ="safe", pure=True).load((VECTORS / "guards.yaml").read_text())
    return [Vector.model_validate(item) for item in raw]


ALL = load_vectors()


@cache
def policy() -> PolicySet:
    return compile_policy(parse_policy({file.name: file.read_bytes() for file in VECTORS.glob("*.policy.yaml")}))


def inputs(vector: Vector) -> tuple[Call, Facts]:
    call, facts = vector.call, vector.facts
    principal = Principal(call.tenant, call.account, "refunds", "r_1", "jti", 0, 0, 2**40)
    active = None if facts.policy is None else policy().tenants[facts.policy]
    connection = None
    if active is not None:
        if facts.connection is not None:
            connection = active.connections[facts.connection]
        else:
            connection = active.connection_for(call.scheme, call.host, call.port)
    now = datetime.fromisoformat(facts.now).replace(tzinfo=UTC)
    asked = Call("c_1", principal, call.scheme, call.host, call.port, call.method, call.path, call.query)
    types = () if call.content_type is None else (call.content_type.encode(),)
    return asked, judge(
        asked, Facts(active, connection, now, changed=frozenset(facts.changed)), types, call.body.encode()
    ).facts


def written(claim: Claim) -> dict[str, str | int]:
    key = "/".join(claim.key)
    match claim:
        case RateClaim():
            return {"rate": key, "interval_us": claim.interval_us, "burst": claim.burst, "limit": claim.limit}
        case LeaseClaim():
            return {"lease": key, "max": claim.max}
        case SpendClaim():
            return {
                "spend": key,
                "window": claim.window,
                "max_micros": claim.max_micros,
                "amount_micros": claim.amount_micros,
                "currency": claim.unit,
                "resets_at": datetime.fromtimestamp(claim.resets_at, UTC).isoformat()[:19],
            }


def meets(decision: Decision, expect: Expectation) -> bool:
    match decision:
        case Allowed():
            return (
                expect.allow == list(decision.rules)
                and expect.route == decision.route
                and expect.claims == [written(claim) for claim in decision.claims]
                and decision.policy == policy().digest
            )
        case Denied():
            return decision.reasons[0].code == expect.deny and decision.reasons[0].rule == expect.rule


@pytest.mark.parametrize("vector", ALL, ids=lambda vector: vector.name)
def test_the_decision_is_as_the_vector_says(vector: Vector) -> None:
    decision = decide(*inputs(vector))
    assert meets(decision, vector.expect), decision


def test_a_vector_with_an_unknown_key_is_no_vector() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Vector.model_validate({"name": "x", "guard": "y", "expect": {"denny": "z"}})


def test_names_of_vectors_are_unique() -> None:
    assert len({vector.name for vector in ALL}) == len(ALL)


def test_every_guard_in_the_folder_is_listed() -> None:
    found = []
    for module in pkgutil.iter_modules(rules.guards.__path__):
        guard = getattr(importlib.import_module(f"rules.guards.{module.name}"), "GUARD", None)
        if isinstance(guard, Guard):
            assert guard.name == module.name
            found.append(guard)
        else:
            assert module.name == "verdict"
    assert sorted(guard.name for guard in found) == sorted(guard.name for guard in GUARDS)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_guard_has_an_allow_and_a_deny_vector_and_is_load_bearing(guard: Guard) -> None:
    own = [vector for vector in ALL if vector.guard == guard.name]
    assert any(vector.expect.allow is not None for vector in own)
    denials = [vector for vector in own if vector.expect.deny is not None]
    assert denials
    without = tuple(other for other in GUARDS if other is not guard)
    broken = [vector for vector in own if not meets(decide(*inputs(vector), without), vector.expect)]
    assert broken, f"no vector of {guard.name} notices that it is gone"
    if guard.name != "allow_rules":
        assert set(map(id, broken)) == set(map(id, denials)), "each denial must be this guard's own"


def test_every_vector_names_a_guard() -> None:
    assert {vector.guard for vector in ALL} == {guard.name for guard in GUARDS}
