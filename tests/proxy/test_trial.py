"""What a trial says is what the gate does: the same requests through both, under policies made by chance."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.trial import try_request
from rules.decision import Denied
from rules.policy.cases import FORM, JSON, Asked
from tests.proxy.test_conditions import POLICY, town
from tests.worlds.gate import write_policy
from tests.worlds.towns import Town

pytestmark = pytest.mark.anyio

RULES = (
    "allow: {connection: stripe, methods: [POST], path: /v1/refunds}, when: int(body.amount) <= 100",
    'allow: {connection: stripe, path: "/v1/{kind}/{id}"}, when: "path.kind != \'keys\'"',
    "allow: {connection: stripe, path: /v1/**}, when: workflow == 'tests'",
    "allow: {connection: stripe, path: /v1/**}, when: query.limit == '10'",
    'allow: {connection: "*", methods: [GET, POST], path: "/v1/{kind}", body: inspect}',
    "allow: {connection: stripe, path: /v1/files, body: {stream: 2 MiB}}",
    "deny: {connection: stripe}, when: \"has(body.reason) && body.reason == 'fraudulent'\"",
    'deny: {connection: "*", methods: [DELETE]}',
    "deny: {connection: stripe, path: /v1/keys/**}",
    'deny: {connection: stripe, path: /v1/charges/**}, when: "body.items.exists(i, i > 2)"',
    'deny: "*", when: "has(query.debug) || run == \'\'"',
)
METHODS = ("GET", "POST", "POST", "POST", "DELETE", "PUT", "TRACE", "PATCH")
TARGETS = (
    *("/v1/refunds", "/v1/refunds", "/v1/charges/ch_1", "/v1/%63harges/ch_1", "/v1/keys/1", "/v1/%6Beys", "/v1/files"),
    *("/", "/v1/../x", "/v1//x", "/v1/a%2fb", "/v1/é", "/v1/caf%C3%A9", "/v1/%zz", "/v1/a;b", "/v1/"),
)
QUERIES = (
    "",
    "",
    "?limit=10",
    "?limit=10&limit=11",
    "?debug",
    "?limit=%00",
    "?_method=DELETE",
    "?access_token=x",
    "?a[=1",
)
BODIES = (
    (None, b""),
    (JSON, b'{"amount": 100}'),
    (JSON, b'{"amount": 101}'),
    (JSON, b'{"amount": "100", "reason": "fraudulent"}'),
    (JSON, b'{"amount": 1, "amount": 900}'),
    (JSON, b'{"amount": 1, "items": [1, 2]}'),
    (JSON, b'{"amount": 1, "items": [1, 3]}'),
    (JSON, b"[1]"),
    (JSON, b"amount=1"),
    (JSON, b""),
    (FORM, b"amount=100"),
    (FORM, b"amount=1&amount=900"),
    (FORM, b"amount=7&items[]=3"),
    ("text/plain", b"hello"),
    ("application/json; charset=utf-16", b"{}"),
)


def asked(chance: random.Random) -> Asked:
    kind, body = chance.choice(BODIES)
    target = chance.choice(TARGETS) + chance.choice(QUERIES)
    return Asked("agent", "tests", chance.choice(METHODS), "stripe", target, kind, body, None)


def policies(chance: random.Random, port: int) -> Iterator[str]:
    head = POLICY[: POLICY.index("      - id: small")].format(port=port)
    for _ in range(7):
        rules = chance.sample(RULES, chance.randint(3, len(RULES)))
        yield head + "".join(f"      - {{id: r{number}, {rule}}}\n" for number, rule in enumerate(rules))


async def through_the_gate(here: Town, request: Asked) -> tuple[str | None, str | None]:
    """The code of the refusal, None where it was forwarded; and the rule that decided."""
    before = len(here.origin.requests)
    headers = {} if request.content_type is None else {"Content-Type": request.content_type}
    async with here.agent() as agent:
        body = None if request.content_type is None else request.body
        answer = await agent.request(request.method, request.target, body, headers)
    if len(here.origin.requests) > before:
        assert answer.status == 200
        intent = (await here.gate.records("call.intent"))[-1]
        return None, intent.body["decision"]["rules"][0]
    return answer.code, json.loads(answer.body).get("rule")


async def test_a_trial_says_what_the_gate_does(tmp_path: Path) -> None:
    chance = random.Random(7)
    seen: set[str | None] = set()
    async with town(tmp_path) as here:
        pem = (tmp_path / "policy" / "ca.pem").read_text()
        for number, text in enumerate(policies(chance, here.origin.port)):
            policy = write_policy(tmp_path / f"p{number}", text, {"ca.pem": pem})
            await here.gate.activate(policy)
            for _ in range(22):
                request = asked(chance)
                trial = try_request(policy.tenants["acme"], request)
                code = trial.decision.reasons[0].code if isinstance(trial.decision, Denied) else None
                assert (code, trial.rule) == await through_the_gate(here, request), (text, request)
                seen.add(code)
    assert seen >= {
        *(None, "rule_denied", "not_allowed", "condition_failed", "content_refused"),
        *("ambiguous_target", "method_refused", "malformed_request"),
    }
