"""Bodies in memory are bounded together: for each account, and in all."""

import asyncio
import gzip
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import GateConfig
from proxy.held import HeldBytes
from proxy.http.errors import RequestRefused
from tests.proxy.test_connections import until
from tests.worlds.origin import Action, answers
from tests.worlds.towns import town

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.booleans()), max_size=40))
def test_no_order_of_calls_exceeds_a_bound_or_loses_a_byte(steps: list[tuple[str, int, bool]]) -> None:
    held = HeldBytes(in_all=100, per_account=60)
    calls = []
    of: dict[str, int] = {}
    for account, count, ends in steps:
        call = held.of("acme", account)
        try:
            call.resize(count)
        except RequestRefused:
            assert of.get(account, 0) + count > 60 or held.total + count > 100
            continue
        of[account] = of.get(account, 0) + count
        assert (held.total, of[account] <= 60, held.total <= 100) == (sum(of.values()), True, True)
        if ends:
            call.give_back()
            call.give_back()
            of[account] -= count
        else:
            calls.append(call)
    for call in calls:
        call.give_back()
    assert held.total == 0


async def test_an_account_at_its_bound_waits_and_another_does_not(tmp_path: Path) -> None:
    config = GateConfig(listen=(("127.0.0.1", 0),), max_held_bytes_per_account=2 * MIB)
    async with town(tmp_path, answers(Action.HANG), config=config) as here, AsyncExitStack() as open_:
        gate = here.gate.gate
        for number in range(2):
            agent = await open_.enter_async_context(here.agent())
            await agent.send("POST", f"/things/{number}", bytes(MIB))
        await until(lambda: len(here.origin.requests) == 2)
        assert gate._held.total == 2 * MIB
        async with here.agent() as third:
            answer = await third.request("POST", "/things/3", b"one byte more")
            assert (answer.status, answer.code) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
        (denied,) = await here.gate.records("call.denied")
        assert denied.body["decision"]["reasons"][0]["code"] == "overloaded"
        # What has no body asks for none of it.
        async with here.agent() as fourth:
            await fourth.send("GET", "/things/4")
            await until(lambda: len(here.origin.requests) == 3)
    assert gate._held.total == 0


async def test_what_a_bomb_becomes_is_counted_and_given_back(tmp_path: Path) -> None:
    config = GateConfig(listen=(("127.0.0.1", 0),), max_held_bytes=MIB)
    async with town(tmp_path, config=config) as here:
        async with here.agent() as agent:
            answer = await agent.request(
                "POST", "/things/1", gzip.compress(bytes(900_000)), {"Content-Encoding": "gzip"}
            )
            assert answer.status == 200, "nobody reads it: it is as long as it came"
        await until(lambda: here.gate.gate._held.total == 0)


async def test_every_way_a_call_can_end_gives_back_turn_place_and_bytes(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        gate = here.gate.gate
        whole = b"POST /things/1 HTTP/1.1\r\nHost: saas.test\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)

        async def answered(script, *request: object) -> None:
            here.origin.script = script
            async with here.agent() as agent:
                await agent.request(*request)

        async def left(script, data: bytes) -> None:
            here.origin.script = script
            async with here.agent() as agent:
                agent.writer.write(data)
                await asyncio.sleep(0.05)
                agent.writer.transport.abort()

        ok = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await answered(ok, "GET", "/things/1")
        await answered(ok, "POST", "/things/1", bytes(100_000))
        await answered(ok, "GET", "/things/secret/1")
        await answered(ok, "GET", "/nothing")
        await answered(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Action.CLOSE), "GET", "/things/1")
        await answered(answers(b"nonsense\r\n\r\n"), "POST", "/things/1", b"x")
        await answered(answers(Action.CLOSE), "POST", "/things/1", b"x")
        for end in (10, 60, 5_000, len(whole)):
            await left(answers(Action.HANG), whole[:end])
        await left(ok, b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
        await left(ok, b"\x00\x01\x02\r\n\r\n")
        for hello in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
            tunnel = here.agent()
            assert (await tunnel.connect()).status == 200
            tunnel.writer.write(hello)
            await asyncio.sleep(0.05)
            tunnel.writer.transport.abort()
        for token in ("", "e30.e30.AAAA"):
            stranger = here.agent()
            stranger._token = token
            await stranger.connect()
            stranger.writer.transport.abort()
        await until(lambda: len(gate._connections) == 0 and not gate._sessions)
        await gate.settled()
        assert (gate._turns.held, gate._turns.waiting, gate._held.total, len(gate._live)) == (0, 0, 0, 0)
