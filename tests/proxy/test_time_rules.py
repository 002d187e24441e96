"""Rules that ask for the time, on real traffic: they hold when a call leaves, and a denial says when they open.

A Friday in Berlin, some seconds before five. The wall clock is the test's; it moves where something slow would happen.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledger import commitment
from ledger.report import EXIT_INTACT
from ledger.verify import verify
from proxy import openings
from proxy.openings import A_MINUTE, IN_ALL_A_MINUTE, Allowance
from rules.inputs import DecisionInputs, decide_again
from tests.proxy.test_deciding import Kept
from tests.worlds.authority import Authority
from tests.worlds.gate import Answer, running_gate, write_policy
from tests.worlds.origin import Origin, Peer, Request, Script, answers, reply
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

FIVE = datetime(2026, 11, 27, 16, tzinfo=UTC)
"""17:00 in Berlin, a Friday."""
POLICY = """
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas, price: 0.25 USD{service}}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    {stage}
    limits: {{concurrency: 1, spend: [{{meter: price, max: 100 USD, per: day}}]}}
    rules:
      - {{id: things, allow: {{connection: saas, path: /things/**}}}}
      - {{id: office, deny: {{connection: saas, path: /things/**}}, when: "now.time < '08:00' || now.time >= '17:00'"}}
      - {{id: weekend, deny: "*", when: "now.weekday in ['sat', 'sun']"}}
      - {{id: read, allow: {{connection: saas, methods: [POST], path: /read}}, when: "body.n > 0 && now.hour < 17"}}
      - {{id: plain, allow: {{connection: saas, path: /plain}}}}
      - {{id: by-day, allow: {{connection: saas, path: /up/1, body: {{stream: 4 MiB}}}}, when: "now.hour < 17"}}
      - {{id: by-night, allow: {{connection: saas, path: "/up/{{n}}"}}}}
      - {{id: short, allow: {{connection: saas, path: /short}}, when: "now < timestamp('2026-11-27T15:59:58Z')"}}
"""


class Hand:
    """The wall clock's hand."""

    def __init__(self) -> None:
        self.at = FIVE - timedelta(seconds=5)
        self.read = 0

    def clock(self) -> datetime:
        self.read += 1
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Slow:
    """A store or a ledger: something takes a while when a method is called."""

    def __init__(self, inner, method: str, happens: Callable[..., None]) -> None:
        self._inner, self._method, self._happens = inner, method, happens

    def __getattr__(self, name: str):
        found = getattr(self._inner, name)
        if name != self._method:
            return found

        def called(*given, **named):
            self._happens(*given)
            return found(*given, **named)

        return called


@asynccontextmanager
async def town(
    folder: Path, hand: Hand, script: Script | None = None, *, stage: str = "", service: str = "", **options
) -> AsyncIterator[Town]:
    authority = Authority()
    async with Origin(authority.issue("saas.test"), script) as origin:
        text = POLICY.format(port=origin.port, stage=stage, service=service)
        policy = write_policy(folder / "policy", text, {"ca.pem": authority.pem})
        async with running_gate(folder, policy, secrets={"saas": SECRET}, clock=hand.clock, **options) as gate:
            yield Town(gate, origin)
            await gate.gate.settled()
            assert gate.gate._turns.held == 0
            report = await asyncio.to_thread(verify, gate.directory, gate.ledger.trust())
            assert report.exit_code == EXIT_INTACT, report
            outcomes = [record.body["intent"] for record in await gate.records("call.outcome")]
            assert sorted(outcomes) == [record.seq for record in await gate.records("call.intent")]


async def closed(here: Town, kept: Kept, answer: Answer, rule: str | None = "office") -> None:
    """The call was denied as of five, that is recorded with what it was decided on, and nothing is held of it."""
    code = "rule_denied" if rule else "not_allowed"
    assert (answer.status, answer.code) == (403, code)
    assert [request.target for request in here.origin.requests] == []
    assert await here.gate.records("call.intent") == []
    (denied,) = await here.gate.records("call.denied")
    reasons = denied.body["decision"]["reasons"]
    assert reasons == [{"code": code} if rule is None else {"code": code, "rule": rule}]
    (told,) = kept.calls.values()
    assert (told.code, told.rule, told.at >= FIVE) == (code, rule, True)
    inputs = DecisionInputs.from_bytes(told.inputs)
    assert inputs.now == told.at
    assert denied.body["decision"]["inputs"] == commitment(b"k" * 32, told.call, "inputs", told.inputs)
    policy = here.gate.world.policy
    assert policy is not None
    again = decide_again(inputs, policy.tenants["acme"])
    assert again is not None
    assert not hasattr(again, "claims")


async def test_a_body_that_takes_its_time_is_not_sent_after_the_rule_has_closed(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()
    async with town(tmp_path, hand, inputs=kept) as here, here.agent() as agent:
        head = f"POST /things/1 HTTP/1.1\r\nHost: {agent.host}\r\nContent-Length: 4\r\n\r\nab".encode()
        agent.writer.write(head)
        while not hand.read:
            await asyncio.sleep(0.005)
        hand.passes(6)
        agent.writer.write(b"cd")
        answer = await agent.read_answer("POST")
        await closed(here, kept, answer)
        # What it had reserved is free again: the account may have one call in flight.
        hand.passes(-60)
        assert (await agent.request("GET", "/things/1")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "rule"),
    [("GET", "/things/1", None, "office"), ("POST", "/read", b'{"n": 1}', None), ("POST", "/read", b"large", None)],
)
async def test_a_wait_for_the_limits_is_no_way_around(
    tmp_path: Path, method: str, path: str, body: bytes | None, rule: str | None
) -> None:
    hand, kept = Hand(), Kept()
    if body == b"large":
        body = json.dumps({"n": 1, "text": "x" * 50_000}).encode()

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(6))

    async with town(tmp_path, hand, inputs=kept, wrap_reservations=wrap) as here, here.agent() as agent:
        answer = await agent.request(method, path, body, {"Content-Type": "application/json"})
        await closed(here, kept, answer, rule)
        hand.passes(-120)
        assert (await agent.request("GET", "/things/1")).status == 200


async def test_what_is_recorded_is_the_decision_of_the_commit(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()
    hand.at -= timedelta(minutes=10)

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(70))

    async with town(tmp_path, hand, inputs=kept, wrap_reservations=wrap) as here, here.agent() as agent:
        began = hand.at
        assert (await agent.request("GET", "/things/1")).status == 200
        (told,) = kept.calls.values()
        assert DecisionInputs.from_bytes(told.inputs).now == told.at == began + timedelta(seconds=70)
        (intent,) = await here.gate.records("call.intent")
        assert intent.body["decision"]["inputs"] == commitment(b"k" * 32, told.call, "inputs", told.inputs)
        assert intent.body["cost"]["micro"] == 250_000


async def test_the_same_minute_and_rules_without_time_are_judged_once(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()
    hand.at -= timedelta(seconds=30)

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(2))

    async with town(tmp_path, hand, inputs=kept, wrap_reservations=wrap) as here, here.agent() as agent:
        began = hand.at
        assert (await agent.request("GET", "/things/1")).status == 200
        (told,) = kept.calls.values()
        assert told.at == began


async def test_a_slow_ledger_lets_nothing_leave_after_the_rule_has_closed(tmp_path: Path) -> None:
    """The intent is durable and stands; its outcome says that nothing was sent, and why."""
    hand, kept = Hand(), Kept()

    def wrap(inner):
        return Slow(inner, "submit_async", lambda _, type_, *__: hand.passes(6) if type_ == "call.intent" else None)

    async with town(tmp_path, hand, inputs=kept, wrap_ledger=wrap) as here, here.agent() as agent:
        answer = await agent.request("POST", "/things/1", b"ab")
        assert (answer.status, answer.code) == (403, "rule_denied")
        assert json.loads(answer.body)["opens_at"] == "2026-11-30T08:00:00+01:00"
        assert here.origin.requests == []
        (intent,), (outcome,) = await here.gate.records("call.intent"), await here.gate.records("call.outcome")
        result = outcome.body["result"]
        assert (result["status"], result["sent"], result["code"]) == ("failed", False, "rule_denied")
        assert outcome.body["cost"]["micro"] == 0
        (told,) = kept.calls.values()
        assert (told.code, told.at) == (None, FIVE - timedelta(seconds=5))
        assert intent.body["decision"]["inputs"] == commitment(b"k" * 32, told.call, "inputs", told.inputs)
        hand.at = FIVE - timedelta(minutes=5)
        assert (await agent.request("GET", "/things/1")).status == 200


async def test_a_second_attempt_is_judged_again(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()

    async def once(request: Request, peer: Peer) -> None:
        if len(peer.connection.requests) > 1:
            hand.passes(6)
            peer.abort()  # a request on a reused connection: gone before a byte of the answer
        else:
            await peer.send(reply())

    async with town(tmp_path, hand, once, inputs=kept) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/1")).status == 200
        answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (403, "rule_denied")
        assert len(here.origin.requests) == 2
        (_, intent), (_, outcome) = await here.gate.records("call.intent"), await here.gate.records("call.outcome")
        (denied,) = await here.gate.records("call.denied")
        assert (intent.body["attempt"], denied.body["attempt"]) == (1, 2)
        assert denied.body["call"] == intent.body["call"]
        result = outcome.body["result"]
        assert (result["status"], result["sent"]) == ("indeterminate", True)
        # What is kept of a call is what its first record commits to.
        told = kept.calls[str(intent.body["call"])]
        assert intent.body["decision"]["inputs"] == commitment(b"k" * 32, told.call, "inputs", told.inputs)
        assert denied.body["decision"]["inputs"] not in (None, intent.body["decision"]["inputs"])


async def test_a_rule_that_asks_for_the_moment_closes_within_the_minute(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(4))

    async with town(tmp_path, hand, inputs=kept, wrap_reservations=wrap) as here, here.agent() as agent:
        answer = await agent.request("GET", "/short")
        assert (answer.status, answer.code) == (403, "not_allowed")
        assert here.origin.requests == []


async def test_a_body_that_is_streamed_needs_a_rule_that_streams_it_still(tmp_path: Path) -> None:
    hand = Hand()
    body = b"x" * (2 * 1024 * 1024)

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(6))

    async with town(tmp_path, hand, wrap_reservations=wrap) as here, here.agent() as agent:
        await agent.send("POST", "/up/1", None, {"Content-Length": str(len(body))})
        agent.writer.write(body[:1000])
        answer = await agent.read_answer("POST")
        assert (answer.status, answer.code) == (413, "body_too_large")
        assert here.origin.requests == []


async def test_stage_observe_ends_also_for_calls_that_have_begun(tmp_path: Path) -> None:
    hand, kept = Hand(), Kept()
    hand.at = datetime(2026, 11, 26, 22, 59, 57, tzinfo=UTC)  # Thursday, three seconds before midnight

    def wrap(inner):
        return Slow(inner, "reserve", lambda *_: hand.passes(2))

    stage = "stage: observe\n    until: 2026-11-26"
    async with town(tmp_path, hand, stage=stage, inputs=kept, wrap_reservations=wrap) as here:
        async with here.agent() as agent:
            assert (await agent.request("GET", "/elsewhere")).status == 200
            answer = await agent.request("GET", "/elsewhere")
        assert (answer.status, answer.code) == (403, "not_allowed")
        assert len(here.origin.requests) == 1


SENTENCE = "Rule office denies this call. Open again from Mon 2026-11-30 08:00 Europe/Berlin."


async def test_a_denial_says_when_the_window_opens(tmp_path: Path) -> None:
    hand = Hand()
    hand.at = FIVE + timedelta(seconds=0.5)
    async with town(tmp_path, hand) as here, here.agent() as agent:
        answer = await agent.request("GET", "/things/1")
        said = json.loads(answer.body)
        assert (answer.status, said["code"], said["rule"], said["category"]) == (
            403, "rule_denied", "office", "deterministic",
        )  # fmt: skip
        assert said["detail"] == SENTENCE
        assert said["opens_at"] == "2026-11-30T08:00:00+01:00"
        assert said["retry_after"] == 63 * 3600
        assert said["how_to_proceed"] == "Do not retry before opens_at; until then the same request is refused."
        assert "retry-after" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"
        # It is remembered, and told from then on.
        hand.passes(3600)
        later = json.loads((await agent.request("GET", "/things/1")).body)
        assert (later["opens_at"], later["retry_after"]) == (said["opens_at"], 62 * 3600)
        # And it is true.
        hand.at = datetime.fromisoformat(said["opens_at"]).astimezone(UTC)
        assert (await agent.request("GET", "/things/1")).status == 200
        # Nothing is said where the time does not matter.
        plain = json.loads((await agent.request("GET", "/elsewhere")).body)
        assert plain["code"] == "not_allowed"
        assert not {"opens_at", "retry_after"} & plain.keys()


@pytest.mark.parametrize("service", ["mcp", "stripe", "openai", "slack", "github", "google", "anthropic"])
async def test_services_own_forms_say_it_too(tmp_path: Path, service: str) -> None:
    hand = Hand()
    hand.passes(10)
    async with town(tmp_path, hand, service=f", service: {service}") as here, here.agent() as agent:
        request = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{}}}'
        answer = await agent.request("POST", "/things/1", request, {"Content-Type": "application/json"})
        said = json.loads(answer.body)
        assert answer.status == 403
        assert said["opens_at"] == "2026-11-30T08:00:00+01:00"
        assert SENTENCE in json.dumps(said)
        assert "retry-after" not in answer.headers
        if service == "mcp":
            assert said["error"]["data"]["opens_at"] == said["opens_at"]
            assert SENTENCE in said["error"]["message"]


async def test_a_flood_of_denied_calls_buys_few_decisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is another one, so nothing that is remembered helps; what may be spent in a minute is spent, once."""
    monkeypatch.setattr(openings, "A_MINUTE", 40)
    hand = Hand()
    hand.passes(10)
    async with town(tmp_path, hand) as here, here.agent() as agent:
        told = []
        for number in range(30):
            answer = await agent.request("GET", f"/things/{number}")
            assert answer.code == "rule_denied"
            told.append("opens_at" in json.loads(answer.body))
        first = told.index(False)
        assert 2 <= first <= 12
        assert not any(told[first:])
        # The same call again costs nothing.
        hand.passes(1)
        assert "opens_at" in json.loads((await agent.request("GET", "/things/0")).body)


def test_decisions_for_answers_are_counted_by_account_in_all_and_by_the_minute() -> None:
    allowance = Allowance()
    one, other = ("acme", "a"), ("acme", "b")
    assert allowance.left(one, 60.0) == A_MINUTE
    allowance.take(one, A_MINUTE)
    assert (allowance.left(one, 119.9), allowance.left(other, 119.9)) == (0, A_MINUTE)
    for number in range(IN_ALL_A_MINUTE // A_MINUTE):
        allowance.take(("acme", f"x{number}"), A_MINUTE)
    assert allowance.left(other, 119.9) == 0
    assert allowance.left(one, 120.0) == A_MINUTE
    allowance.take(one, -5)  # taken in the minute before, and not needed
    assert allowance.left(one, 120.0) == A_MINUTE


async def test_a_large_call_is_denied_and_not_looked_into(tmp_path: Path) -> None:
    hand = Hand()
    hand.passes(10)
    body = gzip.compress(json.dumps({"n": 1, "text": "x" * 50_000}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with town(tmp_path, hand, answers(reply())) as here, here.agent() as agent:
        said = json.loads((await agent.request("POST", "/read", body, headers)).body)
        assert said["code"] == "not_allowed"
        assert "opens_at" not in said
        plain = {"Content-Type": "application/json"}
        small = json.loads((await agent.request("POST", "/read", b'{"n":1}', plain)).body)
        assert small["opens_at"] == "2026-11-30T00:00:00+01:00"
