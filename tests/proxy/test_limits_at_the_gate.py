"""Limits on real traffic: what is counted of a call, what is due of it, and what a restart makes of the records.

After every test the counters are the same as those that the ledger alone gives, and nothing is held any more.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.stores.limits import EmbeddedReservations
from control.stores.limits_replay import Replay
from ledger import read_records
from ledger.report import EXIT_INTACT
from ledger.verify import verify
from proxy.world import Clock, wall_clock
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, Answer, running_gate, write_policy
from tests.worlds.origin import Action, Origin, Peer, Request, answers, reply
from tests.worlds.towns import SECRET, Town

pytestmark = pytest.mark.anyio

POLICY = """
exeat: 1
tenant: acme
roles: {{lead: [lea@acme.example]}}
limits: {{{whole}}}
connections:
  stripe: {{host: api.stripe.com, dial: "127.0.0.1:{stripe}", ca: ca.pem, secret: saas}}
  slack: {{host: slack.com, dial: "127.0.0.1:{slack}", ca: ca.pem, secret: saas, price: 0.10 USD}}
accounts:
  agent: &account
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    limits: {{{limits}}}
    rules: {RULES}
  other:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules: {RULES}
""".replace("&account\n", "\n").replace(
    "{RULES}",
    "[{{id: refund, allow: [stripe.refund.create, stripe.balance.get]}}, {{id: say, allow: slack.chat.postMessage}},"
    " {{id: upload, allow: {{connection: slack, path: /upload, body: {{stream: 2 MiB}}}}}}]",
)
REFUNDS = "stripe.refund.create.amount"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
LEFT = {"id": "ch_1", "amount": 9000, "amount_refunded": 8500, "currency": "usd"}
"""Five dollars of it are left to refund."""


@dataclass
class Vendor:
    """What an origin does: answers lookups with a charge, and everything else as the test says."""

    charge: dict[str, object] | None = field(default_factory=lambda: dict(LEFT))
    answer: bytes | Action = field(default_factory=reply)
    before: Callable[[Request], object] | None = None
    asked: list[str] = field(default_factory=list)

    async def __call__(self, request: Request, peer: Peer) -> None:
        self.asked.append(f"{request.method} {request.target}")
        if self.before is not None:
            await self.before(request)
        if request.method == "GET":
            found = reply(status="404 Not Found") if self.charge is None else reply(json.dumps(self.charge).encode())
            await peer.send(found)
        else:
            await answers(self.answer)(request, peer)


@dataclass
class Street:
    """The gate with both vendors behind it."""

    town: Town
    vendor: Vendor

    @asynccontextmanager
    async def agent(
        self, host: str = "api.stripe.com", account: str = "agent", run: str = "r_1"
    ) -> AsyncIterator[Agent]:
        async with self.town.agent(self.town.gate.world.token(account, run=run), host=host) as agent:
            yield agent

    async def refund(self, body: str = "charge=ch_1", headers: dict[str, str] | None = None, **who: str) -> Answer:
        async with self.agent(**who) as agent:
            return await agent.request("POST", "/v1/refunds", body.encode(), FORM | (headers or {}))

    async def say(self, value: object, **who: str) -> Answer:
        async with self.agent("slack.com", **who) as agent:
            return await agent.request("POST", "/api/chat.postMessage", json.dumps(value).encode(), JSON)

    @property
    def writes(self) -> list[str]:
        return [line for line in self.vendor.asked if not line.startswith("GET ")]

    async def books(self) -> dict[str, int]:
        """What each budget has been charged; nothing is set aside any more."""
        await self.town.gate.gate.settled()
        found = {use.key: use for use in self.town.gate.reservations.budgets()}
        assert all(use.reserved_micros == 0 for use in found.values())
        return {key: use.spent_micros for key, use in found.items()}

    async def costs(self, type_: str = "call.outcome") -> list[dict[str, object]]:
        return [
            record.body["cost"] for record in await self.town.gate.records(type_) if record.body["cost"] is not None
        ]


@asynccontextmanager
async def street(
    folder: Path, limits: str = "", whole: str = "", vendor: Vendor | None = None, clock: Clock = wall_clock
) -> AsyncIterator[Street]:
    authority, vendor = Authority(), vendor or Vendor()
    async with (
        Origin(authority.issue("api.stripe.com"), vendor) as stripe,
        Origin(authority.issue("slack.com"), vendor) as slack,
    ):
        text = POLICY.format(stripe=stripe.port, slack=slack.port, limits=limits, whole=whole)
        policy = write_policy(folder / "policy", text, {"ca.pem": authority.pem})
        async with running_gate(folder, policy, secrets={"saas": SECRET}, clock=clock) as gate:
            here = Street(Town(gate, stripe), vendor)
            yield here
            live = await here.books()
            assert gate.reservations.held == 0
            fresh, replay = EmbeddedReservations(), Replay(policy)
            for record in read_records(gate.directory):
                replay.feed({"type": record.type, "ts": record.ts, "tenant": record.tenant, **record.body})
            replay.finish(fresh)
            counted = {use.key: use.spent_micros for use in fresh.budgets() if use.spent_micros}
            assert counted == {key: n for key, n in live.items() if n}
            report = await asyncio.to_thread(verify, gate.directory, gate.ledger.trust())
            assert report.exit_code == EXIT_INTACT, report


def cap(most: str, meter: str = REFUNDS, per: str = "day", more: str = "") -> str:
    return f"spend: [{{meter: {meter}, max: {most}, per: {per}{more}}}]"


def detail(answer: Answer) -> str:
    body = json.loads(answer.body)
    return str(body.get("detail") or body["error"].get("message"))


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer


async def test_an_amount_that_is_left_out_is_counted_as_what_is_left(tmp_path: Path) -> None:
    async with street(tmp_path, cap("8 USD")) as here:
        assert (await here.refund()).status == 200
        answer = await here.refund()
        refused(answer, 403, "spend_cap_reached")
        assert "3.00 USD left, 5.00 USD needed" in detail(answer)
        assert here.writes == ["POST /v1/refunds"]
        (key,) = await here.books()
        assert key == f"acme/agent/{REFUNDS}:USD/day"
        assert await here.books() == {key: 5_000_000}
        (intent,) = await here.costs("call.intent")
        assert {**intent, "budget": [re.sub(r"[0-9-]+$", "D", name) for name in intent["budget"]]} == {
            "micro": 0, "cur": "XXX", "units": {REFUNDS: 5_000_000}, "budget": [f"{key}/D"],
        }  # fmt: skip
        assert await here.costs() == [intent]


@pytest.mark.parametrize(
    "body", ["charge=ch_1", "charge=ch_1&amount=-1", "charge=ch_1&amount=x", "charge=ch_1&payment_intent=pi_1"]
)
async def test_an_amount_that_cannot_be_told_is_denied_and_counts_nothing(tmp_path: Path, body: str) -> None:
    async with street(tmp_path, cap("1000000 USD"), vendor=Vendor(charge=None)) as here:
        refused(await here.refund(body), 403, "amount_unknown")
        assert (here.writes, await here.books()) == ([], {})


async def test_a_body_that_cannot_be_read_is_no_way_around(tmp_path: Path) -> None:
    async with street(tmp_path, cap("1000000 USD")) as here:
        async with here.agent() as agent:
            answer = await agent.request(
                "POST", "/v1/refunds", b"amount=1&currency=usd", {"Content-Type": "text/plain"}
            )
        refused(answer, 415, "content_refused")
        assert (here.writes, await here.books()) == ([], {})


async def test_yen_have_no_cents_and_are_not_converted(tmp_path: Path) -> None:
    yen = {**LEFT, "amount": 900, "amount_refunded": 400, "currency": "jpy"}
    async with street(tmp_path, cap("800 JPY"), vendor=Vendor(charge=yen)) as here:
        assert (await here.refund()).status == 200
        assert list((await here.books()).values()) == [500_000_000]
        refused(await here.refund("charge=ch_1&amount=301"), 403, "spend_cap_reached")
        assert (await here.refund("charge=ch_1&amount=300")).status == 200
        here.vendor.charge = LEFT
        answer = await here.refund("charge=ch_1&amount=1")
        refused(answer, 403, "condition_failed")
        assert "count JPY, and this call is about USD" in detail(answer)


async def test_each_currency_is_counted_by_its_own_limit(tmp_path: Path) -> None:
    two = f"spend: [{{meter: {REFUNDS}, max: 9 USD, per: day}}, {{meter: {REFUNDS}, max: 500 JPY, per: day}}]"
    async with street(tmp_path, two) as here:
        assert (await here.refund("amount=300&currency=usd")).status == 200
        assert (await here.refund("amount=300&currency=jpy")).status == 200
        assert sorted((await here.books()).values()) == [3_000_000, 300_000_000]


@pytest.mark.parametrize(
    ("answer", "due"),
    [
        (reply(status="402 Payment Required"), 0),
        (reply(status="200 OK"), 5_000_000),
        (reply(status="500 Internal Server Error"), 5_000_000),
        (Action.ABORT, 5_000_000),
    ],
    ids=["refused", "confirmed", "failed", "cut"],
)
async def test_what_is_due_is_what_may_have_happened(tmp_path: Path, answer: bytes | Action, due: int) -> None:
    async with street(tmp_path, cap("8 USD"), vendor=Vendor(answer=answer)) as here:
        await here.refund()
        assert list((await here.books()).values()) == [due]
        (cost,) = await here.costs()
        assert cost["units"] == {REFUNDS: due}


async def test_several_meters_are_taken_together_or_not_at_all(tmp_path: Path) -> None:
    three = (
        "spend: [{meter: calls, max: 3, per: hour}, {meter: recipients, max: 2, per: month},"
        " {meter: price, max: 9 USD, per: day}]"
    )
    async with street(tmp_path, three) as here:
        for channel in ("C1", "C2"):
            assert (await here.say({"channel": channel})).status == 200
        answer = await here.say({"channel": "C3"})
        refused(answer, 403, "spend_cap_reached")
        assert await here.books() == {
            "acme/agent/calls/hour": 2_000_000,
            "acme/agent/recipients/month": 2_000_000,
            "acme/agent/USD/day": 200_000,
        }
        for cost in await here.costs():
            assert (cost["micro"], cost["cur"]) == (100_000, "USD")
            assert cost["units"] == {"calls": 1_000_000, "recipients": 1_000_000}
            assert len(cost["budget"]) == 3


async def test_recipients_that_cannot_be_told_are_denied(tmp_path: Path) -> None:
    async with street(tmp_path, cap("100", "recipients")) as here:
        refused(await here.say({"channel": 7}), 403, "condition_failed")
        assert (here.writes, await here.books()) == ([], {})


async def test_a_run_has_its_own_budget_and_cannot_name_itself_anew(tmp_path: Path) -> None:
    async with street(tmp_path, cap("8 USD", per="run")) as here:
        assert (await here.refund()).status == 200
        declared = {"Exeat-Run": "r_2", "X-Run-Id": "r_2", "Exeat-Workflow": "other"}
        refused(await here.refund(headers=declared), 403, "spend_cap_reached")
        assert (await here.refund(run="r_2")).status == 200
        assert await here.books() == {f"acme/agent/{REFUNDS}:USD/run/run={run}": 5_000_000 for run in ("r_1", "r_2")}


async def test_a_tenants_limit_counts_all_accounts_together(tmp_path: Path) -> None:
    async with street(tmp_path, whole=cap("8 USD") + ", concurrency: 5") as here:
        assert (await here.refund(account="agent")).status == 200
        refused(await here.refund(account="other"), 403, "spend_cap_reached")
        assert (await here.refund("charge=ch_1&amount=300", account="other")).status == 200
        assert await here.books() == {f"acme/*/{REFUNDS}:USD/day": 8_000_000}


async def test_a_tenants_limit_by_account_counts_each(tmp_path: Path) -> None:
    async with street(tmp_path, whole=cap("8 USD", more=", by: [account]")) as here:
        for account in ("agent", "other"):
            assert (await here.refund(account=account)).status == 200
            refused(await here.refund(account=account), 403, "spend_cap_reached")


async def test_the_tightest_of_both_levels_refuses_and_neither_is_charged(tmp_path: Path) -> None:
    async with street(tmp_path, cap("100 USD"), cap("4 USD")) as here:
        refused(await here.refund(), 403, "spend_cap_reached")
        assert set((await here.books()).values()) <= {0}


async def test_a_service_that_asks_to_wait_is_left_alone_by_all(tmp_path: Path) -> None:
    vendor = Vendor(answer=reply(status="429 Too Many Requests", headers="Retry-After: 30\r\n"))
    async with street(tmp_path, cap("100 USD"), vendor=vendor) as here:
        assert (await here.refund("amount=100&currency=usd")).status == 429
        asked = len(vendor.asked)
        for account in ("agent", "other"):
            answer = await here.refund("amount=100&currency=usd", account=account)
            refused(answer, 429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 30
            assert "ratelimit" not in answer.headers, "it is no limit of ours"
            assert "asked to wait" in detail(answer)
        refused(await here.refund(), 429, "rate_limited")  # nor is it asked for what the request does not say
        assert len(vendor.asked) == asked
        vendor.answer = reply()
        assert (await here.say({"channel": "C1"})).status == 200  # another connection


async def test_a_retry_under_an_idempotency_key_is_charged_once(tmp_path: Path) -> None:
    async with street(tmp_path, cap("8 USD")) as here:
        key = {"Idempotency-Key": "k-1"}
        for _ in range(3):
            assert (await here.refund(headers=key)).status == 200
        assert list((await here.books()).values()) == [5_000_000]
        assert [cost["units"] for cost in await here.costs()] == [{REFUNDS: 5_000_000}, {REFUNDS: 0}, {REFUNDS: 0}]
        answer = await here.refund("charge=ch_1&amount=100", headers=key)
        refused(answer, 403, "idempotency_conflict")
        refused(await here.refund(headers={"Idempotency-Key": "k-2"}), 403, "spend_cap_reached")
        assert (await here.refund("charge=ch_1&amount=300", headers={"Idempotency-Key": "k-2"})).status == 200


async def test_a_refused_attempt_does_not_pay_for_the_next(tmp_path: Path) -> None:
    vendor = Vendor(answer=reply(status="402 Payment Required"))
    async with street(tmp_path, cap("8 USD"), vendor=vendor) as here:
        key = {"Idempotency-Key": "k-1"}
        assert (await here.refund(headers=key)).status == 402
        vendor.answer = reply()
        assert (await here.refund(headers=key)).status == 200
        assert list((await here.books()).values()) == [5_000_000]


async def test_a_key_that_is_used_again_and_again_is_not_paid_for_ever(tmp_path: Path) -> None:
    """A service forgets a key after a day and refunds again, whenever it was last tried."""
    began = datetime(2026, 11, 25, 0, 30, tzinfo=UTC)
    hours = [0.0]
    async with street(tmp_path, cap("100 USD", per="run"), clock=lambda: began + timedelta(hours=hours[0])) as here:
        spent = []
        for hours[0] in (0, 12, 23, 34, 46, 58):
            assert (await here.refund(headers={"Idempotency-Key": "k-1"})).status == 200
            spent += [micros // 1_000_000 for micros in (await here.books()).values()]
        assert spent == [5, 5, 5, 10, 10, 15]


async def test_the_same_words_to_another_account_are_another_call(tmp_path: Path) -> None:
    """The service knows a key for each of its accounts: to the other one, this is a new refund."""
    async with street(tmp_path, cap("8 USD")) as here:
        for account in ("acct_1", "acct_2"):
            headers = {"Idempotency-Key": "k-1", "Stripe-Account": account}
            answer = await here.refund("amount=300&currency=usd", headers=headers)
            assert answer.code == (None if account == "acct_1" else "idempotency_conflict")
        assert list((await here.books()).values()) == [3_000_000]


async def test_a_key_makes_no_read_free(tmp_path: Path) -> None:
    """A service does those anew, whatever key they have."""
    async with street(tmp_path, cap("2", "calls")) as here, here.agent() as agent:
        for status in (200, 200, 403):
            assert (await agent.request("GET", "/v1/balance", headers={"Idempotency-Key": "k-1"})).status == status


async def test_a_key_is_no_way_to_send_bytes_that_are_not_counted(tmp_path: Path) -> None:
    """What leaves with a retry leaves in its headers, too."""
    limits = f"spend: [{{meter: {REFUNDS}, max: 8 USD, per: day}}, {{meter: bytes_out, max: 1 MB, per: day}}]"
    async with street(tmp_path, limits) as here:
        sent = []
        for n in range(2):
            headers = {"Idempotency-Key": "k-1", "X-Said": "z" * 1000 * n}
            assert (await here.refund("amount=300&currency=usd", headers=headers)).status == 200
            sent.append((await here.books())["acme/agent/bytes_out/day"])
        assert sent[1] - sent[0] > sent[0] + 900 * 1_000_000


async def test_an_attempt_beside_one_in_flight_is_told_to_come_back(tmp_path: Path) -> None:
    here: Street
    beside: list[Answer] = []

    async def once_more(request: Request) -> None:
        if request.method == "POST" and not beside:
            beside.append(await here.refund("amount=100&currency=usd", headers={"Idempotency-Key": "k-1"}))

    async with street(tmp_path, cap("8 USD"), vendor=Vendor(before=once_more)) as here:
        assert (await here.refund("amount=100&currency=usd", headers={"Idempotency-Key": "k-1"})).status == 200
        refused(beside[0], 409, "idempotency_in_flight")
        assert beside[0].headers["retry-after"] == "1"
        assert here.writes == ["POST /v1/refunds"]


async def test_two_idempotency_keys_are_none(tmp_path: Path) -> None:
    """Nobody knows which of them the service goes by."""
    async with street(tmp_path, cap("8 USD")) as here, here.agent() as agent:
        agent.writer.write(
            b"POST /v1/refunds HTTP/1.1\r\nHost: api.stripe.com\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\ncharge=ch_1"
        )
        assert (await agent.read_answer("POST")).status == 400
        assert here.writes == []


async def test_bytes_that_leave_are_counted_as_they_left(tmp_path: Path) -> None:
    async with street(tmp_path, cap("6 MB", "bytes_out")) as here, here.agent("slack.com") as agent:
        body = b"x" * 500_000
        assert (await agent.request("POST", "/upload", body)).status == 200
        (key,) = counted = await here.books()
        held = counted[key] // 1_000_000
        assert 500_000 < held < 501_000, "its head leaves, too"
        # Of a body whose length nobody knows yet, what its rule lets it be is set aside; what left of it is due.
        lines = "POST /upload HTTP/1.1\r\nHost: slack.com\r\nTransfer-Encoding: chunked\r\n\r\n"
        agent.writer.write(lines.encode() + b"10\r\n" + b"y" * 16 + b"\r\n")
        await agent.writer.drain()
        while not here.town.gate.reservations.held:
            await asyncio.sleep(0.01)
        (use,) = here.town.gate.reservations.budgets()
        assert use.reserved_micros > 2 * 1024 * 1024 * 1_000_000
        agent.writer.write(b"0\r\n\r\n")
        assert (await agent.read_answer("POST")).status == 200
        left = (await here.books())[key] // 1_000_000 - held
        assert 16 < left < 1000
        *_, cost = await here.costs()
        assert cost["units"] == {"bytes_out": left * 1_000_000}


async def test_a_streamed_body_that_may_be_too_long_does_not_leave(tmp_path: Path) -> None:
    async with street(tmp_path, cap("1 MB", "bytes_out")) as here, here.agent("slack.com") as agent:
        lines = "POST /upload HTTP/1.1\r\nHost: slack.com\r\nTransfer-Encoding: chunked\r\n\r\n"
        agent.writer.write(lines.encode() + b"10\r\n" + b"y" * 16 + b"\r\n")
        refused(await agent.read_answer("POST"), 403, "spend_cap_reached")
        assert here.writes == []


async def test_beyond_a_limit_an_approval_would_be_needed_and_there_are_none(tmp_path: Path) -> None:
    over = ", alert: [50%, 80%], over: {approve: lead, hard: 20 USD}"
    async with street(tmp_path, cap("4 USD", more=over)) as here:
        answer = await here.refund()
        refused(answer, 403, "spend_cap_reached")
        assert "approval by lead" in detail(answer)
        assert here.writes == []


async def test_a_rate_of_a_tool_by_run_and_what_the_refusal_says_of_it(tmp_path: Path) -> None:
    rate = "rate: [{tools: [stripe.refund.create], max: 1, per: hour, by: [run]}]"
    async with street(tmp_path, rate) as here:
        assert (await here.refund("amount=1&currency=usd")).status == 200
        answer = await here.refund("amount=1&currency=usd")
        refused(answer, 429, "rate_limited")
        assert answer.headers["ratelimit-policy"] == '"hour";q=1;w=3600'
        assert answer.headers["ratelimit"] == f'"hour";r=0;t={answer.headers["retry-after"]}'
        assert (await here.refund("amount=1&currency=usd", run="r_2")).status == 200
        async with here.agent() as agent:
            assert (await agent.request("GET", "/v1/balance")).status == 200, "another tool"


async def test_slots_of_a_tool_are_counted_by_run(tmp_path: Path) -> None:
    here: Street
    beside: list[Answer] = []

    async def another(request: Request) -> None:
        if not beside:
            beside.append(await here.refund("amount=1&currency=usd"))
            beside.append(await here.refund("amount=1&currency=usd", run="r_2"))

    async with street(
        tmp_path, "concurrency: [{max: 1, tools: [stripe.refund.create], by: [run]}]", vendor=Vendor(before=another)
    ) as here:
        assert (await here.refund("amount=1&currency=usd")).status == 200
        refused(beside[0], 429, "concurrency_reached")
        assert beside[0].headers["ratelimit-policy"] == '"concurrency";q=1;qu="concurrent-requests"'
        assert beside[1].status == 200
