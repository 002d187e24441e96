"""Policies of any size, and calls that they allow: what `benchmarks.deciding` measures."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rules.catalogue.document import ServiceDocument
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.models import TenantDocument
from rules.policy.source import PolicySource

ACCOUNT: Final = "agent"
HOST: Final = "api0.example"
SPREAD: Final = 16
"""Calls that differ, and tenants that call, in one round: more than any memory of the last few."""
_OF_A_SERVICE: Final = 2_000
"""Tools in one file of the catalogue, which takes 5,000."""
_JSON: Final = b"application/json"
_FORM: Final = b"application/x-www-form-urlencoded"
_OWNERS: Final = {"accountable": "a@acme.example", "system": "b@acme.example", "risk": "c@acme.example"}

type Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    kind: bytes = b""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of rules."""

    name: str
    rule: Callable[[int, int], Rule]
    """The rule of a number, of so many."""
    asked: Callable[[int, int], Asked]
    """A call that the rule of this number allows, and the how manieth it is: no two have one path."""
    service: str = ""
    """Of the catalogue: `rest`, `graphql` or `mcp`; nothing where rules name places alone."""
    flat: bool = True
    tenants: bool = False
    """Whether it is measured by tenants, too."""

    def calls(self, size: int) -> tuple[Asked, ...]:
        """Calls that meet rules from all over the list; of a service's first file, where there are several."""
        reached = min(size, _OF_A_SERVICE)
        return tuple(self.asked(turn * reached // SPREAD, turn) for turn in range(SPREAD))


def _place(n: int, _: int) -> Rule:
    return {"allow": {"connection": "api0", "methods": ["POST"], "path": f"/v1/thing{n}/{{id}}"}}


def _tool(n: int) -> str:
    return f"shop{n // _OF_A_SERVICE}.thing{n}.do"


def _named(n: int, _: int) -> Rule:
    return {"allow": _tool(n)}


def _effects(n: int, _: int) -> Rule:
    return {"allow": {"connection": "api0", "path": f"/v1/thing{n}/**", "effects": ["write"]}}


def _condition(n: int, _: int) -> Rule:
    # A few texts stand for what people write again and again; each is compiled once.
    return {"allow": _tool(n), "when": f"amount <= usd({500 + n % 8}) && args.note != 'x'"}


def _root_field(n: int, _: int) -> Rule:
    return {"allow": f"shop0.mutation.do{n}"}


def _of_server(n: int, _: int) -> Rule:
    return {"allow": f"mcp.api0.do{n}"}


def _mixed(n: int, _: int) -> Rule:
    """Of eight: four places, two tools with a condition each, an effect, and a denial with a condition."""
    match n % 8:
        case 0 | 1 | 2 | 3:
            return _place(n, 0)
        case 4 | 5:
            return _condition(n, 0)
        case 6:
            return _effects(n, 0)
        case _:
            return {"deny": _tool(n), "when": "amount > usd(5) || args.note == 'x'"}


def _same(n: int, size: int) -> Rule:
    """All about one tool, no two alike, for one text is evaluated once; and only the last is true."""
    return {"allow": _tool(0), "when": f"int(args.amount) == {2000 + n}" if n < size - 1 else "int(args.amount) >= 100"}


def _as_json(n: int, turn: int) -> Asked:
    body = {"amount": 1000 + n % 5, "currency": "usd", "note": "thanks", "lines": [{"sku": "a", "n": 2}] * 4}
    return Asked("POST", f"/v1/thing{n}/id_{turn}", _JSON, json.dumps(body).encode())


def _as_form(n: int, turn: int) -> Asked:
    body = f"amount={1000 + n % 5}&currency=usd&note=thanks&metadata[a]=b"
    return Asked("POST", f"/v1/thing{n}/id_{turn}", _FORM, body.encode())


def _as_field(n: int, turn: int) -> Asked:
    document = f"mutation Go($id: ID!) {{ do{n}(id: $id) {{ id name }} }}"
    body = {"query": document, "variables": {"id": f"id_{turn}"}, "operationName": "Go"}
    return Asked("POST", "/graphql", _JSON, json.dumps(body).encode())


def _as_call(n: int, turn: int) -> Asked:
    params = {"name": f"do{n}", "arguments": {"id": f"id_{turn}"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return Asked("POST", "/mcp", _JSON, json.dumps(body).encode())


def _of_mix(n: int, turn: int) -> Asked:
    """Of a rule near by that has a condition."""
    return _as_json(max(4, n // 8 * 8 - 4), turn)


def _of_same(_: int, turn: int) -> Asked:
    return Asked("POST", f"/v1/thing0/id_{turn}", _JSON, b'{"amount": 1000, "currency": "usd", "note": "thanks"}')


CASES: Final = (
    Case("places", _place, _as_json, tenants=True),
    Case("tools", _named, _as_json, "rest", tenants=True),
    Case("effects", _effects, _as_json, "rest"),
    Case("conditions on args and amount, JSON", _condition, _as_json, "rest", tenants=True),
    Case("conditions on args and amount, a form", _condition, _as_form, "rest"),
    Case("GraphQL", _root_field, _as_field, "graphql"),
    Case("MCP", _of_server, _as_call, "mcp"),
    Case("a mix: places, tools, effects, conditions, denials", _mixed, _of_mix, "rest", tenants=True),
    Case("the worst: all on one tool, each with a condition", _same, _of_same, "rest", flat=False),
)


def policy_of(case: Case, size: int, tenants: tuple[str, ...]) -> Callable[[], PolicySet]:
    """Makes the policy of these tenants, with so many rules each; what it is made from is read already."""
    services = max(1, -(-size // _OF_A_SERVICE)) if case.service == "rest" else 1
    of_connections: list[dict[str, str]] = [{"host": f"api{n}.example"} for n in range(services)]
    if case.service:
        for n, one in enumerate(of_connections):
            one["service"] = "mcp" if case.service == "mcp" else f"shop{n}"
    account = {"owners": _OWNERS, "rules": [{"id": f"r{n}", **case.rule(n, size)} for n in range(size)]}
    documents = tuple(
        TenantDocument.model_validate(
            {
                "exeat": 1,
                "tenant": tenant,
                "connections": {f"api{n}": one for n, one in enumerate(of_connections)},
                "accounts": {ACCOUNT: account},
            }
        )
        for tenant in tenants
    )
    known = () if case.service in ("", "mcp") else tuple(_service(case, n, size) for n in range(services))
    source = PolicySource(documents, {}, (), (), known)
    return lambda: compile_policy(source)


def _service(case: Case, number: int, size: int) -> ServiceDocument:
    own = range(number * _OF_A_SERVICE, min(size, (number + 1) * _OF_A_SERVICE))
    said: dict[str, Any] = {"catalogue": 1, "service": f"shop{number}", "hosts": [f"api{number}.example"]}
    if case.service == "graphql":
        return ServiceDocument.model_validate({**said, "graphql": ["/graphql"]})
    amount = {"amount": "int(args.amount)", "currency": "args.currency"}
    tools = {f"thing{n}.do": {"call": f"POST /v1/thing{n}/{{id}}", "effect": "write", **amount} for n in own}
    return ServiceDocument.model_validate({**said, "tools": tools})
