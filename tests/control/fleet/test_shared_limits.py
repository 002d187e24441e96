"""What control loads into the shared store: counted once, and with the slots of what is in flight."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.fleet.shared_limits import SharedLimits
from control.stores.recount import Recount
from rules.claims import LeaseClaim, Refused, Reserved
from rules.codes import Code
from tests.control.stores.subjects import Shared, granted
from tests.worlds.valkey import Valkey, valkey

pytestmark = pytest.mark.anyio

SLOT = LeaseClaim(("acme", "a", "concurrency"), 2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path / "valkey") as server:
        yield server


class Slow(Recount):
    """Of a long ledger."""

    inside = 0
    most = 0
    slow = 0.05

    def follow(self, directory: Path, policy: object) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(self.slow)
        super().follow(directory, None)
        self.inside -= 1


class World:
    """What it is told by the state."""

    policy = None

    def __init__(self, directory: Path) -> None:
        self.ledger = SimpleNamespace(directory=directory)
        self.saved: list[object] = []

    def record_act(self, *_: object) -> None:
        pass

    def save_limits(self, snapshot: object) -> None:
        self.saved.append(snapshot)


def limits_of(directory: Path, store: Any) -> tuple[SharedLimits, Slow]:
    (directory / "ledger").mkdir()
    recount = Slow(Recount.begin(None, None)._replay, 0)
    return SharedLimits(World(directory / "ledger"), store, recount), recount  # type: ignore[arg-type]


async def test_slots_of_calls_whose_worker_does_not_reach_the_server_are_taken(server: Valkey, tmp_path: Path) -> None:
    """Control granted them while the server was away; nobody else knows of them there."""
    shared = await Shared(server).start()
    limits, _ = limits_of(tmp_path, shared.store)
    in_flight = [Reserved("c_1#a", (SLOT,)), Reserved("c_2#b", ())]
    await limits.load_anew("acme", (), in_flight)
    granted(await shared.store.reserve("c_3", (SLOT,)))
    refused = await shared.store.reserve("c_4", (SLOT,))
    assert isinstance(refused, Refused)
    assert refused.code is Code.CONCURRENCY_REACHED
    shared.store.adopt(in_flight[0])  # its worker is there again, and gives the same slot back
    await shared.store.keep_now()
    shared.store.settle(in_flight[0], {})
    await shared.settled()
    granted(await shared.store.reserve("c_5", (SLOT,)))
    await shared.stop()


async def test_the_ledger_is_counted_by_one_at_a_time(tmp_path: Path) -> None:
    """Two at once would count the same records twice, and see what is counted while it changes."""

    class Nobody:
        async def stop(self) -> None:
            pass

    limits, recount = limits_of(tmp_path, Nobody())
    asked = [asyncio.create_task(limits.counted("acme")) for _ in range(3)]
    await asyncio.sleep(0.02)
    asked[0].cancel()
    await limits.close()
    await asyncio.wait(asked)
    assert recount.most == 1
