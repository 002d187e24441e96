"""Calls through a real gate: forwarded with their secret, recorded before and after, refused readably."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from ledger import read_records
from proxy.config import GateConfig
from tests.worlds.gate import Agent, running_gate
from tests.worlds.origin import Action, Peer, Request, answers, reply
from tests.worlds.towns import SECRET, Town, town

pytestmark = pytest.mark.anyio


async def test_an_allowed_call_gets_its_secret_and_two_records(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request(
                "POST", "/things/7?x=1", b'{"a":1}', {"Authorization": "Bearer mine", "X-Forwarded-For": "1.2.3.4"}
            )
        assert answer.status == 200
        assert json.loads(answer.body) == {"ok": True}
        (seen,) = here.origin.requests
        assert (seen.method, seen.target, seen.body) == ("POST", "/things/7?x=1", b'{"a":1}')
        assert seen.header("authorization") == f"Bearer {SECRET}"
        assert seen.header("proxy-authorization") is None
        assert seen.header("x-forwarded-for") is None
        intent, outcome = await here.gate.records("call.intent", "call.outcome")
        assert answer.headers["exeat-call"] == intent.body["call"] == outcome.body["call"]
        assert intent.body["op"]["route"] == "/things/**"
        assert intent.body["decision"]["rules"][0] == "things"
        assert outcome.body["intent"] == intent.seq
        assert outcome.body["result"]["status"] == "confirmed"
        assert outcome.body["result"]["http"] == 200


async def test_the_intent_is_durable_before_the_origin_hears_anything(tmp_path: Path) -> None:
    """The order of things, seen from the origin's side."""
    seen: list[int] = []
    here: Town

    async def script(request: Request, peer: Peer) -> None:
        seen.append(sum(record.type == "call.intent" for record in read_records(here.gate.directory)))
        await peer.send(reply())

    async with town(tmp_path, script) as here, here.agent() as agent:
        for expected in (1, 2, 3):
            await agent.request("GET", "/things/1")
            assert seen[-1] == expected


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("GET", "/other", "not_allowed", 403),
        ("GET", "/things/secret/x", "rule_denied", 403),
        ("PATCH", "/things/1", "not_allowed", 403),
        ("GET", "/things/../other", "ambiguous_target", 400),
        ("GET", "/things/%2e%2e/other", "ambiguous_target", 400),
        ("TRACE", "/things/1", "method_refused", 400),
    ],
)
async def test_what_is_not_allowed_is_denied_inside_the_tunnel(
    tmp_path: Path, method: str, path: str, code: str, status: int
) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            answer = await agent.request(method, path)
        assert (answer.code, answer.status) == (code, status)
        assert json.loads(answer.body)["code"] == code
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.denied", "call.rejected")
        reasons = record.body.get("decision", {}).get("reasons") or [record.body.get("reason")]
        assert reasons[0]["code"] == code


async def test_a_denied_name_is_denied_readably_and_never_dialled(tmp_path: Path) -> None:
    """SDKs hide a refused CONNECT; so the tunnel stands, and the denial is inside."""
    async with town(tmp_path) as here:
        async with here.agent(host="evil.example") as agent:
            answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (403, "destination_unknown")
        assert here.origin.connections == []


async def test_certificates_for_unknown_hosts_are_bounded(tmp_path: Path) -> None:
    """Every invented name costs a signature and memory; beyond the bound the CONNECT itself is refused."""
    config = GateConfig(listen=(("127.0.0.1", 0),), max_unknown_hosts=2)
    async with town(tmp_path, config=config) as here:
        for number in (1, 2):
            async with here.agent(host=f"unknown-{number}.example") as agent:
                assert (await agent.request("GET", "/")).code == "destination_unknown"
        third = here.agent(host="unknown-3.example")
        answer = await third.connect()
        assert (answer.status, answer.code) == (403, "destination_unknown")
        third.writer.transport.abort()
        async with here.agent(host="unknown-1.example") as agent:  # its certificate is there already
            assert (await agent.request("GET", "/")).code == "destination_unknown"
        async with here.agent() as agent:  # and the policy's own hosts are not touched by the bound
            assert (await agent.request("GET", "/things/1")).status == 200


async def test_an_expectation_is_answered_by_us_and_only_for_an_allowed_call(tmp_path: Path) -> None:
    """RFC 9110 10.1.1: a denied upload is never asked for."""
    async with town(tmp_path) as here:
        for path, expected in (("/things/1", 100), ("/other", 403)):
            async with here.agent() as agent:
                head_lines = f"POST {path} HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 2\r\n"
                agent.writer.write(f"{head_lines}Expect: 100-continue\r\n\r\n".encode())
                head = await agent.read_head()
                assert head.status == expected
                if expected == 100:
                    agent.writer.write(b"{}")
                    assert (await agent.read_answer("POST")).status == 200
        (seen,) = here.origin.requests
        assert seen.header("expect") is None


async def test_host_and_tunnel_must_agree(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            agent.host = "evil.example"
            answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (400, "destination_mismatch")
        assert here.origin.connections == []


@pytest.mark.parametrize("bad", ["nonsense", "a.b.c"])
async def test_a_connect_with_a_bad_credential_is_refused_outright(tmp_path: Path, bad: str) -> None:
    async with town(tmp_path) as here:
        answer = await (agent := here.agent(bad)).connect()
        assert (answer.status, answer.code) == (407, "credential_invalid")
        assert "proxy-authenticate" in answer.headers
        agent.writer.transport.abort()


async def test_a_connect_without_a_credential_is_a_challenge_on_a_wire_that_stays(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        agent = Agent(here.gate, None)
        answer = await agent.connect()
        assert (answer.status, answer.code) == (407, "credential_missing")
        agent._token = here.gate.world.token()
        agent.writer.write(
            b"CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\n"
            b"Proxy-Authorization: Basic " + agent.authorization().encode() + b"\r\n\r\n"
        )
        assert (await agent.read_answer("CONNECT")).status == 200
        agent.writer.transport.abort()
        assert here.gate.gate.metrics.challenges == 1
        assert await here.gate.records("call.rejected") == []


@pytest.mark.parametrize("how", ["expired", "revoked"])
async def test_a_dead_credential_is_refused_readably_inside_a_new_tunnel(tmp_path: Path, how: str) -> None:
    """SDKs hide a refused CONNECT and retry it; the holder of a dead credential shall read that it is dead."""
    async with town(tmp_path) as here:
        world = here.gate.world
        token = world.token(ttl=1 if how == "expired" else 60)
        if how == "expired":
            await asyncio.sleep(1.1)
        else:
            target = Target(TargetKind.TENANT, "acme")
            world.revocations = world.revocations.revoke(target, datetime.now(UTC), "test", Actor("uid", "1", "ana"))
        async with here.agent(token) as agent:
            answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (401, f"credential_{how}")
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.rejected")
        assert (record.tenant, record.body["agent"]["id"]) == ("acme", "agent")


async def test_an_expired_credential_is_refused_inside_a_standing_tunnel(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        token = here.gate.world.token(ttl=2)
        async with here.agent(token) as agent:
            assert (await agent.request("GET", "/things/1")).status == 200
        async with here.agent(token) as agent:
            await asyncio.sleep(max(0.0, 2.1))
            try:
                answer = await agent.request("GET", "/things/1")
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # closed while idle, before the credential died: the agent's pool opens another tunnel
            assert (answer.status, answer.code) == (401, "credential_expired")


async def test_a_tunnel_past_half_its_credentials_life_is_not_kept(tmp_path: Path) -> None:
    """So that an agent's pool reconnects with the renewed credential, with time to spare."""
    async with town(tmp_path) as here, here.agent(here.gate.world.token(ttl=6)) as agent:
        assert "connection" not in (await agent.request("GET", "/things/1")).headers
        await asyncio.sleep(3.1)
        answer = await agent.request("GET", "/things/2")
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_revocation_refuses_the_next_request_of_a_standing_tunnel(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/1")).status == 200
        world = here.gate.world
        target = Target(TargetKind.ACCOUNT, "acme", "agent")
        world.revocations = world.revocations.revoke(target, datetime.now(UTC), "test", Actor("uid", "1", "ana"))
        answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (401, "credential_revoked")
        assert answer.headers["connection"] == "close"
        assert len(here.origin.requests) == 1


async def test_a_stream_is_relayed_as_it_comes_and_cut_within_a_second(tmp_path: Path) -> None:
    """The promise: a revoked stream is cut within a second, the outcome says so, the origin is cut too."""

    async def script(request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(10_000):
            event = b"data: %d\n\n" % number
            await peer.send(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.01)

    async with town(tmp_path, script) as here, here.agent() as agent:
        await agent.send("GET", "/things/stream")
        head = await agent.read_head()
        assert head.headers["content-type"] == "text/event-stream"
        received = []

        async def listen() -> None:
            async for chunk in agent.chunks():
                received.append(chunk)  # noqa: PERF401 - one by one: what has come counts, not what will

        listening = asyncio.create_task(listen())
        while len(received) < 3:
            await asyncio.sleep(0.01)
        target = Target(TargetKind.TENANT, "acme")
        began = time.monotonic()
        report = await asyncio.to_thread(here.gate.gate.cut, target)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await listening
        assert time.monotonic() - began < 1.0
        assert report.cut == 1
        assert report.in_flight[0].sent
        async with asyncio.timeout(1):
            await here.origin.connections[0].closed.wait()
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "aborted"
        assert outcome.body["result"]["code"] == "revoked_in_flight"


async def test_a_call_revoked_before_its_answer_is_told_so(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG)) as here, here.agent() as agent:
        await agent.send("POST", "/things/1", b"{}")
        while not here.origin.requests:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(here.gate.gate.cut, None)
        answer = await agent.read_answer("POST")
        assert (answer.status, answer.code) == (403, "revoked_in_flight")
        (outcome,) = await here.gate.records("call.outcome")
        assert outcome.body["result"]["status"] == "indeterminate"
        assert outcome.body["cost"]["micro"] == 250_000


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_answers_of_every_size_and_framing_arrive_whole(tmp_path: Path, size: int, chunked: bool) -> None:
    body = bytes(index * 7 % 251 for index in range(min(size, 65_537))) * (1 + size // 65_537)
    body = body[:size]

    async def script(request: Request, peer: Peer) -> None:
        if chunked:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(body), 10_000):
                part = body[at : at + 10_000]
                await peer.send(b"%x\r\n%b\r\n" % (len(part), part))
            await peer.send(b"0\r\n\r\n")
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with town(tmp_path, script) as here, here.agent() as agent:
        for _ in range(2):
            answer = await agent.request("GET", "/things/big")
            assert answer.status == 200
            assert answer.body == body
        assert len(here.origin.connections) == 1, "the upstream connection was not kept"
        outcomes = await here.gate.records("call.outcome")
        assert [outcome.body["resp"]["len"] for outcome in outcomes] == [size, size]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_bodyless_answers(tmp_path: Path, status: str) -> None:
    async with town(tmp_path, answers(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())) as here, here.agent() as agent:
        answer = await agent.request("GET", "/things/1")
        assert answer.status == int(status[:3])
        assert (await agent.request("HEAD", "/things/1")).status == int(status[:3])


async def test_an_answer_delimited_by_close_becomes_chunked(tmp_path: Path) -> None:
    script = answers(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"part one, ", 0.05, b"part two", Action.CLOSE)
    async with town(tmp_path, script) as here, here.agent() as agent:
        answer = await agent.request("GET", "/things/1")
        assert answer.body == b"part one, part two"
        assert (await agent.request("GET", "/things/1")).body == b"part one, part two"


async def test_no_policy_denies_everything(tmp_path: Path) -> None:
    async with running_gate(tmp_path, None) as gate, Agent(gate, gate.world.token()) as agent:
        answer = await agent.request("GET", "/")
        assert (answer.status, answer.code) == (403, "no_policy")


async def test_limits_deny_with_their_codes(tmp_path: Path) -> None:
    limits = "rate: [{connection: saas, max: 2, per: minute, burst: 2}]"
    async with town(tmp_path, limits=limits) as here, here.agent() as agent:
        statuses = [(await agent.request("GET", "/things/1")) for _ in range(3)]
        assert [answer.status for answer in statuses] == [200, 200, 429]
        assert statuses[2].code == "rate_limited"
        assert 1 <= int(statuses[2].headers["retry-after"]) <= 60


async def test_a_spend_cap_is_a_cap_under_concurrency(tmp_path: Path) -> None:
    """0.25 a call, 1.00 a day, twelve at once: exactly four reach the origin."""
    async with town(tmp_path, answers(0.05, reply()), limits="spend: [{meter: price, max: 1 USD, per: day}]") as here:

        async def one() -> str | None:
            async with here.agent() as agent:
                return (await agent.request("POST", "/things/1", b"{}")).code

        codes = await asyncio.gather(*(one() for _ in range(12)))
        assert codes.count(None) == 4
        assert codes.count("spend_cap_reached") == 8
        assert len(here.origin.requests) == 4


async def test_concurrency_slots_are_given_back_on_every_path(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG), limits="concurrency: 1") as here:
        async with here.agent() as first:
            await first.send("GET", "/things/1")
            while not here.origin.requests:
                await asyncio.sleep(0.01)
            async with here.agent() as second:
                answer = await second.request("GET", "/things/2")
                assert (answer.status, answer.code) == (429, "concurrency_reached")
        while len(here.gate.gate._live):  # the first agent has gone away
            await asyncio.sleep(0.01)
        here.origin.script = answers(reply())
        async with here.agent() as third:
            assert (await third.request("GET", "/things/3")).status == 200


@pytest.mark.parametrize(("path", "code"), [("/things/1", "body_too_large"), ("/other", "not_allowed")])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_above_the_bound_is_refused_with_its_agents_name(
    tmp_path: Path, path: str, code: str, chunked: bool
) -> None:
    """It cannot be inspected whole, so it does not leave; and the record says whose it was."""
    async with town(tmp_path) as here, here.agent() as agent:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2 << 20}"
        agent.writer.write(f"POST {path} HTTP/1.1\r\nHost: saas.test\r\n{framing}\r\n\r\n".encode())
        if chunked:
            agent.writer.write(b"10000\r\n" + bytes(65536) + b"\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 20)
        answer = await agent.read_answer("POST")
        assert answer.code == code
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.denied")
        assert record.body["agent"]["id"] == "agent"


async def test_a_missing_secret_denies_before_anything_is_consumed(tmp_path: Path) -> None:
    async with town(tmp_path, limits="spend: [{meter: price, max: 1 USD, per: day}]") as here, here.agent() as agent:
        here.gate.world.secrets.clear()
        answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (503, "secret_unavailable")
        assert here.origin.connections == []


async def test_a_gigabyte_pushed_into_a_denied_or_a_waiting_call_costs_no_memory(tmp_path: Path) -> None:
    import resource

    async with town(tmp_path, limits="concurrency: 1") as here:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in ("/other", "/things/1"):
            async with here.agent() as agent:
                agent.writer.write(
                    f"POST {path} HTTP/1.1\r\nHost: saas.test\r\nContent-Length: {1 << 30}\r\n\r\n".encode()
                )
                reading = asyncio.create_task(agent.read_answer("POST"))
                block = bytes(1 << 20)
                pushed = 0
                try:
                    async with asyncio.timeout(5):
                        # Until it is answered: what is written to a connection that is gone is thrown away by asyncio.
                        while pushed < 1 << 30 and not reading.done():
                            agent.writer.write(block)
                            await agent.writer.drain()
                            pushed += len(block)
                            await asyncio.sleep(0)
                except (TimeoutError, ConnectionError):
                    pass
                assert (await asyncio.wait_for(reading, 10)).status in (403, 413)
                assert pushed < 1 << 27
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 1024, f"{grown} KiB"
        assert here.origin.connections == []


async def test_no_secret_and_no_path_in_the_ledger_or_any_answer(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        async with here.agent() as agent:
            for path in ("/things/PathCanary99", "/denied/PathCanary99"):
                answer = await agent.request("POST", path, b'{"body":"BodyCanary77"}', {"X-Api": "HeaderCanary55"})
                assert SECRET.encode() not in answer.body
        await here.gate.records()
        await asyncio.sleep(0.1)
        for file in here.gate.directory.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                for canary in (SECRET, "PathCanary99", "BodyCanary77", "HeaderCanary55", "eyJ"):
                    assert canary.encode() not in content, (file, canary)


async def test_a_drain_finishes_what_is_in_flight_and_refuses_the_rest(tmp_path: Path) -> None:
    async with town(tmp_path, answers(0.3, reply())) as here:
        agent = await here.agent().__aenter__()
        idle = await here.agent().__aenter__()
        await agent.send("GET", "/things/1")
        while not here.origin.requests:
            await asyncio.sleep(0.01)
        draining = asyncio.create_task(here.gate.gate.drain(5))
        answer = await agent.read_answer("GET")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        report = await draining
        assert report.cut == 0
        assert await idle.reader.read() == b""
        agent.writer.transport.abort()
        idle.writer.transport.abort()
