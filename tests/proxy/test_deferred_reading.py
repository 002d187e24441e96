"""A connection whose account has its turns in use is read later, and nothing of it is lost or out of order."""

import asyncio
from pathlib import Path

import pytest

from tests.proxy.test_connections import until
from tests.worlds.towns import town

pytestmark = pytest.mark.anyio


class Hold:
    """Takes the place of the account's turns: lets nothing through until told."""

    def __init__(self) -> None:
        self.errands = []
        self.open = False

    def __call__(self, errand) -> bool:
        if self.open:
            return False
        self.errands.append(errand)
        return True

    def release(self) -> None:
        self.open = True
        for errand in self.errands:
            errand()


async def test_what_came_late_is_answered_in_order(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/0")).status == 200
        ((_, wire),) = here.gate.gate._sessions.values()
        wire.defer = hold = Hold()
        await agent.send("GET", "/things/1")
        await until(lambda: hold.errands)
        await agent.send("GET", "/things/2")
        await agent.send("GET", "/things/3")
        await asyncio.sleep(0.05)
        assert len(hold.errands) == 1, "asked once, however much comes"
        assert len(here.origin.requests) == 1
        hold.release()
        for _ in range(3):
            assert (await agent.read_answer("GET")).status == 200
        assert [request.target for request in here.origin.requests] == [f"/things/{number}" for number in range(4)]


async def test_an_end_that_comes_behind_late_bytes_is_seen_behind_them(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/0")).status == 200
        ((_, wire),) = here.gate.gate._sessions.values()
        wire.defer = hold = Hold()
        await agent.send("GET", "/things/1")
        await until(lambda: hold.errands)
        agent.writer.transport.abort()
        await asyncio.sleep(0.05)
        hold.release()
        await until(lambda: not here.gate.gate._sessions)
        await here.gate.gate.settled()
        assert (here.gate.gate._turns.held, len(here.gate.gate._live)) == (0, 0)


async def test_a_wire_that_is_cut_while_it_waits_runs_no_errand(tmp_path: Path) -> None:
    async with town(tmp_path) as here, here.agent() as agent:
        assert (await agent.request("GET", "/things/0")).status == 200
        ((_, wire),) = here.gate.gate._sessions.values()
        wire.defer = hold = Hold()
        await agent.send("GET", "/things/1")
        await until(lambda: hold.errands)
        wire.abort()
        hold.release()
        await until(lambda: not here.gate.gate._sessions)
        assert [request.target for request in here.origin.requests] == ["/things/0"]
