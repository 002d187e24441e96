"""What a real gate decides on is what its ledger commits to, and decides the same again."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import commitment
from proxy import deciding
from proxy.deciding import Decided
from rules.call import Call, Facts
from rules.decision import Allowed
from rules.inputs import Body, DecisionInputs, decide_again
from rules.policy.compile import PolicySet
from rules.trial import rule_of
from tests.proxy.test_trial import asked, policies
from tests.worlds.authority import Authority
from tests.worlds.gate import running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import POLICY, SECRET, Town, town

pytestmark = pytest.mark.anyio


MANY = """
exeat: 1
tenant: acme
connections:
  helper: {{host: saas.test, service: mcp, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: echo, allow: mcp.helper.echo, when: "!has(args.x)"}}
"""


class Kept:
    """The sink, in memory."""

    def __init__(self) -> None:
        self.calls: dict[str, Decided] = {}

    def keep(self, decided: Decided) -> None:
        assert decided.call not in self.calls
        self.calls[decided.call] = decided


async def test_every_decided_call_is_kept_fits_its_record_and_is_decided_the_same_again(tmp_path: Path) -> None:
    chance = random.Random(11)
    kept = Kept()
    by_digest: dict[str, PolicySet] = {}
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        texts = list(policies(chance, origin.port))
        first = write_policy(tmp_path / "p", texts[0], {"ca.pem": authority.pem})
        async with running_gate(tmp_path, first, secrets={"saas": SECRET}, inputs=kept) as gate:
            here = Town(gate, origin)
            for number, text in enumerate(texts):
                policy = write_policy(tmp_path / f"p{number}", text, {"ca.pem": authority.pem})
                by_digest[policy.digest] = policy
                await gate.activate(policy)
                for _ in range(20):
                    request = asked(chance)
                    headers = {} if request.content_type is None else {"Content-Type": request.content_type}
                    body = None if request.content_type is None else request.body
                    async with here.agent() as agent:
                        await agent.request(request.method, request.target, body, headers)
            records = await gate.records("call.intent", "call.denied")
    decided = {str(r.body["call"]): r.body["decision"] for r in records if r.body["decision"]["inputs"] is not None}
    assert decided.keys() == kept.calls.keys()
    codes = set()
    bodies = set()
    for call, told in kept.calls.items():
        assert decided[call]["inputs"] == commitment(b"k" * 32, call, "inputs", told.inputs)
        inputs = DecisionInputs.from_bytes(told.inputs)
        again = decide_again(inputs, by_digest[told.policy or ""].tenants["acme"])
        assert again is not None
        code = None if isinstance(again, Allowed) else str(again.reasons[0].code)
        assert (code, rule_of(again)) == (told.code, told.rule)
        assert (told.tenant, told.account, told.at) == ("acme", "agent", inputs.now)
        codes.add(code)
        bodies.add(inputs.body)
        # What follows a decision can only refuse more: a token in the query, for one.
        assert code is None or decided[call]["verdict"] == "deny"
    assert codes >= {None, "rule_denied", "not_allowed", "condition_failed", "content_refused"}
    assert bodies == set(Body)


async def test_a_limit_refuses_what_rules_allowed_and_a_long_body_is_written_aside(tmp_path: Path) -> None:
    kept = Kept()
    async with town(tmp_path, limits='rate: [{connection: "*", max: 1, per: day}]', inputs=kept) as here:
        policy = here.gate.world.policy
        assert policy is not None
        async with here.agent() as agent:
            assert (await agent.request("POST", "/things/1", b"x" * 100_000)).status == 200
            assert (await agent.request("GET", "/things/2?q=2")).code == "rate_limited"
            assert (await agent.request("GET", "/things/secret/2")).code == "rule_denied"
        records = await here.gate.records("call.intent", "call.denied")
    assert [(told.code, told.rule) for told in kept.calls.values()] == [
        (None, "things"), (None, "things"), ("rule_denied", "no-secrets"),
    ]  # fmt: skip
    assert [r.body["decision"]["verdict"] for r in records] == ["allow", "deny", "deny"]
    body = '{"text": "' + "é" * 50_000 + '"}'
    reads = POLICY.replace("path: /things/**}}}}", "path: /things/**}}, when: body.text != ''}}", 1)
    kept = Kept()
    async with town(tmp_path / "reads", inputs=kept) as here:
        pem = (tmp_path / "reads" / "policy" / "ca.pem").read_text()
        text = reads.format(port=here.origin.port, limits="")
        await here.gate.activate(write_policy(tmp_path / "second", text, {"ca.pem": pem}))
        async with here.agent() as agent:
            answer = await agent.request("POST", "/things/1", body.encode(), {"Content-Type": "application/json"})
            assert answer.status == 200
    (told,) = kept.calls.values()
    content = DecisionInputs.from_bytes(told.inputs).content
    assert content is not None
    assert content.value == {"text": "é" * 50_000}


async def test_what_was_refused_before_it_was_decided_has_no_inputs(tmp_path: Path) -> None:
    kept = Kept()
    async with town(tmp_path, inputs=kept) as here:
        reads = POLICY.replace("path: /things/**}}}}", "path: /things/**}}, when: body.text != ''}}", 1)
        pem = (tmp_path / "policy" / "ca.pem").read_text()
        await here.gate.activate(
            write_policy(tmp_path / "second", reads.format(port=here.origin.port, limits=""), {"ca.pem": pem})
        )
        async with here.agent() as agent:
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            assert (await agent.request("POST", "/things/1", b"not gzip", headers)).status == 415
        (denied,) = await here.gate.records("call.denied")
    assert denied.body["decision"]["inputs"] is None
    assert kept.calls == {}


async def test_rules_are_asked_about_much_beside_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[str, bool]] = []

    def seen[Found](name: str, work: Callable[[Call, Facts], Found]) -> Callable[[Call, Facts], Found]:
        def done(call: Call, facts: Facts) -> Found:
            threads.append((name, threading.current_thread() is threading.main_thread()))
            return work(call, facts)

        return done

    monkeypatch.setattr(deciding, "wanted", seen("wanted", deciding.wanted))
    monkeypatch.setattr(deciding, "decide", seen("decide", deciding.decide))
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    batches = [[call], [call] * 8, [call] * 9, [{**call, "params": {"name": "echo", "arguments": {"y": "y" * 20_000}}}]]
    authority = Authority()
    async with Origin(authority.issue("saas.test")) as origin:
        policy = write_policy(tmp_path / "p", MANY.format(port=origin.port), {"ca.pem": authority.pem})
        async with running_gate(tmp_path, policy, secrets={"saas": SECRET}) as gate:
            here = Town(gate, origin)
            for batch in batches:
                async with here.agent() as agent:
                    headers = {"Content-Type": "application/json"}
                    assert (await agent.request("POST", "/mcp", json.dumps(batch).encode(), headers)).status == 200
    on_loop = [True, True, False, False]
    assert threads == [(name, there) for there in on_loop for name in ("wanted", "decide")]
