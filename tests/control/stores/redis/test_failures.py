"""The server is down, hung, full, replaced: nobody hangs, nothing is granted that is not counted, nothing leaks."""

import asyncio
from pathlib import Path

import pytest

from control.stores.redis.encoding import arguments_of, root_of
from control.stores.redis.place import Place
from control.stores.redis.scripts import FINISH, RESERVE, evaluate
from control.stores.redis.store import RedisReservations
from rules.claims import LeaseClaim, PauseClaim, Queue, RateClaim, ReservationsUnavailable, SpendClaim, Ticket, Waiting
from tests.control.stores.subjects import Shared, granted
from tests.worlds.valkey import Valkey, free_port

pytestmark = pytest.mark.anyio

LEASE = LeaseClaim(("acme", "agent", "concurrency"), 3)
RATE = RateClaim(("acme", "agent", "rate"), 1_000_000, 1_000, "many")
SPEND = SpendClaim(("acme", "agent", "USD", "day"), "2026-11-20", 1_000_000, 1, "USD", 4_000_000_000)
ALL = (RATE, SPEND, LEASE)


async def until_up(store: RedisReservations) -> None:
    """The breaker has closed by itself."""
    async with asyncio.timeout(20):
        while store.health().state != "closed":
            await asyncio.sleep(0.01)


async def test_down_is_refused_and_the_breaker_closes_by_itself(tmp_path: Path) -> None:
    server = Valkey(tmp_path, port=free_port())
    told: list[tuple[str, str]] = []
    store = RedisReservations(Place.parse(server.url), "w1", on_degraded=lambda *what: told.append(what))
    await store.start()
    try:
        for _ in range(3):
            with pytest.raises(ReservationsUnavailable, match=str(server.port)):
                await store.reserve("c_1", ALL)
        assert store.health().state in ("open", "half-open")
        assert str(server.port) in store.health().last_error
        server.start()
        await until_up(store)
        await store.rebuild(["acme"], (), (), "g1")
        granted(await store.reserve("c_1", ALL))
        server.kill()
        with pytest.raises(ReservationsUnavailable):
            await store.reserve("c_1", ALL)
    finally:
        await store.stop()
        server.kill()
    assert [what for what, _ in told] == ["begin", "end", "begin"]


async def test_a_hung_server_delays_nobody_for_long_and_takes_nothing(shared: Shared) -> None:
    """What it reads when it goes on was given up: by then, a release has followed on another connection."""
    store = shared.store
    with shared.server.hung():
        for _ in range(3):
            with pytest.raises(ReservationsUnavailable):
                await asyncio.gather(*(store.reserve(f"c_{number}", ALL) for number in range(5)))
        assert store.health().state != "closed"
    await until_up(store)
    await shared.settled()
    async with asyncio.timeout(10):
        while await shared.held():
            await asyncio.sleep(0.01)
    assert (await shared.books()).get("acme/agent/USD/day", ("2026-11-20", 0, 0)) == ("2026-11-20", 0, 0)
    for _ in range(3):
        granted(await store.reserve("c_1", (LEASE,)))


async def test_a_late_answer_is_nobody_elses(shared: Shared) -> None:
    """A refusal that was on its way when its caller gave up must not become the next caller's answer."""
    store = shared.store
    full = LeaseClaim(("acme", "full", "concurrency"), 1)
    granted(await store.reserve("c_1", (full,)))
    with shared.server.hung(), pytest.raises(ReservationsUnavailable):
        await store.reserve("c_2", (full,))
    await until_up(store)
    for number in range(20):
        granted(await store.reserve(f"c_{number}", (RATE,)))


async def test_what_ends_while_the_server_is_hung_arrives_once(shared: Shared) -> None:
    store = shared.store
    reserved = [granted(await store.reserve(f"c_{number}", (SPEND,))) for number in range(50)]
    with shared.server.hung():
        for one in reserved:
            store.settle(one, {"price": 1})
            store.settle(one, {"price": 1})
        with pytest.raises(ReservationsUnavailable):
            await store.reserve("c_1", ALL)
        assert not await store.settled(0.05)
        assert store.health().undelivered == 51
    await until_up(store)
    await shared.settled()
    assert await shared.books() == {"acme/agent/USD/day": ("2026-11-20", 50, 0)}


async def test_a_release_that_overtakes_its_reserve_forbids_it(shared: Shared) -> None:
    wire = await shared.store._link.wire()
    root = root_of("acme")
    await evaluate(wire, FINISH, root, "c_1#x", "c_1", "void", 0)
    asked = (wire.run_id, "c_1#x", "c_1", "w1", 30_000_000, *arguments_of(ALL))
    assert await evaluate(wire, RESERVE, root, *asked) == [b"void"]
    assert await shared.held() == 0


async def test_a_caller_that_is_cancelled_leaves_nothing(shared: Shared) -> None:
    """At every point of the reserve: before it is sent, on its way, when the answer is there."""
    for turns in [0, 1, 2, 3, 5, 8, 13, 21] * 10:
        task = asyncio.create_task(shared.store.reserve("c_1", ALL))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            shared.store.release(granted(task.result()))
    await shared.settled()
    assert await shared.held() == 0
    assert shared.store.held == 0
    for _ in range(3):
        granted(await shared.store.reserve("c_1", (LEASE,)))


async def test_a_server_that_forgot_the_scripts_is_told_again(shared: Shared) -> None:
    reserved = granted(await shared.store.reserve("c_1", ALL))
    shared.client.script_flush()
    shared.store.settle(reserved, {"price": 1})
    await shared.settled()
    shared.client.script_flush()
    granted(await shared.store.reserve("c_1", ALL))
    shared.client.script_flush()
    await shared.store.keep_now()
    assert (await shared.books())["acme/agent/USD/day"] == ("2026-11-20", 1, 1)


async def test_a_full_server_takes_nothing_new_and_ends_what_is_held(shared: Shared) -> None:
    reserved = granted(await shared.store.reserve("c_1", ALL))
    shared.client.config_set("maxmemory", "1")
    with pytest.raises(ReservationsUnavailable, match="OOM"):
        await shared.store.reserve("c_2", ALL)
    shared.store.settle(reserved, {"price": 1})
    await shared.settled()
    await shared.store.keep_now()
    shared.client.config_set("maxmemory", "0")
    granted(await shared.store.reserve("c_2", (LEASE,)))
    assert await shared.books() == {"acme/agent/USD/day": ("2026-11-20", 1, 0)}


async def test_one_call_is_two_round_trips_on_one_connection(shared: Shared) -> None:
    pauses = PauseClaim(("acme", "connection", "stripe"))
    shared.client.config_resetstat()
    for number in range(100):
        shared.store.settle(granted(await shared.store.reserve(f"c_{number}", (*ALL, pauses))), {"price": 1})
        await shared.settled()
    for number in range(100):
        shared.store.release(granted(await shared.store.reserve(f"d_{number}", (RATE, pauses))))
        await shared.settled()
    stats = shared.client.info("commandstats")
    assert {name: value["calls"] for name, value in stats.items() if name != "cmdstat_info"}["cmdstat_evalsha"] == 300
    assert shared.client.info("stats")["total_connections_received"] == 0


async def test_nothing_stays_for_ever_but_the_generation(shared: Shared) -> None:
    once = granted(await shared.store.reserve("c_1", ALL))
    shared.store.pause(("acme", "connection", "stripe"), 60)
    granted(await shared.store.reserve("c_2", (*ALL, SpendClaim(("acme", "r"), "run", 9, 1, "USD", 0))))
    shared.store.settle(once, {"price": 1})
    await shared.settled()
    keys = list(shared.client.scan_iter("*"))
    await shared.lose({"c_2"})
    keys += list(shared.client.scan_iter("*"))
    assert len(set(keys)) == 11
    assert sorted({key for key in keys if shared.client.ttl(key) == -1}) == ["exeat:{acme}", "exeat:{globex}"]
    assert not [key for key in keys if not key.startswith("exeat:{acme}") and key != "exeat:{globex}"]


async def test_a_defect_of_the_dialler_leaves_nobody_waiting(server: Valkey) -> None:
    place = Place("127.0.0.1", server.port, "", 0, None, "", "not a secret")  # type: ignore[arg-type]
    store = RedisReservations(place, "w1")
    await store.start()
    async with asyncio.timeout(20):
        with pytest.raises(ReservationsUnavailable, match="a defect: AttributeError"):
            await store.reserve("c_1", ALL)
    await store.stop()


async def test_a_slot_given_back_while_its_process_tells_that_it_lives_is_free(shared: Shared) -> None:
    """Of several tenants one is told of after the other; what ends meanwhile is not taken again."""
    first, second = (LeaseClaim((tenant, "*", "concurrency"), 1) for tenant in ("acme", "globex"))
    for forgetful in (False, True):
        held = granted(await shared.store.reserve("c_1", (first,)))
        ends = granted(await shared.store.reserve("c_2", (second,)))
        if forgetful:
            shared.client.script_flush()
        telling = asyncio.create_task(shared.store.keep_now())
        await asyncio.sleep(0)
        shared.store.settle(ends, {})
        await telling
        await shared.settled()
        assert shared.client.zcard("exeat:{globex}:l:globex/*/concurrency") == 0
        assert shared.client.zcard("exeat:{acme}:l:acme/*/concurrency") == 1
        shared.store.settle(held, {})
        await shared.settled()


async def test_a_crowd_that_leaves_together_keeps_nobody_waiting(shared: Shared) -> None:
    """Each leaves from before all others: one by one, the server would move all others a thousand times."""
    slot = LeaseClaim(("acme", "*", "concurrency"), 1, Queue(1_000, 30))
    held = granted(await shared.store.reserve("c_0", (slot,)))
    tickets = [Ticket("crowd") for _ in range(1_000)]
    for number, ticket in enumerate(tickets):
        assert isinstance(await shared.store.reserve_or_wait(f"c_{number}", (slot,), ticket), Waiting)
    before = shared.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    for ticket in tickets[:-1]:
        shared.store.leave(ticket)
    await shared.settled()
    assert shared.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 5
    assert await shared.store.waiting("acme", ["acme/*/concurrency"]) == {"acme/*/concurrency": 1}
    shared.store.settle(held, {})
    granted(await shared.store.reserve_or_wait("c_999", (slot,), tickets[-1]))
