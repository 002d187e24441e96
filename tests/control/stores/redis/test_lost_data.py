"""The server has forgotten: nobody gets a second quota, and what is in flight is counted again."""

import asyncio
import time
from pathlib import Path

import pytest

from control.stores.counted import Budget
from control.stores.redis.encoding import root_of
from control.stores.redis.scripts import LOAD
from rules.claims import LeaseClaim, OnceClaim, PauseClaim, RateClaim, Refused, ReservationsUnavailable, SpendClaim
from rules.codes import Code
from tests.control.stores.subjects import Shared, granted
from tests.worlds.valkey import Valkey, valkey

pytestmark = pytest.mark.anyio

LEASE = LeaseClaim(("acme", "agent", "concurrency"), 2)
RATE = RateClaim(("acme", "agent", "rate"), 100_000_000, 2, "few")
BUDGET = "acme/agent/USD/day"


def spend(amount: int) -> SpendClaim:
    return SpendClaim(("acme", "agent", "USD", "day"), "2026-11-20", 100, amount, "USD", 4_000_000_000)


async def unready(shared: Shared, *claims: LeaseClaim | SpendClaim | RateClaim) -> None:
    with pytest.raises(ReservationsUnavailable, match="loaded again"):
        await shared.store.reserve("c_1", claims or (LEASE,))


async def until_up(shared: Shared) -> None:
    async with asyncio.timeout(20):
        while shared.store.health().state != "closed":
            await asyncio.sleep(0.01)


async def test_what_was_flushed_is_refused_until_it_is_loaded_again(shared: Shared) -> None:
    store = shared.store
    store.settle(granted(await store.reserve("c_1", (RATE, spend(60)))), {"price": 60})
    held = granted(await store.reserve("c_2", (LEASE, spend(30))))
    await shared.settled()
    shared.client.flushall()
    await unready(shared)
    assert store.health().unready == (("acme", "the server holds no counters"),)
    assert "acme" in store.health().degraded
    # Control reads its ledger: 60 are spent, and an intent of 30 is without an outcome.
    now_us = time.time_ns() // 1000
    loaded = await store.rebuild(
        ["acme", "globex"],
        [(BUDGET, Budget("2026-11-20", 4_000_000_000, 90)), ("globex/agent/USD/day", Budget("2026-11-20", 0, 5))],
        [(RATE.key, now_us + 150_000_000)],
        "after-the-flush",
        [("c_2", ((BUDGET, "2026-11-20", 30, "price"),))],
    )
    assert loaded == ("acme", "globex")
    assert store.health().degraded == ""
    assert await shared.books() == {BUDGET: ("2026-11-20", 90, 0)}
    refusal = await store.reserve("c_3", (spend(11),))
    assert isinstance(refusal, Refused)
    assert isinstance(await store.reserve("c_3", (RATE,)), Refused)  # its bucket is as empty as it was
    # The call in flight still has its slot, and is corrected once it ends.
    await store.keep_now()
    granted(await store.reserve("c_4", (LEASE,)))
    refusal = await store.reserve("c_5", (LEASE,))
    assert isinstance(refusal, Refused)
    assert refusal.code is Code.CONCURRENCY_REACHED
    store.settle(held, {"price": 7})
    await shared.settled()
    assert await shared.books() == {BUDGET: ("2026-11-20", 67, 0)}
    granted(await store.reserve("c_5", (LEASE,)))


async def test_a_server_that_was_restarted_with_old_data_is_not_believed(tmp_path: Path) -> None:
    with valkey(tmp_path / "valkey") as server:
        shared = await Shared(server).start()
        store = shared.store
        store.settle(granted(await store.reserve("c_1", (spend(10),))), {"price": 10})
        await shared.settled()
        shared.client.save()
        store.settle(granted(await store.reserve("c_2", (spend(90),))), {"price": 90})
        await shared.settled()
        server.kill()
        server.start()
        async with asyncio.timeout(20):
            while True:
                try:
                    await store.reserve("c_3", (spend(90),))
                except ReservationsUnavailable as error:
                    if "restarted" in str(error):
                        break
                    await asyncio.sleep(0.01)
                else:
                    pytest.fail("ninety more were granted")
        assert await store.unready(["acme"]) == ("acme",)
        assert await store.rebuild(["acme"], [(BUDGET, Budget("2026-11-20", 0, 100))], (), "g-new") == ("acme",)
        assert isinstance(await store.reserve("c_3", (spend(1),)), Refused)
        assert await shared.books() == {BUDGET: ("2026-11-20", 100, 0)}
        await shared.stop()


async def test_loading_is_seen_whole_or_not_at_all_and_happens_once(shared: Shared) -> None:
    shared.client.delete("exeat:{acme}")
    many = [(f"acme/a{number}/USD/day", Budget("2026-11-20", 0, number)) for number in range(1000)]
    loading = asyncio.create_task(shared.store.rebuild(["acme"], many, (), "big"))
    seen: set[int] = set()
    while not loading.done():
        seen.add(len(await shared.store.budgets("acme")))
    assert await loading == ("acme",)
    assert seen <= {0, 1000}
    assert len(await shared.store.budgets("acme")) == 1000
    granted(await shared.store.reserve("c_1", (spend(3),)))
    assert await shared.store.rebuild(["acme"], (), (), "later") == ()
    assert (await shared.books())[BUDGET] == ("2026-11-20", 0, 3)


async def test_a_generation_in_force_is_not_replaced(shared: Shared) -> None:
    """Another process may have loaded one after we looked: what was counted since would be lost."""
    granted(await shared.store.reserve("c_1", (spend(3),)))
    before = shared.client.get("exeat:{acme}")
    run_id = await shared.store.run_id()
    assert await shared.store.ask(LOAD, root_of("acme"), "late", b"G", run_id) == 0
    assert shared.client.get("exeat:{acme}") == before
    assert await shared.books() == {BUDGET: ("2026-11-20", 0, 3)}


async def test_two_that_load_at_once_put_one_generation_in_force(shared: Shared, server: Valkey) -> None:
    other = Shared(server)
    await other.store.start()
    shared.client.delete("exeat:{acme}")
    budgets = [(BUDGET, Budget("2026-11-20", 0, 50))]
    await asyncio.gather(
        shared.store.rebuild(["acme"], budgets, (), "one"), other.store.rebuild(["acme"], budgets, (), "two")
    )
    granted(await shared.store.reserve("c_1", (spend(3),)))
    granted(await other.store.reserve("c_2", (spend(3),)))
    assert await shared.books() == {BUDGET: ("2026-11-20", 50, 6)}
    await other.stop()


async def test_idempotency_keys_of_before_are_forgotten(shared: Shared) -> None:
    once = OnceClaim(("acme", "k"), "digest")
    shared.store.settle(granted(await shared.store.reserve("c_1", (once, spend(10)))), {"price": 10})
    await shared.settled()
    shared.client.delete("exeat:{acme}")
    await shared.store.rebuild(["acme"], [(BUDGET, Budget("2026-11-20", 0, 10))], (), "again")
    assert granted(await shared.store.reserve("c_1", (once, spend(10)))).claims == (once, spend(10))


async def test_a_tenant_is_refused_until_it_is_loaded_and_others_go_on(shared: Shared) -> None:
    new = LeaseClaim(("initech", "agent", "concurrency"), 2)
    with pytest.raises(ReservationsUnavailable):
        await shared.store.reserve("c_1", (new,))
    granted(await shared.store.reserve("c_1", (LEASE,)))
    assert await shared.store.unready(["acme", "initech"]) == ("initech",)
    await shared.store.rebuild(["acme", "initech"], (), (), "g-initech")
    granted(await shared.store.reserve("c_1", (new,)))


class TestExpiry:
    """A process is gone: its slots come back, its amounts count at their maximum until somebody knows better."""

    async def test_what_expired_is_listed_and_corrected_from_the_ledger_once(self, shared: Shared) -> None:
        granted(await shared.store.reserve("c_1", (LEASE, spend(30))))
        await shared.lose({"c_1"})
        assert await shared.books() == {BUDGET: ("2026-11-20", 30, 0)}
        (correction,) = await shared.store.corrections("acme")
        assert (correction.call, correction.entries) == ("c_1", ((BUDGET, "2026-11-20", 30, "price"),))
        assert await shared.store.correct("acme", correction, {"price": 12})
        assert not await shared.store.correct("acme", correction, {"price": 1})
        assert await shared.books() == {BUDGET: ("2026-11-20", 12, 0)}
        assert await shared.store.corrections("acme") == ()

    @pytest.mark.parametrize(("how", "left"), [("settle", 12), ("release", 0)])
    async def test_a_late_end_corrects_it_once(self, shared: Shared, how: str, left: int) -> None:
        """Its process was only stopped for a while."""
        store = shared.store
        reserved = granted(await store.reserve("c_1", (LEASE, spend(30))))
        kept = store._held[reserved.id]
        await shared.lose({"c_1"})
        for _ in range(2):
            store._held[reserved.id] = kept
            if how == "settle":
                store.settle(reserved, {"price": 12})
            else:
                store.release(reserved)
            await shared.settled()
        assert await shared.books() == {BUDGET: ("2026-11-20", left, 0)}

    async def test_a_call_that_outlived_its_slot_takes_it_again(self, shared: Shared) -> None:
        """It is in flight whatever the server believes: the slot is in use, above the cap if need be."""
        store = shared.store
        for number in range(2):
            granted(await store.reserve(f"c_{number}", (LEASE,)))
        kept = dict(store._held)
        await shared.lose({"c_0", "c_1"})
        granted(await store.reserve("c_2", (LEASE,)))
        store._held.update(kept)
        await store.keep_now()
        assert isinstance(await store.reserve("c_3", (LEASE,)), Refused)


class TestServersClock:
    """Steps of an hour, either way: bounded, no double quota, no lock for longer than a time to live."""

    @pytest.mark.parametrize("step", [3600, -3600])
    async def test_a_rate_gives_at_most_its_burst_and_locks_for_no_longer_than_that(
        self, shared: Shared, step: int
    ) -> None:
        for _ in range(2):
            granted(await shared.store.reserve("c_1", (RATE,)))
        await shared.pass_seconds(step)
        again = [await shared.store.reserve("c_1", (RATE,)) for _ in range(5)]
        assert sum(not isinstance(answer, Refused) for answer in again) == (2 if step > 0 else 0)
        refusal = again[-1]
        assert isinstance(refusal, Refused)
        assert refusal.retry_after_seconds is not None
        assert refusal.retry_after_seconds <= 100
        await shared.pass_seconds(100)
        granted(await shared.store.reserve("c_1", (RATE,)))

    @pytest.mark.parametrize("step", [3600, -3600])
    async def test_a_budget_is_the_same(self, shared: Shared, step: int) -> None:
        held = granted(await shared.store.reserve("c_1", (spend(60),)))
        await shared.pass_seconds(step)
        assert isinstance(await shared.store.reserve("c_2", (spend(50),)), Refused)
        shared.store.settle(held, {"price": 60})
        await shared.settled()
        assert await shared.books() == {BUDGET: ("2026-11-20", 60, 0)}

    async def test_set_back_a_dead_processs_slots_are_free_after_a_time_to_live(self, shared: Shared) -> None:
        for number in range(2):
            granted(await shared.store.reserve(f"c_{number}", (LEASE,)))
        shared.store._held.clear()
        await shared.pass_seconds(-3600)
        assert isinstance(await shared.store.reserve("c_3", (LEASE,)), Refused)
        await shared.pass_seconds(31)
        granted(await shared.store.reserve("c_3", (LEASE,)))

    async def test_set_back_a_pause_is_no_longer_than_it_was_asked_for(self, shared: Shared) -> None:
        shared.store.pause(("acme", "connection", "stripe"), 20)
        await shared.settled()
        await shared.pass_seconds(-3600)
        refusal = await shared.store.reserve("c_1", (PauseClaim(("acme", "connection", "stripe")),))
        assert isinstance(refusal, Refused)
        assert refusal.retry_after_seconds == 20
        await shared.pass_seconds(20)
        granted(await shared.store.reserve("c_1", (PauseClaim(("acme", "connection", "stripe")),)))
