"""Connections are counted for each account, in all, and while nobody knows whose they are."""

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.config import GateConfig, Timeouts
from tests.proxy.test_gate_faults import check_still_serving
from tests.worlds.gate import Agent
from tests.worlds.origin import Action, answers
from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio


def bounds(timeouts: Timeouts | None = None, **numbers: int) -> GateConfig:
    return GateConfig(listen=(("127.0.0.1", 0),), timeouts=timeouts or Timeouts(), **numbers)


async def until(true) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def closed(reader: asyncio.StreamReader) -> bool:
    """True once the gate has ended the connection; waits for it."""
    async with asyncio.timeout(10):
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
    return True


def stranger(here: Town):
    return asyncio.open_connection("127.0.0.1", here.gate.port)


async def test_an_account_that_is_full_is_refused_readably_and_others_are_not(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_connections_per_account=3)) as here, AsyncExitStack() as open_:
        for _ in range(3):
            await open_.enter_async_context(here.agent())
        refused = here.agent()
        answer = await refused.connect()
        assert (answer.status, answer.code) == (429, "connections_reached")
        assert int(answer.headers["retry-after"]) > 0
        refused.writer.close()
        other = here.agent(here.gate.world.token("another"))
        assert (await other.connect()).status == 200
        other.writer.close()
        (record,) = await here.gate.records("call.rejected")
        assert record.body["reason"]["code"] == "connections_reached"
        assert record.body["agent"]["id"] == "agent"


async def test_a_place_is_free_again_when_its_connection_is_gone(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_connections_per_account=1)) as here:
        for _ in range(5):
            async with here.agent() as agent:
                assert (await agent.request("GET", "/things/1")).status == 200
            await until(lambda: not here.gate.gate._sessions)
        assert len(here.gate.gate._connections) == 0


async def test_the_longest_idle_tunnel_makes_room_but_a_busy_one_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.connections.IDLE_AT_LEAST", 0.05)
    config = bounds(max_connections_per_account=2)
    async with town(tmp_path, config=config) as here, here.agent() as busy, here.agent() as idle:
        here.origin.script = answers(Action.HANG)
        await busy.send("GET", "/things/1")
        await until(lambda: len(here.origin.requests) == 1)
        await asyncio.sleep(0.1)
        here.origin.script = answers(b"HTTP/1.1 204 No Content\r\n\r\n")
        async with here.agent() as newest:
            assert await closed(idle.reader)
            assert (await newest.request("GET", "/things/2")).status == 204
            assert len(here.gate.gate._live) == 1, "the busy one was cut"


async def test_the_only_connection_of_an_account_makes_room_and_its_successor_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.connections.IDLE_AT_LEAST", 0.05)
    async with town(tmp_path, config=bounds(max_connections_per_account=1)) as here, here.agent() as idle:
        await asyncio.sleep(0.1)
        async with here.agent() as newest:
            assert await closed(idle.reader)
            assert (await newest.request("GET", "/things/1")).status == 200
            refused = here.agent()
            assert (await refused.connect()).code == "connections_reached"
            refused.writer.close()
        await until(lambda: len(here.gate.gate._connections) == 0)
        async with here.agent() as next_one:
            assert (await next_one.request("GET", "/things/1")).status == 200


async def test_outside_of_a_tunnel_the_first_identified_request_counts(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_connections_per_account=1)) as here, here.agent():
        plain = here.agent()
        plain.reader, plain.writer = await stranger(here)
        plain.writer.write(
            b"GET http://saas.test/things/1 HTTP/1.1\r\nHost: saas.test\r\n"
            b"Proxy-Authorization: Basic " + plain.authorization().encode() + b"\r\n\r\n"
        )
        answer = await plain.read_answer("GET")
        assert (answer.status, answer.code) == (429, "connections_reached")
        plain.writer.close()


async def test_strangers_push_out_strangers_and_no_agent(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_unidentified_connections=3)) as here, here.agent() as agent:
        crowd = [await stranger(here) for _ in range(3)]
        await until(lambda: here.gate.gate._connections.unidentified == 3)
        crowd += [await stranger(here) for _ in range(4)]
        for reader, _ in crowd[:4]:
            assert await closed(reader)
        assert here.gate.gate._connections.unidentified == 3
        assert (await agent.request("GET", "/things/1")).status == 200
        async with here.agent() as another:
            assert (await another.request("GET", "/things/1")).status == 200
        for _, writer in crowd:
            writer.close()


async def test_beyond_all_a_connection_reads_503_and_costs_no_task(tmp_path: Path) -> None:
    config = bounds(max_connections=2, max_connections_per_account=2)
    async with town(tmp_path, config=config) as here:
        async with here.agent(), here.agent():
            tasks = len(asyncio.all_tasks())
            late = Agent(here.gate, None)
            late.reader, late.writer = await stranger(here)
            answer = await late.read_answer("GET")
            assert (answer.status, answer.code) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            assert len(asyncio.all_tasks()) == tasks
            assert await closed(late.reader)
            late.writer.close()
        await until(lambda: len(here.gate.gate._connections) == 0)
        await check_still_serving(here)


async def test_a_crowd_that_dials_and_goes_pushes_out_nobody_who_speaks(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_unidentified_connections=64)) as here:
        agent = here.agent()
        address = ("127.0.0.1", here.gate.port)
        with socket.create_connection(address) as first:  # all of this before the gate looks once
            lines = ["CONNECT saas.test:443 HTTP/1.1", "Host: saas.test:443"]
            lines.append(f"Proxy-Authorization: Basic {agent.authorization()}")
            first.sendall("\r\n".join([*lines, "", ""]).encode())
            for _ in range(600):
                socket.create_connection(address).close()
            first.setblocking(False)
            async with asyncio.timeout(10):
                answer = await asyncio.get_running_loop().sock_recv(first, 4096)
            assert answer.startswith(b"HTTP/1.1 200")


async def test_a_stranger_makes_room_for_an_agent_when_everything_is_full(tmp_path: Path) -> None:
    async with town(tmp_path, config=bounds(max_connections=2)) as here, here.agent():
        reader, writer = await stranger(here)
        await until(lambda: len(here.gate.gate._connections) == 2)
        async with here.agent() as late:
            assert (await late.request("GET", "/things/1")).status == 200
        assert await closed(reader)
        writer.close()


async def test_certificates_for_strangers_are_bounded_in_all_and_known_hosts_never_refused(tmp_path: Path) -> None:
    config = bounds(max_unknown_hosts=1000, max_unknown_hosts_per_second=1)
    async with town(tmp_path, config=config) as here:
        answered = []
        for number in range(8):
            agent = here.agent(here.gate.world.token(f"account{number}"), host=f"h{number}.invalid")
            answer = await agent.connect()
            answered.append((answer.status, answer.code))
            agent.writer.close()
        assert answered[:5] == [(200, None)] * 5
        assert (503, "overloaded") in answered[5:]
        await check_still_serving(here)
