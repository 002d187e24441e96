"""Rules about tools on real traffic: what is recorded of them, and what the gate asks the service before it judges.

The origin is a Stripe of one charge: 90.00 of which 85.00 is refunded already, so that 5.00 are left.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from credentials.secret import Secret
from ledger.report import EXIT_INTACT
from ledger.verify import verify
from proxy.config import GateConfig, Timeouts
from proxy.lookups import MAX_A_MINUTE, Allowance
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, Answer, running_gate, write_policy
from tests.worlds.origin import Action, Origin, Peer, Request, Script, answers, reply
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
connections:
  stripe:
    {{host: api.stripe.com, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas, account: acct_1Abc, mode: live}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    {stage}
    rules:
      - {{id: read, allow: {{tools: [stripe.*], effects: [read]}}}}
      - {{id: small, allow: stripe.refund.create, when: amount <= usd(5) || amount <= jpy(500)}}
      - {{id: never-delete, deny: {{effects: [delete]}}}}
"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
CHARGE = {"id": "ch_1", "amount": 9000, "amount_refunded": 8500, "currency": "usd"}
YEN = {"id": "ch_1", "amount": 900, "amount_refunded": 400, "currency": "jpy"}
LOOKUP = "/v1/charges/ch_1"
OBSERVE = "stage: observe\n    until: {until}"


def json_reply(value: object) -> bytes:
    return reply(json.dumps(value).encode())


def asked(script: Script) -> Script:
    """The script for what is looked up; 200 to everything else."""

    async def run(request: Request, peer: Peer) -> None:
        await (script if request.method == "GET" else answers(reply()))(request, peer)

    return run


@asynccontextmanager
async def town(
    folder: Path, script: Script | None = None, *, stage: str = "", secret: str = SECRET, **seconds: float
) -> AsyncIterator[Town]:
    authority = Authority()
    async with Origin(authority.issue("api.stripe.com"), asked(script or answers(json_reply(CHARGE)))) as origin:
        text = POLICY.format(port=origin.port, stage=stage)
        policy = write_policy(folder / "policy", text, {"ca.pem": authority.pem})
        config = GateConfig(listen=(("127.0.0.1", 0),), timeouts=Timeouts(**seconds))
        async with running_gate(folder, policy, secrets={"saas": secret}, config=config) as gate:
            yield Town(gate, origin)
            await gate.gate.settled()
            report = await asyncio.to_thread(verify, gate.directory, gate.ledger.trust())
            assert report.exit_code == EXIT_INTACT, report
            outcomes = [record.body["intent"] for record in await gate.records("call.outcome")]
            assert sorted(outcomes) == [record.seq for record in await gate.records("call.intent")]


def agent_of(here: Town) -> Agent:
    return here.agent(host="api.stripe.com")


async def refund(agent: Agent, body: bytes = b"charge=ch_1", **headers: str) -> Answer:
    return await agent.request("POST", "/v1/refunds", body, FORM | headers)


async def lookups(here: Town) -> list[tuple[str, int, str, int | None, bool]]:
    """Each lookup's intent with its outcome: its call, attempt, status, http and whether it was sent."""
    outcomes = {r.body["intent"]: r.body["result"] for r in await here.gate.records("call.outcome")}
    found = []
    for intent in await here.gate.records("call.intent"):
        if intent.body["call"].endswith(".l1"):
            result = outcomes[intent.seq]
            found.append(
                (intent.body["call"], intent.body["attempt"], result["status"], result["http"], result["sent"])
            )
    return found


def targets(here: Town) -> list[str]:
    return [f"{request.method} {request.target}" for request in here.origin.requests]


async def refused(here: Town, answer: Answer, status: int, code: str) -> str:
    """The call was denied so, that is recorded, and nothing of it left. Its id."""
    assert (answer.status, answer.code) == (status, code)
    (denied,) = await here.gate.records("call.denied")
    assert denied.body["decision"]["reasons"][0]["code"] == code
    assert [target for target in targets(here) if not target.startswith("GET ")] == []
    intents = await here.gate.records("call.intent")
    assert [i for i in intents if not i.body["call"].endswith(".l1")] == []
    return str(denied.body["call"])


async def test_records_name_the_tool_and_what_it_does(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with agent_of(here) as agent:
            assert (await agent.request("GET", "/v1/charges/ch_9")).status == 200
            assert (await agent.request("DELETE", "/v1/customers/cus_1")).code == "rule_denied"
            assert (await agent.request("POST", "/v1/payouts", b"amount=1&currency=usd", FORM)).code == "not_allowed"
            assert (await agent.request("GET", "/v1/of/tomorrow")).code == "not_allowed"
        (allowed,) = await here.gate.records("call.intent")
        denied = await here.gate.records("call.denied")
        told = [(r.body["op"]["tool"], r.body["op"]["effect"], r.body["op"].get("irreversible")) for r in denied]
        assert (allowed.body["op"]["tool"], allowed.body["op"]["effect"]) == ("stripe.charge.get", "read")
        assert "irreversible" not in allowed.body["op"]
        assert told == [
            ("stripe.customer.delete", "delete", True),
            ("stripe.payout.create", "write", None),
            ("stripe.unknown", "write", None),
        ]
        assert targets(here) == ["GET /v1/charges/ch_9"]


@pytest.mark.parametrize(
    ("body", "charge", "allowed"),
    [
        (b"charge=ch_1", CHARGE, True),
        (b"charge=ch_1", CHARGE | {"amount_refunded": 8499}, False),
        (b"charge=ch_1&amount=500", CHARGE, True),
        (b"charge=ch_1&amount=501", CHARGE, False),
        (b"charge=ch_1", YEN, True),
        (b"charge=ch_1", YEN | {"amount_refunded": 399}, False),
        (b"charge=ch_1&amount=500", YEN, True),
        (b"charge=ch_1&amount=501", YEN, False),
    ],
)
async def test_what_a_refund_does_not_say_is_asked_first(
    tmp_path: Path, body: bytes, charge: dict[str, object], allowed: bool
) -> None:
    seen: list[tuple[str, ...]] = []

    async def script(request: Request, peer: Peer) -> None:
        seen.append(tuple(targets(here)))
        await peer.send(json_reply(charge))

    async with town(tmp_path, script) as here:
        async with agent_of(here) as agent:
            answer = await refund(agent, body)
        # When the service was asked, nothing of the call itself had been sent.
        assert seen == [(f"GET {LOOKUP}",)]
        lookup = here.origin.requests[0]
        assert lookup.header("authorization") == f"Bearer {SECRET}"
        assert (lookup.header("stripe-account"), lookup.body) == ("acct_1Abc", b"")
        if not allowed:
            call = await refused(here, answer, 403, "condition_failed")  # in the other currency, it cannot be told
            assert await lookups(here) == [(f"{call}.l1", 1, "confirmed", 200, True)]
            return
        assert answer.status == 200
        first, second = await here.gate.records("call.intent")
        assert first.body["call"] == f"{second.body['call']}.l1"
        assert (first.body["op"]["tool"], first.body["op"]["effect"]) == (None, "read")
        assert (second.body["op"]["tool"], second.body["decision"]["rules"]) == ("stripe.refund.create", ["small"])
        assert targets(here) == [f"GET {LOOKUP}", "POST /v1/refunds"]
        assert here.origin.requests[1].body == body
        assert await lookups(here) == [(first.body["call"], 1, "confirmed", 200, True)]


async def test_a_payment_intent_is_asked_with_its_charge(tmp_path: Path) -> None:
    script = answers(json_reply({"id": "pi_1", "currency": "usd", "latest_charge": CHARGE}))
    async with town(tmp_path, script) as here:
        async with agent_of(here) as agent:
            assert (await refund(agent, b"payment_intent=pi_1")).status == 200
        assert targets(here)[0] == "GET /v1/payment_intents/pi_1?expand[]=latest_charge"


TOO_LARGE = b'{"amount": 1, "amount_refunded": 0, "currency": "usd", "pad": "%b"}' % (b"x" * (256 * 1024))
GOOD = json.dumps(CHARGE).encode()
TEXT = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b"
MOVED = reply(GOOD, status="302 Found", headers="Location: /v1/charges/ch_2\r\n")


@pytest.mark.parametrize(
    ("answer", "http"),
    [
        (reply(GOOD, status="404 Not Found"), 404),
        (reply(GOOD, status="500 Internal Server Error"), 500),
        (reply(b'{"amount": '), 200),
        (reply(b"[]"), 200),
        (reply(b'{"amount": 1, "amount": 2, "amount_refunded": 0, "currency": "usd"}'), 200),
        (reply(b'{"amount": "lots", "amount_refunded": 0, "currency": "usd"}'), 200),
        (reply(b'{"amount": 1, "amount_refunded": 0, "currency": "doubloon"}'), 200),
        (reply(b'{"amount": 1, "amount_refunded": 2, "currency": "usd"}'), 200),
        (TEXT % (len(GOOD), GOOD), 200),
        (reply(TOO_LARGE), 200),
        (reply(gzip.compress(GOOD), headers="Content-Encoding: gzip\r\n"), 200),
        (MOVED, 302),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    ],
    ids=[
        "404", "500", "garbage", "list", "twice", "text", "currency", "negative", "html", "large", "gzip", "moved",
        "empty",
    ],
)  # fmt: skip
async def test_an_answer_that_does_not_say_is_no_amount(tmp_path: Path, answer: bytes, http: int) -> None:
    async with town(tmp_path, answers(answer)) as here:
        async with agent_of(here) as agent:
            call = await refused(here, await refund(agent), 403, "amount_unknown")
        assert targets(here) == [f"GET {LOOKUP}"]
        assert await lookups(here) == [(f"{call}.l1", 1, "confirmed", http, True)]


@pytest.mark.parametrize(
    "script",
    [
        answers(Action.HANG),
        answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{", Action.HANG),
        answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{", Action.ABORT),
        answers(Action.CLOSE),
        answers(b"HTTP/9 hello\r\n\r\n"),
    ],
    ids=["hangs", "pauses", "breaks off", "closes", "no http"],
)
@pytest.mark.parametrize("bound", ["lookup", "first_byte"])
async def test_a_service_that_does_not_answer_is_told_apart(tmp_path: Path, script: Script, bound: str) -> None:
    """Whichever deadline is the nearer, and whatever is wrong with the service: nothing of the call was sent."""
    seconds = {"lookup": 0.4} if bound == "lookup" else {"first_byte": 0.4, "body_idle": 0.4}
    async with town(tmp_path, script, **seconds) as here:
        async with agent_of(here) as agent:
            call = await refused(here, await refund(agent), 502, "lookup_failed")
        assert await lookups(here) == [(f"{call}.l1", 1, "indeterminate", None, True)]


async def test_a_service_that_is_not_there_is_asked_nothing(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        here.origin._server.close()
        async with agent_of(here) as agent:
            call = await refused(here, await refund(agent), 502, "lookup_failed")
        assert await lookups(here) == [(f"{call}.l1", 1, "failed", None, False)]


async def wait_for_lookup(here: Town) -> None:
    while not here.origin.requests:
        await asyncio.sleep(0.005)


async def test_an_agent_that_hangs_up_ends_the_lookup(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG)) as here:
        async with agent_of(here) as agent:
            await agent.send("POST", "/v1/refunds", b"charge=ch_1", FORM)
            await wait_for_lookup(here)
        await here.origin.connections[0].closed.wait()
        ((_, _, status, _, sent),) = await lookups(here)
        assert (status, sent, targets(here)) == ("indeterminate", True, [f"GET {LOOKUP}"])


async def test_a_revocation_cuts_the_lookup(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG)) as here:
        async with agent_of(here) as agent:
            await agent.send("POST", "/v1/refunds", b"charge=ch_1", FORM)
            await wait_for_lookup(here)
            (flying,) = await asyncio.to_thread(here.gate.gate.in_flight)
            assert flying.operation == "stripe GET /v1/charges/{charge} (lookup)"
            world, target = here.gate.world, Target(TargetKind.ACCOUNT, "acme", "agent")
            world.revocations = world.revocations.revoke(target, datetime.now(UTC), "test", Actor("uid", "1", "ana"))
            report = await asyncio.to_thread(here.gate.gate.cut, target)
            assert report.cut == 1
            call = await refused(here, await agent.read_answer("POST"), 403, "revoked_in_flight")
        await here.origin.connections[0].closed.wait()
        assert await lookups(here) == [(f"{call}.l1", 1, "indeterminate", None, True)]


async def test_a_kept_connection_that_died_is_asked_again_on_another(tmp_path: Path) -> None:
    """A read is safe to send again; with an intent of its own."""

    async def once(request: Request, peer: Peer) -> None:
        if len(peer.connection.requests) > 1:
            peer.abort()
        else:
            await peer.send(json_reply(CHARGE))

    async with town(tmp_path, once) as here:
        async with agent_of(here) as agent:
            assert (await agent.request("GET", "/v1/charges/ch_0")).status == 200
            assert (await refund(agent)).status == 200
        assert [(attempt, status) for _, attempt, status, _, _ in await lookups(here)] == [
            (1, "indeterminate"),
            (2, "confirmed"),
        ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/payouts", b"charge=ch_1"),  # no rule could allow it
        ("DELETE", "/v1/customers/cus_1", b"charge=ch_1"),
        ("POST", "/v1/refunds", b"currency=usd&amount=500"),  # the request says all
        ("POST", "/v1/refunds", b"currency=usd&amount=501"),
        ("POST", "/v1/refunds", b"amount=500"),  # nothing to ask by
        ("POST", "/v1/refunds", b"charge=ch_1&charge=ch_2"),
    ],
)
async def test_nothing_is_asked_where_that_decides_nothing(tmp_path: Path, method: str, path: str, body: bytes) -> None:
    async with town(tmp_path) as here:
        async with agent_of(here) as agent:
            await agent.request(method, path, body, FORM)
        assert [target for target in targets(here) if target.startswith("GET ")] == []
        assert await lookups(here) == []


@pytest.mark.parametrize(
    "argument",
    ["../payouts", "..", ".", "ch_1/../ch_2", "ch_1?x=1", "ch_1#x", "ch_1%252f..", "ch_1%2fx", "", "ch%C3%BC"],
)
async def test_an_argument_is_no_way_to_another_path(tmp_path: Path, argument: str) -> None:
    form = argument.encode() if "%" in argument else argument.replace("#", "%23").encode()
    async with town(tmp_path) as here:
        async with agent_of(here) as agent:
            await refused(here, await refund(agent, b"charge=" + form), 403, "amount_unknown")
            await agent.request("GET", "/v1/charges/ch_0")
        assert targets(here) == ["GET /v1/charges/ch_0"]
        assert await lookups(here) == []


@pytest.mark.parametrize("name", ["Stripe-Account", "STRIPE-ACCOUNT", "Stripe_Account", "stripe.account"])
async def test_the_account_is_the_connection_s_whatever_the_agent_says(tmp_path: Path, name: str) -> None:
    async with town(tmp_path) as here:
        async with agent_of(here) as agent:
            answer = await refund(agent, **{name: "acct_evil"})
        if name.lower() != "stripe-account":  # some origin takes it for the same name
            assert (answer.status, answer.code) == (400, "malformed_request")
            assert here.origin.connections == []
            return
        assert answer.status == 200
        for request in here.origin.requests:
            assert request.header("stripe-account") == "acct_1Abc"
            assert b"acct_evil" not in request.raw


async def test_a_secret_of_the_other_mode_is_never_sent(tmp_path: Path) -> None:
    async with town(tmp_path, secret="sk_test_123") as here:
        async with agent_of(here) as agent:
            answer = await agent.request("GET", "/v1/charges/ch_1")
            assert (answer.status, answer.code) == (503, "secret_unavailable")
            assert (await refund(agent)).code == "secret_unavailable"  # nor for a lookup
        assert here.origin.connections == []
        assert await here.gate.records("call.intent") == []
        here.gate.world.secrets["acme", "saas"] = (Secret("rk_live_1"), 2)
        async with agent_of(here) as agent:
            assert (await agent.request("GET", "/v1/charges/ch_1")).status == 200


async def test_stage_observe_lets_out_what_it_would_deny_and_says_why(tmp_path: Path) -> None:
    async with town(tmp_path, stage=OBSERVE.format(until="2999-12-31")) as here:
        async with agent_of(here) as agent:
            assert (await refund(agent, b"charge=ch_1&amount=501")).status == 200
            assert (await agent.request("DELETE", "/v1/customers/cus_1")).status == 200
        intents = [i for i in await here.gate.records("call.intent") if not i.body["call"].endswith(".l1")]
        told = [(i.body["op"]["tool"], i.body["decision"]["rules"], i.body["decision"]["reasons"]) for i in intents]
        assert [(tool, rules, [reason["code"] for reason in reasons]) for tool, rules, reasons in told] == [
            ("stripe.refund.create", ["stage:observe"], ["condition_failed"]),
            ("stripe.customer.delete", ["stage:observe"], ["rule_denied"]),
        ]
        assert targets(here) == [f"GET {LOOKUP}", "POST /v1/refunds", "DELETE /v1/customers/cus_1"]


@pytest.mark.parametrize("script", [answers(Action.HANG), answers(Action.ABORT)], ids=["hangs", "aborts"])
async def test_stage_observe_is_held_up_by_no_lookup(tmp_path: Path, script: Script) -> None:
    async with town(tmp_path, script, stage=OBSERVE.format(until="2999-12-31"), lookup=0.3) as here:
        async with agent_of(here) as agent:
            assert (await refund(agent)).status == 200
        (_, intent) = await here.gate.records("call.intent")
        assert intent.body["decision"]["reasons"][0]["code"] == "amount_unknown"


async def test_stage_observe_is_held_up_by_no_bound_on_lookups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.lookups.MAX_A_MINUTE", 0)
    async with town(tmp_path, stage=OBSERVE.format(until="2999-12-31")) as here, agent_of(here) as agent:
        assert (await refund(agent)).status == 200
        (intent,) = await here.gate.records("call.intent")
        assert intent.body["decision"]["reasons"][0]["code"] == "amount_unknown"


async def test_stage_observe_ends_on_its_day(tmp_path: Path) -> None:
    async with town(tmp_path, stage=OBSERVE.format(until="2026-01-01")) as here, agent_of(here) as agent:
        await refused(here, await agent.request("DELETE", "/v1/customers/cus_1"), 403, "rule_denied")


async def test_lookups_of_an_account_are_bounded_whatever_becomes_of_its_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.lookups.MAX_A_MINUTE", 2)
    async with town(tmp_path) as here, agent_of(here) as agent:
        for _ in range(2):
            assert (await refund(agent, b"charge=ch_1&amount=501")).code == "condition_failed"
        answer = await refund(agent)
        assert (answer.status, answer.code) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert targets(here) == [f"GET {LOOKUP}"] * 2


def test_an_allowance_is_for_each_account_and_comes_back_with_the_minute() -> None:
    allowance = Allowance()
    assert [allowance.take("acme", "agent", 5.0) for _ in range(MAX_A_MINUTE)] == [None] * MAX_A_MINUTE
    assert allowance.take("acme", "agent", 35.0) == 30
    assert allowance.take("acme", "other", 35.0) is None
    assert allowance.take("globex", "agent", 35.0) is None
    assert allowance.take("acme", "agent", 65.0) is None
