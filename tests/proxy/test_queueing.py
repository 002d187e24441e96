"""Calls that wait for a slot, on real traffic: how they are let in, and everything that ends a wait."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from control.stores.limits import EmbeddedReservations
from credentials.actor import SYSTEM
from credentials.principal import Principal
from credentials.secret import Secret
from credentials.suspension import Suspension, Suspensions
from proxy.live import Stop
from proxy.metrics import Metrics
from proxy.queueing import wait_for_slot
from proxy.turns import ALONE
from rules.claims import LeaseClaim, Queue, Refused, Reserved
from tests.worlds.gate import Answer, write_policy
from tests.worlds.origin import Action, answers, reply
from tests.worlds.towns import POLICY, SECRET, Town, quick, town

pytestmark = pytest.mark.anyio

type Task = asyncio.Task[Answer]

ONE = "concurrency: [{max: 1, queue: {max: 2, wait: 20s}}]"
SLOW = answers(0.05, reply())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


def waiting(here: Town) -> int:
    return len(here.gate.reservations._queues)


async def call(here: Town, path: str, token: str | None = None) -> Answer:
    async with here.agent(token) as agent:
        return await agent.request("POST", path, b"{}")


async def hanging(here: Town) -> Task:
    task = asyncio.create_task(call(here, "/things/hangs"))
    await until(lambda: len(here.origin.requests) == 1)
    return task


async def test_calls_wait_and_are_all_answered_one_at_a_time(tmp_path: Path) -> None:
    async with town(tmp_path, SLOW, limits=ONE) as here:
        answered = await asyncio.gather(*(call(here, f"/things/{number}") for number in range(3)))
        assert [answer.status for answer in answered] == [200, 200, 200]
        assert here.gate.gate.metrics.queued == 0
        assert here.gate.gate.metrics.waits.count == 2
        assert "exeat_slot_wait_seconds_count 2" in here.gate.gate.metrics.render()
        outcomes = await here.gate.records("call.outcome")
        times = sorted((one.body["result"]["started_us"], one.body["result"]["ended_us"]) for one in outcomes)
        assert all(before[1] <= after[0] + 1000 for before, after in pairwise(times))
        assert here.gate.reservations.held == waiting(here) == 0


async def test_one_more_than_may_wait_is_refused_at_once(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG), limits=ONE) as here:
        tasks = [await hanging(here)]
        tasks += [asyncio.create_task(call(here, f"/things/{number}")) for number in range(2)]
        await until(lambda: waiting(here) == 2)
        refused = await call(here, "/things/4")
        assert (refused.status, refused.code) == (429, "concurrency_reached")
        assert refused.headers["retry-after"] == "1"
        assert b"2 wait for their end" in refused.body
        for task in tasks:
            task.cancel()


async def test_a_wait_ends_after_its_longest_with_the_limits_own_code(tmp_path: Path) -> None:
    limits = "concurrency: [{max: 1, queue: {max: 2, wait: 1s}}]"
    async with town(tmp_path, answers(Action.HANG), limits=limits) as here:
        first = await hanging(here)
        refused = await call(here, "/things/2")
        assert (refused.status, refused.code) == (429, "concurrency_reached")
        assert b"none ended for this one within 1 s" in refused.body
        assert waiting(here) == 0
        first.cancel()


async def test_an_agent_that_goes_away_waits_no_longer(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG), limits=ONE) as here:
        first = await hanging(here)
        async with here.agent() as gone:
            await gone.send("POST", "/things/2", b"{}")
            await until(lambda: waiting(here) == 1)
        await until(lambda: waiting(here) == 0)
        first.cancel()
        await until(lambda: here.gate.reservations.held == 0)
        assert here.gate.gate.metrics.queued == 0


async def _revoked(here: Town, first: Task) -> None:
    def agents(principal: Principal) -> bool:
        return principal.account == "agent"

    here.gate.gate._live.cut(agents, Stop.REVOKED)


async def _another_policy(here: Town, first: Task) -> None:
    text = POLICY.format(port=here.origin.port, limits=ONE).replace("/things/secret/**", "/things/waits")
    await here.gate.activate(write_policy(here.gate.directory.parent / "policy", text))
    here.origin.script = answers(reply())
    first.cancel()


async def _no_secret(here: Town, first: Task) -> None:
    here.gate.world.secrets.clear()
    first.cancel()


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        (_revoked, "revoked_in_flight"),
        (_another_policy, "concurrency_reached"),
        (_no_secret, "secret_unavailable"),
    ],
)
async def test_what_changes_during_a_wait_holds_at_its_end(
    tmp_path: Path, happens: Callable[[Town, Task], Awaitable[None]], code: str
) -> None:
    async with town(tmp_path, answers(Action.HANG), limits=ONE) as here:
        first = await hanging(here)
        second = asyncio.create_task(call(here, "/things/waits"))
        await until(lambda: waiting(here) == 1)
        await happens(here, first)
        answer = await second
        assert answer.code == code
        assert all("waits" not in request.target for request in here.origin.requests)
        first.cancel()
        await until(lambda: here.gate.reservations.held == waiting(here) == 0)
        (denied,) = await here.gate.records("call.denied")
        assert denied.body["decision"]["reasons"][0]["code"] == code


async def _suspended(here: Town) -> str:
    here.gate.world.suspensions = Suspensions.of([Suspension("acme", "agent", datetime.now(UTC), "a spike", SYSTEM)])
    return "account_suspended"


async def _more_slots(here: Town) -> str:
    text = POLICY.format(port=here.origin.port, limits="concurrency: [{max: 3, queue: {max: 2, wait: 20s}}]")
    await here.gate.activate(write_policy(here.gate.directory.parent / "policy", text))
    return "concurrency_reached"


async def _secret_removed(here: Town) -> str:
    here.gate.world.secrets.clear()
    return "secret_unavailable"


async def _nothing(here: Town) -> str:
    return "credential_expired"


@pytest.mark.parametrize("happens", [_suspended, _more_slots, _secret_removed, _nothing])
async def test_who_could_not_be_sent_any_more_stands_in_nobodys_way(
    tmp_path: Path, happens: Callable[[Town], Awaitable[str]]
) -> None:
    """No slot comes free meanwhile."""
    async with town(tmp_path, answers(Action.HANG), limits=ONE) as here:
        first = await hanging(here)
        token = here.gate.world.token(ttl=2 if happens is _nothing else 300)
        tasks = [asyncio.create_task(call(here, f"/things/{number}", token)) for number in range(2)]
        await until(lambda: waiting(here) == 2)
        code = await happens(here)
        async with asyncio.timeout(5):
            assert [(await task).code for task in tasks] == [code, code]
        assert waiting(here) == here.gate.gate.metrics.queued == 0
        assert len(here.origin.requests) == 1
        first.cancel()


async def test_a_call_whose_whole_time_is_over_while_it_waits_is_said_to_have_waited(tmp_path: Path) -> None:
    slot = LeaseClaim(("acme", "agent", "concurrency"), 1, Queue(2, 20))
    async with town(tmp_path, answers(reply()), limits=ONE, config=quick(total=1)) as here:
        held = await here.gate.reservations.reserve("c_0", (slot,))
        assert isinstance(held, Reserved)
        refused = await call(here, "/things/1")
        assert (refused.status, refused.code) == (429, "concurrency_reached")
        assert refused.headers["retry-after"] == "1"
        assert waiting(here) == 0
        assert here.origin.requests == []
        (denied,) = await here.gate.records("call.denied")
        assert denied.body["decision"]["reasons"][0]["code"] == "concurrency_reached"
        here.gate.reservations.release(held)
        assert here.gate.reservations.held == 0


async def test_a_call_that_was_let_in_has_the_usual_time_for_its_turn_at_the_processor(tmp_path: Path) -> None:
    slot = LeaseClaim(("acme", "agent", "concurrency"), 1, Queue(2, 20))
    async with town(tmp_path, answers(reply()), limits=ONE, config=quick(reserve=0.2)) as here:
        held = await here.gate.reservations.reserve("c_0", (slot,))
        assert isinstance(held, Reserved)
        asked = asyncio.create_task(call(here, "/things/1"))
        await until(lambda: waiting(here) == 1)
        turns = here.gate.gate._pipeline._turns
        others = [turns.turn("acme", "agent") for _ in range(ALONE)]
        for turn in others:
            await turn.take()
        here.gate.reservations.release(held)
        await asyncio.sleep(1)
        assert not asked.done()
        for turn in others:
            turn.give_back()
        assert (await asked).status == 200


async def test_a_secret_that_was_rotated_during_a_wait_is_the_one_that_leaves(tmp_path: Path) -> None:
    async with town(tmp_path, SLOW, limits=ONE) as here:
        here.origin.script = answers(0.3, reply())
        first = asyncio.create_task(call(here, "/things/1"))
        await until(lambda: len(here.origin.requests) == 1)
        second = asyncio.create_task(call(here, "/things/2"))
        await until(lambda: waiting(here) == 1)
        here.gate.world.secrets["acme", "saas"] = (Secret("rotated-canary"), 2)
        assert (await first).status == (await second).status == 200
        sent = [request.header("authorization") for request in here.origin.requests]
        assert sent == [f"Bearer {SECRET}", "Bearer rotated-canary"]
        versions = [one.body["secret"]["version"] for one in await here.gate.records("call.intent")]
        assert versions == [1, 2]


async def test_who_waits_does_not_hold_up_a_shutdown(tmp_path: Path) -> None:
    async with town(tmp_path, answers(Action.HANG), limits=ONE, config=quick(turn=5)) as here:
        first = await hanging(here)
        second = asyncio.create_task(call(here, "/things/waits"))
        await until(lambda: waiting(here) == 1)
        draining = asyncio.create_task(here.gate.gate.drain(10))
        async with asyncio.timeout(3):
            assert (await second).code == "concurrency_reached"
        first.cancel()
        await draining


async def test_waiting_calls_of_one_account_keep_no_turn_from_its_others(tmp_path: Path) -> None:
    """More calls wait than the account has turns at the processor; a call that needs no slot is answered."""
    limits = "concurrency: [{max: 1, queue: {max: 200, wait: 20s}}]"
    async with town(tmp_path, answers(Action.HANG), limits=limits) as here:
        tasks = [await hanging(here)]
        tasks += [asyncio.create_task(call(here, f"/things/{number}")) for number in range(60)]
        await until(lambda: waiting(here) == 60)
        denied = await call(here, "/elsewhere")
        assert denied.code == "not_allowed"
        for task in tasks:
            task.cancel()


async def test_each_limit_lets_calls_wait_for_its_own_time() -> None:
    """Once there is a slot of the first, the wait for the second is as long as that one says, and not as the first."""
    store = EmbeddedReservations()
    patient = LeaseClaim(("acme", "agent", "concurrency"), 1, Queue(5, 60))
    hasty = LeaseClaim(("acme", "*", "concurrency"), 1, Queue(5, 1))
    first, second = store.reserve_now("c_1", (patient,)), store.reserve_now("c_2", (hasty,))
    assert isinstance(first, Reserved)
    assert isinstance(second, Reserved)
    metrics = Metrics()
    live = SimpleNamespace(
        id="c_3",
        principal=SimpleNamespace(account="agent"),
        turn=SimpleNamespace(give_back=lambda: None),
        enter_phase=lambda *_: None,
    )
    books = SimpleNamespace(reservations=store, metrics=metrics)
    wait = wait_for_slot(books, live, (patient, hasty), 0.5, lambda: True)  # type: ignore[arg-type]
    waits = asyncio.create_task(wait)
    await until(lambda: store.waiting("acme") == {"acme/agent/concurrency": 1})
    store.release(first)
    await until(lambda: store.waiting("acme") == {"acme/*/concurrency": 1})
    async with asyncio.timeout(20):
        refused = await waits
    assert isinstance(refused, Refused)
    assert refused.claim is hasty
    assert store.waiting("acme") == {}
