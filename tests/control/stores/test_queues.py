"""Waiting for a slot: each promise of the queue, for every store of counters."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from rules.claims import LeaseClaim, Queue, RateClaim, Refused, Reserved, SpendClaim, Ticket, Waiting
from rules.codes import Code
from tests.control.stores.subjects import Embedded, Shared, Subject, granted
from tests.worlds.valkey import Valkey, valkey

pytestmark = pytest.mark.anyio

KEY = ("acme", "*", "concurrency")
SLOT = LeaseClaim(KEY, 1, Queue(3, 5))
TWO = LeaseClaim(KEY, 2, Queue(100, 5))
OTHER = LeaseClaim(("acme", "agent", "concurrency"), 1, Queue(3, 5))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "embedded":
        yield Embedded()
        return
    shared = Shared(request.getfixturevalue("server"))
    shared.client.flushall()
    await shared.start()
    yield shared
    await shared.stop()


async def take(subject: Subject, *claims: LeaseClaim, call: str = "c_0") -> Reserved:
    return granted(await subject.store.reserve(call, claims))


async def let_in(subject: Subject, ticket: Ticket, claim: LeaseClaim, call: str, seconds: float = 5) -> Reserved | None:
    """Waits until it has an answer; None: it still waits."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await subject.store.reserve_or_wait(call, (claim,), ticket)
                if not isinstance(answer, Waiting):
                    return granted(answer)
                await subject.store.turn(ticket, 0.5)
    except TimeoutError:
        return None


async def wait(subject: Subject, account: str, claim: LeaseClaim = SLOT, call: str = "c_w") -> Ticket:
    ticket = Ticket(account)
    assert isinstance(await subject.store.reserve_or_wait(call, (claim,), ticket), Waiting)
    return ticket


async def test_who_waits_is_let_in_when_a_slot_comes_free(subject: Subject) -> None:
    first = await take(subject, SLOT)
    ticket = await wait(subject, "a")
    waiting = asyncio.create_task(let_in(subject, ticket, SLOT, "c_w"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    subject.store.settle(first, {})
    second = await waiting
    assert second is not None
    subject.store.release(second)
    await subject.settled()
    assert await subject.held() == 0


async def test_nobody_overtakes_who_waits(subject: Subject) -> None:
    first = await take(subject, SLOT)
    ticket = await wait(subject, "a")
    subject.store.settle(first, {})
    await subject.settled()
    refused = await subject.store.reserve("c_new", (SLOT,))
    assert isinstance(refused, Refused)
    assert refused.code is Code.CONCURRENCY_REACHED
    later = await wait(subject, "b", call="c_later")
    assert later.ahead == 1
    assert await let_in(subject, ticket, SLOT, "c_w") is not None


async def test_a_full_queue_refuses_at_once_and_says_so(subject: Subject) -> None:
    await take(subject, SLOT)
    for number in range(3):
        await wait(subject, "a", call=f"c_{number}")
    refused = await subject.store.reserve_or_wait("c_4", (SLOT,), Ticket("b"))
    assert isinstance(refused, Refused)
    assert refused.code is Code.CONCURRENCY_REACHED
    assert "3 wait" in refused.detail
    assert refused.retry_after_seconds == 1


async def test_accounts_take_turns_however_many_calls_of_one_wait(subject: Subject) -> None:
    slot = LeaseClaim(KEY, 1, Queue(100, 5))
    held = await take(subject, slot)
    tickets = [(f"flood{number}", await wait(subject, "flood", slot, f"c_f{number}")) for number in range(20)]
    tickets += [
        ("quiet", await wait(subject, "quiet", slot, "c_q")),
        ("third", await wait(subject, "third", slot, "c_t")),
    ]
    order: list[str] = []
    while tickets:
        subject.store.settle(held, {})
        await subject.settled()
        entered = []
        for name, ticket in tickets:
            answer = await subject.store.reserve_or_wait(f"c_{name}", (slot,), ticket)
            if isinstance(answer, Reserved):
                entered.append((name, ticket))
                held = answer
        assert len(entered) == 1
        tickets.remove(entered[0])
        order.append(entered[0][0])
    assert order[0] == "flood0"
    assert set(order[1:3]) == {"quiet", "third"} or set(order[:3]) == {"flood0", "quiet", "third"}
    assert [name for name in order if name.startswith("flood")] == [f"flood{number}" for number in range(20)]


async def test_who_waits_holds_nothing_else(subject: Subject) -> None:
    rate = RateClaim(("acme", "a", "rate"), 10_000_000, 2, "12 per minute")
    amount = SpendClaim(("acme", "a", "USD", "day"), "2026-11-20", 5_000_000, 1_000_000, "USD", 4_000_000_000)
    held = await take(subject, SLOT)
    ticket = Ticket("a")
    for _ in range(5):
        assert isinstance(await subject.store.reserve_or_wait("c_w", (rate, amount, SLOT), ticket), Waiting)
    assert (await subject.books()).get("acme/a/USD/day", ("", 0, 0))[2] == 0
    subject.store.settle(held, {})
    await subject.settled()
    got = await subject.store.reserve_or_wait("c_w", (rate, amount, SLOT), ticket)
    assert isinstance(got, Reserved)
    assert (await subject.books())["acme/a/USD/day"][2] == 1_000_000


async def test_a_refusal_by_another_limit_comes_at_once_and_passes_the_turn_on(subject: Subject) -> None:
    rate = RateClaim(("acme", "a", "rate"), 60_000_000, 1, "1 per minute")
    granted(await subject.store.reserve("c_r", (rate,)))
    held = await take(subject, SLOT)
    ticket, behind = await wait(subject, "a"), await wait(subject, "b", call="c_b")
    refused = await subject.store.reserve_or_wait("c_w", (rate, SLOT), ticket)
    assert isinstance(refused, Refused)
    assert refused.code is Code.RATE_LIMITED
    subject.store.leave(ticket)
    subject.store.settle(held, {})
    assert await let_in(subject, behind, SLOT, "c_b") is not None


async def test_who_leaves_is_in_nobodys_way(subject: Subject) -> None:
    held = await take(subject, SLOT)
    tickets = [await wait(subject, "a", call=f"c_{number}") for number in range(3)]
    last = asyncio.create_task(let_in(subject, tickets[2], SLOT, "c_2"))
    subject.store.settle(held, {})
    subject.store.leave(tickets[0])
    subject.store.leave(tickets[0])
    subject.store.leave(tickets[1])
    assert await last is not None


async def test_a_waiter_that_is_cancelled_when_its_slot_comes_free_passes_it_on(subject: Subject) -> None:
    for _ in range(20):
        held = await take(subject, SLOT)
        ticket, behind = await wait(subject, "a"), await wait(subject, "b", call="c_b")

        async def cut(ticket: Ticket = ticket) -> None:
            try:
                await let_in(subject, ticket, SLOT, "c_w")
            finally:
                subject.store.leave(ticket)

        first = asyncio.create_task(cut())
        second = asyncio.create_task(let_in(subject, behind, SLOT, "c_b"))
        await asyncio.sleep(0)
        subject.store.settle(held, {})
        first.cancel()
        got = await second
        assert got is not None
        subject.store.settle(got, {})
        await asyncio.wait((first,))
        await subject.settled()
        # Cancelled between the answer and its use, a reservation may be taken: its caller ends it by its name.
        await subject.lose({"c_w"})


async def test_two_slots_of_one_call_are_waited_for_one_after_the_other(subject: Subject) -> None:
    mine, tenants = await take(subject, OTHER, call="c_1"), await take(subject, SLOT, call="c_2")
    ticket = Ticket("agent")
    both = (OTHER, SLOT)
    assert isinstance(await subject.store.reserve_or_wait("c_w", both, ticket), Waiting)
    subject.store.settle(mine, {})
    await subject.settled()
    moved = await subject.store.reserve_or_wait("c_w", both, ticket)
    assert isinstance(moved, Waiting)
    assert moved.claim == SLOT
    # What it does not wait for now, another may have.
    another = await take(subject, OTHER, call="c_3")
    subject.store.settle(tenants, {})
    await subject.settled()
    back = await subject.store.reserve_or_wait("c_w", both, ticket)
    assert isinstance(back, Waiting)
    assert back.claim == OTHER
    subject.store.settle(another, {})
    await subject.settled()
    assert isinstance(await subject.store.reserve_or_wait("c_w", both, ticket), Reserved)


async def test_crowds_are_let_in_one_by_one_and_none_is_refused(subject: Subject) -> None:
    running = most = done = 0

    async def call(number: int) -> None:
        nonlocal running, most, done
        ticket = Ticket(f"account-{number % 4}")
        try:
            got = await let_in(subject, ticket, TWO, f"c_{number}", 60)
        finally:
            subject.store.leave(ticket)
        assert got is not None
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        done += 1
        subject.store.settle(got, {})

    await asyncio.gather(*(call(number) for number in range(100)))
    await subject.settled()
    assert (most, done, await subject.held()) == (2, 100, 0)


async def test_calls_that_give_up_leave_their_turns_to_the_others_of_their_account(subject: Subject) -> None:
    """Of many calls of one account most wait in vain; another account always has two that wait. They take turns."""
    slot = LeaseClaim(KEY, 1, Queue(100, 5))
    held = await take(subject, slot)
    waiting: dict[str, list[Ticket]] = {"many": [], "few": []}
    let: list[str] = []
    for _ in range(20):
        waiting["many"] += [await wait(subject, "many", slot) for _ in range(5)]
        for ticket in waiting["many"][:-10]:
            subject.store.leave(ticket)
        waiting["many"] = waiting["many"][-10:]
        while len(waiting["few"]) < 2:
            waiting["few"].append(await wait(subject, "few", slot))
        subject.store.settle(held, {})
        await subject.settled()
        for account, ticket in [(name, one) for name, those in waiting.items() for one in those]:
            answer = await subject.store.reserve_or_wait("c_w", (slot,), ticket)
            if isinstance(answer, Reserved):
                assert ticket is waiting[account][0]
                waiting[account].remove(ticket)
                let.append(account)
                held = answer
                break
    assert let.count("many") == let.count("few") == 10


async def test_who_comes_back_to_a_queue_after_its_turn_is_the_first_there(subject: Subject) -> None:
    """Also if that queue was empty meanwhile and began anew, and if others of its account have gone."""
    slot, other = LeaseClaim(KEY, 1, Queue(100, 5)), OTHER
    both = (slot, other)
    held, others = await take(subject, slot), await take(subject, other)
    before = [await wait(subject, "agent", slot) for _ in range(10)]
    ticket = Ticket("agent")
    assert isinstance(await subject.store.reserve_or_wait("c_x", both, ticket), Waiting)
    for each in before:
        subject.store.leave(each)
    subject.store.settle(held, {})
    await subject.settled()
    moved = await subject.store.reserve_or_wait("c_x", both, ticket)
    assert isinstance(moved, Waiting)
    assert moved.claim == other
    held = await take(subject, slot)
    newcomers = [await wait(subject, account, slot) for account in ("agent", "b", "b")]
    subject.store.settle(others, {})
    await subject.settled()
    back = await subject.store.reserve_or_wait("c_x", both, ticket)
    assert isinstance(back, Waiting)
    assert back.claim == slot
    subject.store.settle(held, {})
    await subject.settled()
    for each in newcomers:
        assert isinstance(await subject.store.reserve_or_wait("c_new", (slot,), each), Waiting)
    assert isinstance(await subject.store.reserve_or_wait("c_x", both, ticket), Reserved)


async def test_calls_that_need_the_same_two_slots_do_not_send_each_other_to_and_fro(subject: Subject) -> None:
    slot, other = LeaseClaim(KEY, 1, Queue(100, 5)), LeaseClaim(OTHER.key, 1, Queue(100, 5))
    held = [await take(subject, slot), await take(subject, other)]
    waiting = []
    for number in range(6):
        claims = (slot, other) if number % 2 else (other, slot)
        ticket = Ticket("agent")
        assert isinstance(await subject.store.reserve_or_wait(f"c_{number}", claims, ticket), Waiting)
        waiting.append((f"c_{number}", claims, ticket))
    for reserved in held:
        subject.store.settle(reserved, {})
    for _ in range(30):
        await subject.settled()
        for call, claims, ticket in tuple(waiting):
            answer = await subject.store.reserve_or_wait(call, claims, ticket)
            if isinstance(answer, Reserved):
                subject.store.settle(answer, {})
                waiting.remove((call, claims, ticket))
    assert waiting == []


async def test_a_slot_of_the_account_and_one_of_the_tenant_are_never_idle_together(subject: Subject) -> None:
    """Whoever can be let in is told; embedded, not only when it looks by itself."""
    began = asyncio.get_running_loop().time()

    async def call(number: int) -> None:
        account = f"account-{number % 3}"
        claims = (LeaseClaim(("acme", account, "concurrency"), 1, Queue(100, 5)), TWO)
        ticket = Ticket(account)
        while isinstance(answer := await subject.store.reserve_or_wait(f"c_{number}", claims, ticket), Waiting):
            await subject.store.turn(ticket, 5)
        subject.store.leave(ticket)
        reserved = granted(answer)
        await asyncio.sleep(0.005)
        subject.store.settle(reserved, {})

    await asyncio.gather(*(call(number) for number in range(30)))
    await subject.settled()
    assert await subject.held() == 0
    assert asyncio.get_running_loop().time() - began < 4


async def test_a_call_cut_before_it_knows_its_place_is_in_nobodys_way(server: Valkey) -> None:
    shared = Shared(server)
    shared.client.flushall()
    await shared.start()
    try:
        held = await take(shared, SLOT)
        for first in (True, False):
            ticket = Ticket("a") if first else await wait(shared, "a")
            asking = asyncio.create_task(shared.store.reserve_or_wait("c_cut", (SLOT,), ticket))
            while not shared.store._link.up._waiting:  # type: ignore[union-attr]
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait((asking,))
            shared.store.leave(ticket)
            await shared.settled()
            assert await shared.store.waiting("acme", ["acme/*/concurrency"]) == {"acme/*/concurrency": 0}
        shared.store.settle(held, {})
        await shared.settled()
        granted(await shared.store.reserve("c_new", (SLOT,)))
    finally:
        await shared.stop()


async def test_a_worker_that_is_lost_waits_no_longer(server: Valkey) -> None:
    shared = Shared(server)
    shared.client.flushall()
    await shared.start()
    try:
        held = await take(shared, SLOT)
        await wait(shared, "a")
        shared.store.settle(held, {})
        await shared.settled()
        assert isinstance(await shared.store.reserve("c_new", (SLOT,)), Refused)
        await asyncio.sleep(3.2)
        granted(await shared.store.reserve("c_new", (SLOT,)))
    finally:
        await shared.stop()
