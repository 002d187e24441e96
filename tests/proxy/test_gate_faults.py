"""A crash, a time-out and a cancellation at every step leave the origin untouched or the outcome recorded.

After each: no forwarded call without a durable intent, no intent without an outcome, no claim still held, and the gate
goes on serving.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ledger import LedgerUnavailable
from proxy.config import GateConfig, Timeouts
from rules.claims import ReservationsUnavailable
from tests.worlds.gate import Agent
from tests.worlds.origin import Action, Peer, Request, answers, reply
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio

LIMITS = "concurrency: 3, spend: [{meter: price, max: 100 USD, per: day}]"
SHORT = GateConfig(
    listen=(("127.0.0.1", 0),),
    timeouts=Timeouts(
        handshake=0.5, headers=0.5, body_idle=0.5, connect=0.5, first_byte=0.5, commit=0.5, reserve=0.3, tunnel_idle=5
    ),
)


class FaultyLedger:
    """The real ledger with one fault in front of it: fails, hangs or crashes on one type of record."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.fault: dict[str, str] = {}
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    def submit_async(self, loop, type, tenant, content, orphaned=None):  # noqa: A002
        fault = self.fault.get(type)
        if fault == "crash":
            raise RuntimeError("injected")
        if fault == "refuse":
            raise LedgerUnavailable("injected")
        if fault == "fail":
            future = loop.create_future()
            future.set_exception(LedgerUnavailable("injected"))
            return future
        if fault == "hang":
            self.reached.set()
            future = loop.create_future()

            async def later() -> None:
                await self.let_go.wait()
                receipt = await self.inner.submit_async(loop, type, tenant, content)
                if not future.done():
                    future.set_result(receipt)
                elif orphaned is not None:
                    orphaned(receipt)

            self._task = loop.create_task(later())
            return future
        return self.inner.submit_async(loop, type, tenant, content, orphaned)


class FaultyReservations:
    """The real store with one fault in front of it."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.fault: str | None = None
        self.reached = asyncio.Event()

    async def reserve(self, call, claims):
        if self.fault == "crash":
            raise RuntimeError("injected")
        if self.fault == "unavailable":
            raise ReservationsUnavailable("injected")
        if self.fault == "hang":
            self.reached.set()
            await asyncio.sleep(30)
        return await self.inner.reserve(call, claims)

    def release(self, reserved):
        self.inner.release(reserved)

    def settle(self, reserved, spent, *, refused=False):
        self.inner.settle(reserved, spent)


async def check_invariants(here: Town) -> None:
    """What must hold after any fault, whatever the step."""
    async with asyncio.timeout(10):
        while len(here.gate.gate._live):
            await asyncio.sleep(0.01)
    records = await here.gate.records()
    intents = {record.seq: record for record in records if record.type == "call.intent"}
    outcomes = [record.body["intent"] for record in records if record.type == "call.outcome"]
    assert sorted(outcomes) == sorted(intents), "an intent without its outcome, or the reverse"
    assert len(here.origin.requests) <= len(intents), "the origin saw a call without an intent"
    assert here.gate.reservations.held == 0, "a claim leaked"


async def check_still_serving(here: Town) -> None:
    """The fault was that call's alone."""
    here.origin.script = answers(reply())
    async with here.agent() as agent:
        assert (await agent.request("GET", "/things/again")).status == 200


type Fault = Callable[[Town], Awaitable[object]]


async def call(here: Town, method: str = "POST") -> tuple[int, str | None]:
    async with here.agent() as agent:
        answer = await agent.request(method, "/things/1", b"{}" if method == "POST" else None)
        return answer.status, answer.code


async def vanish(here: Town, when: asyncio.Event | Callable[[], bool]) -> None:
    """An agent that sends a call and goes away when it has reached a certain point."""
    async with here.agent() as agent:
        await agent.send("POST", "/things/1", b"{}")
        if isinstance(when, asyncio.Event):
            await when.wait()
        else:
            while not when():
                await asyncio.sleep(0.005)
        agent.writer.transport.abort()


# (1) admit


async def test_admit_cut_off_in_the_middle_of_a_head(tmp_path: Path) -> None:
    async with town(tmp_path, limits=LIMITS, config=SHORT) as here:
        async with here.agent() as agent:
            agent.writer.write(b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nX-Half: ")
            await agent.writer.drain()
            agent.writer.transport.abort()
        await check_invariants(here)
        await check_still_serving(here)


async def test_admit_times_out_on_a_slow_head(tmp_path: Path) -> None:
    """Slowloris: a head that never ends is answered and recorded."""
    async with town(tmp_path, limits=LIMITS, config=SHORT) as here:
        async with here.agent() as agent:
            agent.writer.write(b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nX-Half: ")
            answer = await agent.read_answer("POST")
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert here.origin.connections == []
        assert len(await here.gate.records("call.rejected")) == 1


async def test_admit_times_out_on_a_slow_body(tmp_path: Path) -> None:
    async with town(tmp_path, limits=LIMITS, config=SHORT) as here:
        async with here.agent() as agent:
            agent.writer.write(b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 10\r\n\r\nhalf")
            answer = await agent.read_answer("POST")
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert here.origin.connections == []
        await check_invariants(here)


async def test_admit_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with town(tmp_path, limits=LIMITS, config=SHORT) as here:
        monkeypatch.setattr("proxy.admission.resolve_target", crash)
        assert await call(here) == (503, "internal")
        assert here.origin.connections == []
        monkeypatch.undo()
        await check_invariants(here)
        await check_still_serving(here)


def crash(*_args: object, **_options: object) -> None:
    raise RuntimeError("injected")


# (2) identify


async def test_identify_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with town(tmp_path, limits=LIMITS) as here, here.agent() as agent:
        monkeypatch.setattr(type(here.gate.world.identifier), "identify", crash)
        answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (503, "internal")
        assert here.origin.connections == []
        monkeypatch.undo()
        assert len(await here.gate.records("call.rejected")) == 1
        await check_still_serving(here)


# (3) classify


async def test_classify_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with town(tmp_path, limits=LIMITS) as here:
        monkeypatch.setattr("proxy.deciding.Facts", crash)
        assert await call(here) == (503, "internal")
        monkeypatch.undo()
        assert here.origin.connections == []
        assert len(await here.gate.records("call.denied")) == 1
        await check_invariants(here)
        await check_still_serving(here)


# (4) decide


async def test_decide_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with town(tmp_path, limits=LIMITS) as here:
        monkeypatch.setattr("proxy.deciding.decide", crash)
        assert await call(here) == (503, "internal")
        monkeypatch.undo()
        assert here.origin.connections == []
        await check_invariants(here)
        await check_still_serving(here)


# (5) reserve


@pytest.mark.parametrize("fault", ["crash", "unavailable", "hang"])
async def test_reserve_fails(tmp_path: Path, fault: str) -> None:
    stores: list[FaultyReservations] = []

    def wrap(inner):
        stores.append(FaultyReservations(inner))
        return stores[0]

    async with town(tmp_path, limits=LIMITS, config=SHORT, wrap_reservations=wrap) as here:
        stores[0].fault = fault
        expected = (503, "internal") if fault == "crash" else (503, "limits_unavailable")
        assert await call(here) == expected
        assert here.origin.connections == []
        stores[0].fault = None
        await check_invariants(here)
        await check_still_serving(here)


async def test_reserve_is_cancelled(tmp_path: Path) -> None:
    stores: list[FaultyReservations] = []

    def wrap(inner):
        stores.append(FaultyReservations(inner))
        return stores[0]

    async with town(tmp_path, limits=LIMITS, wrap_reservations=wrap) as here:
        stores[0].fault = "hang"
        await vanish(here, stores[0].reached)
        stores[0].fault = None
        await check_invariants(here)
        assert here.origin.connections == []
        await check_still_serving(here)


# (6) commit


@pytest.mark.parametrize("fault", ["crash", "refuse", "fail", "hang"])
async def test_commit_fails(tmp_path: Path, fault: str) -> None:
    """Not durable, not sent; and an intent that becomes durable too late is closed as not sent."""
    ledgers: list[FaultyLedger] = []

    def wrap(inner):
        ledgers.append(FaultyLedger(inner))
        return ledgers[0]

    async with town(tmp_path, limits=LIMITS, config=SHORT, wrap_ledger=wrap) as here:
        ledgers[0].fault["call.intent"] = fault
        status, code = await call(here)
        assert (status, code) == (503, "internal" if fault == "crash" else "ledger_unavailable")
        assert here.origin.connections == []
        ledgers[0].fault.clear()
        ledgers[0].let_go.set()
        await check_invariants(here)
        outcomes = await here.gate.records("call.outcome")
        if fault == "hang":
            assert [(o.body["result"]["status"], o.body["result"]["sent"]) for o in outcomes] == [("aborted", False)]
        await check_still_serving(here)


async def test_commit_is_cancelled(tmp_path: Path) -> None:
    ledgers: list[FaultyLedger] = []

    def wrap(inner):
        ledgers.append(FaultyLedger(inner))
        return ledgers[0]

    async with town(tmp_path, limits=LIMITS, wrap_ledger=wrap) as here:
        ledgers[0].fault["call.intent"] = "hang"
        await vanish(here, ledgers[0].reached)
        await asyncio.sleep(0.05)
        ledgers[0].fault.clear()
        ledgers[0].let_go.set()
        await check_invariants(here)
        assert here.origin.connections == []
        (outcome,) = await here.gate.records("call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["result"]["sent"]) == ("aborted", False)
        await check_still_serving(here)


# (7) fulfil


async def test_the_origin_is_not_there(tmp_path: Path) -> None:
    async with town(tmp_path, limits=LIMITS, config=SHORT) as here:
        port = here.origin.port
        await here.origin.__aexit__(None, None, None)
        assert port
        assert await call(here) == (502, "upstream_unreachable")
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["result"]["sent"]) == ("failed", False)


@pytest.mark.parametrize(
    ("script", "expected", "status"),
    [
        (answers(Action.HANG), (504, "upstream_timeout"), "timeout"),
        (answers(Action.ABORT), (502, "upstream_protocol"), "indeterminate"),
        (answers(b"garbage\r\n\r\n"), (502, "upstream_protocol"), "indeterminate"),
        (
            answers(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
            (502, "upstream_protocol"),
            "indeterminate",
        ),
        (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Action.CLOSE), None, "indeterminate"),
        (
            answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Action.HANG),
            (504, "upstream_timeout"),
            "timeout",
        ),
    ],
)
async def test_the_origin_misbehaves(
    tmp_path: Path, script: object, expected: tuple[int, str] | None, status: str
) -> None:
    """Sent and not known to have worked: never success, never free, never sent again."""
    async with town(tmp_path, script, limits=LIMITS, config=SHORT) as here:
        answered = await call(here)
        if expected is None:
            assert answered[0] == 502
        else:
            assert answered == expected
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == status
        assert outcome.body["cost"]["micro"] == 250_000
        assert len(here.origin.requests) == 1
        await check_still_serving(here)


async def test_fulfil_is_cancelled_before_the_answer(tmp_path: Path) -> None:
    """An agent that disconnects does not cancel the settling of its call."""
    async with town(tmp_path, answers(Action.HANG), limits=LIMITS) as here:
        await vanish(here, lambda: bool(here.origin.requests))
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["cost"]["micro"]) == ("indeterminate", 250_000)
        await check_still_serving(here)


async def test_fulfil_is_cancelled_in_the_middle_of_the_answer(tmp_path: Path) -> None:
    async def endless(request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not peer.connection.closed.is_set():
            await peer.send(b"4\r\nabcd\r\n")
            await asyncio.sleep(0.01)

    async with town(tmp_path, endless, limits=LIMITS) as here:
        async with here.agent() as agent:
            await agent.send("GET", "/things/1")
            await agent.read_head()
            agent.writer.transport.abort()
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "aborted"
        await check_still_serving(here)


async def test_attaching_the_secret_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with town(tmp_path, limits=LIMITS) as here:
        monkeypatch.setattr("proxy.pipeline.dispatched_bytes", crash)
        assert await call(here) == (503, "internal")
        monkeypatch.undo()
        assert here.origin.requests == []
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert (outcome.body["result"]["status"], outcome.body["result"]["sent"]) == ("failed", False)
        await check_still_serving(here)


async def test_what_would_be_sent_must_be_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authorised = dispatched: one byte changed between intent and socket, and nothing leaves."""
    from proxy import pipeline

    honest = pipeline.request_digest
    async with town(tmp_path, limits=LIMITS) as here:
        monkeypatch.setattr(pipeline, "request_digest", lambda head, body: honest(head, body + b"!"))
        assert await call(here) == (503, "internal")
        monkeypatch.undo()
        assert here.origin.requests == []
        await check_invariants(here)


async def test_a_kept_connection_that_died_is_retried_only_where_that_is_safe(tmp_path: Path) -> None:
    """The origin closes after each answer without saying so. A GET is sent again, with a new intent; a POST is not."""

    async def once(request: Request, peer: Peer) -> None:
        if len(peer.connection.requests) > 1:
            peer.abort()  # a request on a reused connection: gone before a byte of the answer
        else:
            await peer.send(reply())

    async with town(tmp_path, once, limits=LIMITS) as here:
        assert (await call(here, "GET"))[0] == 200
        assert (await call(here, "GET"))[0] == 200
        intents = await here.gate.records("call.intent")
        assert [(i.body["attempt"]) for i in intents] == [1, 1, 2]
        assert intents[1].body["call"] == intents[2].body["call"]
        status, _ = await call(here, "POST")
        assert status == 502
        last = (await here.gate.records("call.outcome"))[-1]
        assert last.body["result"]["status"] == "indeterminate"
        await check_invariants(here)


# (8) settle


@pytest.mark.parametrize("fault", ["crash", "refuse", "fail", "hang"])
async def test_an_answer_whose_outcome_is_not_durable_is_never_finished(tmp_path: Path, fault: str) -> None:
    """The last byte waits for the outcome: no outcome, no end of the answer."""
    ledgers: list[FaultyLedger] = []

    def wrap(inner):
        ledgers.append(FaultyLedger(inner))
        return ledgers[0]

    async with town(tmp_path, limits=LIMITS, config=SHORT, wrap_ledger=wrap) as here:
        ledgers[0].fault["call.outcome"] = fault
        async with here.agent() as agent:
            await agent.send("GET", "/things/1")
            try:
                async with asyncio.timeout(2):
                    answer = await agent.read_answer("GET")
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                pass
            else:
                assert answer.status == 503, "an unrecorded answer was finished"
        ledgers[0].fault.clear()
        ledgers[0].let_go.set()
        async with asyncio.timeout(10):
            while len(here.gate.gate._live):
                await asyncio.sleep(0.01)
        assert here.gate.reservations.held == 0
        await check_still_serving(here)


async def test_settle_is_cancelled(tmp_path: Path) -> None:
    ledgers: list[FaultyLedger] = []

    def wrap(inner):
        ledgers.append(FaultyLedger(inner))
        return ledgers[0]

    async with town(tmp_path, limits=LIMITS, wrap_ledger=wrap) as here:
        ledgers[0].fault["call.outcome"] = "hang"
        await vanish(here, ledgers[0].reached)
        ledgers[0].fault.clear()
        ledgers[0].let_go.set()
        await asyncio.sleep(0.1)
        await check_invariants(here)
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "confirmed"
        await check_still_serving(here)


async def test_denials_that_cannot_be_recorded_stay_denials(tmp_path: Path) -> None:
    ledgers: list[FaultyLedger] = []

    def wrap(inner):
        ledgers.append(FaultyLedger(inner))
        return ledgers[0]

    async with town(tmp_path, limits=LIMITS, wrap_ledger=wrap) as here:
        ledgers[0].fault["call.denied"] = "fail"
        async with here.agent() as agent:
            answer = await agent.request("GET", "/other")
        assert (answer.status, answer.code) == (503, "ledger_unavailable")
        assert here.origin.connections == []


async def test_a_flood_of_refusals_is_counted_and_bounded(tmp_path: Path) -> None:
    """No silent drop, no disk filled by whoever can send garbage."""
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            for _ in range(300):
                assert (await agent.request("GET", "/other")).status == 403
        await here.gate.gate._rejections.flush()
        individually = await here.gate.records("call.denied")
        summaries = await here.gate.records("reject.summary")
        counted = sum(row["n"] for record in summaries for row in record.body["counts"])
        assert len(individually) + counted == 300
        assert 200 <= len(individually) < 280


async def test_unidentified_garbage_is_refused_and_recorded(tmp_path: Path) -> None:
    """Everything that is no CONNECT, no plain request, no TLS."""
    async with town(tmp_path) as here:
        for garbage in (
            b"\x16\x03\x01\x02\x00",
            b"SSH-2.0-x\r\n",
            b"GET / HTTP/0.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.gate.port)
            writer.write(garbage)
            assert (await reader.read()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 407"))
            writer.transport.abort()
        for inside in (b"\x00\x01binary", b"GET / HTTP/1.1\r\nHost: saas.test\r\n\r\n"):
            agent = Agent(here.gate, here.gate.world.token())
            assert (await agent.connect()).status == 200
            agent.writer.write(inside)
            assert await agent.reader.read() == b""
            agent.writer.transport.abort()
        assert here.origin.connections == []
        assert len(await here.gate.records("call.rejected")) == 6


# what agents try


def hello_in_pieces() -> bytes:
    """A ClientHello that announces 16 MB, in TLS records of one byte."""
    handshake = b"\x01\xff\xff\xff" + bytes(5000)
    return b"".join(b"\x16\x03\x01\x00\x01" + handshake[at : at + 1] for at in range(len(handshake)))


@pytest.mark.parametrize(
    "hello",
    [
        hello_in_pieces(),
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff",
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x10",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
    ],
)
async def test_a_client_hello_that_would_stall_the_loop_is_refused_at_once(tmp_path: Path, hello: bytes) -> None:
    """Parsed anew with every segment, one such tunnel held the loop, and every revocation, for fourteen seconds."""
    async with town(tmp_path) as here:
        agent = Agent(here.gate, here.gate.world.token())
        assert (await agent.connect()).status == 200
        try:
            for at in range(0, len(hello), 97):
                agent.writer.write(hello[at : at + 97])
                await agent.writer.drain()
            assert await agent.reader.read() == b""
        except ConnectionError:
            pass  # cut, which is what is wanted
        agent.writer.transport.abort()
        async with asyncio.timeout(5):
            while not (records := await here.gate.records("call.rejected")):
                await asyncio.sleep(0.02)
        assert records[0].body["reason"]["code"] == "protocol_refused"
        assert records[0].body["agent"]["id"] == "agent"


async def test_an_agent_that_never_reads_its_answers_is_not_answered_without_end(tmp_path: Path) -> None:
    """Sixty thousand bytes an answer, a thousand requests, nothing read: a bounded few are answered, then it is cut."""
    async with town(tmp_path, answers(reply(bytes(60_000))), config=SHORT) as here:
        agent = await here.agent().__aenter__()
        agent.writer.transport.pause_reading()
        agent.writer.write(b"GET /things/1 HTTP/1.1\r\nHost: saas.test\r\n\r\n" * 1000)
        await asyncio.sleep(1.5)
        assert len(here.origin.requests) < 300
        async with asyncio.timeout(10):
            while here.gate.gate._sessions:  # gone, and no socket of it is left behind uncounted
                await asyncio.sleep(0.05)
        agent.writer.transport.abort()
        await check_invariants(here)


async def test_what_is_refused_inside_a_tunnel_has_its_agents_name(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        for bad in (b"GET /things/../x HTTP/1.1\r\nHost: saas.test\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            async with here.agent() as agent:
                agent.writer.write(bad)
                assert (await agent.read_answer("GET")).status == 400
        records = await here.gate.records("call.rejected")
        assert [(record.tenant, record.body["agent"]["id"]) for record in records] == [("acme", "agent")] * 2


async def test_the_age_of_a_certificate_tells_no_other_tenant(tmp_path: Path) -> None:
    """Both call the same host; each is shown a certificate of its own."""
    async with town(tmp_path) as here:
        serials = []
        for tenant in ("acme", "globex"):
            agent = Agent(here.gate, here.gate.world.token(tenant=tenant), host="target.example")
            async with agent:
                serials.append(agent.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
        assert serials[0] != serials[1]


async def test_a_call_that_may_have_been_delivered_is_never_free(tmp_path: Path) -> None:
    """The origin takes a PUT on a kept connection, drops it, and drops the second attempt too."""

    async def once(request: Request, peer: Peer) -> None:
        if request.target == "/things/1":
            await peer.send(reply())
        else:
            peer.abort()

    async with town(tmp_path, once, limits=LIMITS) as here:
        async with here.agent() as agent:
            assert (await agent.request("PUT", "/things/1", b"{}")).status == 200
            assert (await agent.request("PUT", "/things/2", b"{}")).status == 502
        outcomes = await here.gate.records("call.outcome")
        assert [(o.body["result"]["status"], (o.body["cost"] or {"micro": 0})["micro"]) for o in outcomes] == [
            ("confirmed", 250_000),
            ("indeterminate", 250_000),
            ("indeterminate", 0),
        ]
        (budget,) = here.gate.reservations.budgets()
        assert (budget.spent_micros, budget.reserved_micros) == (500_000, 0)
        await check_invariants(here)
