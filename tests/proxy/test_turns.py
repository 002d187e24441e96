"""Turns are granted account by account, never more than a share, and none is lost."""

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.turns import ALONE, AT_LEAST, NOBODY, REST_SECONDS, SHARED, STRANGERS, Key, Turn, Turns

pytestmark = pytest.mark.anyio


async def in_line(turn: Turn, *, first: bool = False) -> "asyncio.Task[None]":
    """A task that waits for the turn, and has had the chance to get it."""
    task = asyncio.get_running_loop().create_task(turn.take(first=first))
    await asyncio.sleep(0)
    return task


async def test_an_account_that_is_alone_has_many_and_waits_for_no_more() -> None:
    turns = Turns()
    mine = [turns.turn("acme", "a") for _ in range(ALONE + 1)]
    for turn in mine[:-1]:
        await turn.take()
    waiting = await in_line(mine[-1])
    assert not waiting.done()
    assert turns.held == ALONE
    mine[0].give_back()
    await waiting
    assert turns.held == ALONE


async def test_a_flood_waits_behind_itself_and_not_in_front_of_others() -> None:
    turns = Turns()
    flood = [turns.turn("acme", "flood") for _ in range(100)]
    other = turns.turn("acme", "other")
    lines = [await in_line(turn) for turn in flood]
    await asyncio.wait_for(other.take(), 1)  # at once, whoever waits
    other.give_back()
    held = [turn for turn, task in zip(flood, lines, strict=True) if task.done()]
    for turn in held:
        turn.give_back()
        await asyncio.sleep(0)
    await asyncio.sleep(10 * REST_SECONDS)
    assert turns.held == SHARED // 2, "while another is about, the flood has a part of the shared turns"
    for task in lines:
        task.cancel()
    await asyncio.gather(*lines, return_exceptions=True)


async def test_however_many_accounts_each_has_a_turn_at_once() -> None:
    turns = Turns()
    everybody = [turns.turn("acme", f"a{number}") for number in range(50) for _ in range(AT_LEAST)]
    for turn in everybody:
        assert turns.waiting == 0
        await asyncio.wait_for(turn.take(), 1)
    assert turns.held == 50 * AT_LEAST


async def test_tenants_do_not_share_an_accounts_name() -> None:
    turns = Turns(alone=1, shared=1)
    for tenant in ("acme", "globex"):
        for _ in range(AT_LEAST if tenant == "globex" else 1):
            await asyncio.wait_for(turns.turn(tenant, "agent").take(), 1)


async def test_what_has_begun_goes_before_what_has_not() -> None:
    turns = Turns(alone=1)
    holder, new, begun = (turns.turn("acme", "a") for _ in range(3))
    await holder.take()
    late = await in_line(new)
    early = await in_line(begun, first=True)
    holder.give_back()
    await early
    assert not late.done()
    begun.give_back()
    await late


async def test_who_has_proven_nothing_has_one_turn_and_no_influence_on_others() -> None:
    turns = Turns()
    for key, share in ((NOBODY, 1), (STRANGERS, 2)):
        for _ in range(share):
            await turns.of(key).take()
        one_more = await in_line(turns.of(key))
        assert not one_more.done()
        one_more.cancel()
    for _ in range(ALONE):
        await asyncio.wait_for(turns.turn("acme", "a").take(), 1)


async def test_a_turn_granted_in_the_moment_of_cancellation_is_given_on() -> None:
    turns = Turns(alone=1)
    holder, cancelled, next_one = (turns.turn("acme", "a") for _ in range(3))
    await holder.take()
    stopped = await in_line(cancelled)
    waits = await in_line(next_one)
    holder.give_back()
    stopped.cancel()
    await asyncio.wait_for(waits, 1)
    assert turns.held == 1
    next_one.give_back()
    assert turns.held == 0


async def test_giving_back_twice_gives_back_once() -> None:
    turns = Turns()
    first, second = turns.turn("acme", "a"), turns.turn("acme", "a")
    await first.take()
    await first.take()
    await second.take()
    first.give_back()
    first.give_back()
    assert turns.held == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "first", "give", "cancel"])), max_size=120))
def test_whatever_happens_no_turn_is_lost_and_no_line_stands_still(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        turns = Turns(alone=3, shared=3)
        work: dict[str, list[tuple[Turn, asyncio.Task[None]]]] = {"a": [], "b": [], "c": []}
        for who, what in steps:
            mine = work[who]
            if what in {"take", "first"}:
                turn = turns.turn("acme", who)
                mine.append((turn, await in_line(turn, first=what == "first")))
            elif mine:
                turn, task = mine.pop(0 if what == "give" else -1)
                if task.done():
                    turn.give_back()
                else:
                    task.cancel()
            if len(steps) % 2:
                await asyncio.sleep(0)
        deadline = time.monotonic() + 5
        while any(work.values()) and time.monotonic() < deadline:
            await asyncio.sleep(REST_SECONDS / 4)
            for mine in work.values():
                for pair in [pair for pair in mine if pair[1].done()]:
                    mine.remove(pair)
                    pair[0].give_back()
        assert not any(work.values()), "somebody waits though all turns are free"
        assert turns.held == 0
        assert turns.waiting == 0

    asyncio.run(play())


async def test_what_was_received_is_taken_at_once_while_nobody_else_is_about() -> None:
    turns = Turns()
    read = turns.reader(Key("acme", "a"))
    assert not any(read(lambda: None) for _ in range(1000))
    assert turns.held == 0


async def test_pieces_that_come_at_once_are_taken_a_few_at_a_time_and_in_order() -> None:
    turns = Turns()
    for name in ("flood", "other"):
        turn = turns.turn("acme", name)
        await turn.take()
        turn.give_back()
    read = turns.reader(Key("acme", "flood"))
    taken: list[int] = []
    waiting = [number for number in range(50) if read(lambda number=number: taken.append(number))]
    assert waiting == list(range(SHARED // 2, 50))
    before = 0
    while len(taken) < len(waiting):
        assert not turns.reader(Key("acme", "other"))(lambda: None), "another account waits behind them"
        await asyncio.sleep(REST_SECONDS / 10)
        assert len(taken) - before <= SHARED // 2
        before = len(taken)
    assert taken == waiting
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert turns.held == 0


async def test_an_errand_that_fails_gives_its_turn_back() -> None:
    turns = Turns(shared=2)
    mine, other = turns.turn("acme", "a"), turns.turn("acme", "b")
    await other.take()
    other.give_back()
    await mine.take()
    second = turns.turn("acme", "a")
    await second.take()
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    assert turns.reader(Key("acme", "a"))(lambda: 1 / 0)
    mine.give_back()
    second.give_back()
    await asyncio.sleep(10 * REST_SECONDS)
    assert [type(error) for error in failed] == [ZeroDivisionError]
    assert turns.held == 0


async def test_the_loop_rests_between_the_grants_to_a_flood_only_while_somebody_may_want_it_idle() -> None:
    turns = Turns(shared=4)
    for name in ("flood", "other"):
        turn = turns.turn("acme", name)
        await turn.take()
        turn.give_back()
    flood = [turns.turn("acme", "flood") for _ in range(4)]
    tasks = [await in_line(turn) for turn in flood]
    flood[0].give_back()
    await asyncio.sleep(0)
    assert not tasks[2].done(), "granted without a rest"
    await asyncio.wait_for(tasks[2], 1)
    # Both wait: nobody is served by a loop that rests.
    other = [turns.turn("acme", "other") for _ in range(4)]
    more = [await in_line(turn) for turn in other]
    other[0].give_back()
    await asyncio.sleep(0)
    assert more[2].done()
    for task in (*tasks, *more):
        task.cancel()
    await asyncio.gather(*tasks, *more, return_exceptions=True)
