"""The embedded counters: what they promise beyond every store's promises (`test_conformance`)."""

import asyncio
import threading

import pytest

from control.stores.limits import EmbeddedReservations
from control.stores.verdicts import money
from rules.claims import Claim, LeaseClaim, OnceClaim, RateClaim, Refused, Reserved, SpendClaim
from tests.control.stores.subjects import Clock, granted

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> EmbeddedReservations:
    return EmbeddedReservations(monotonic_us=lambda: clock.mono_us, wall_seconds=lambda: clock.wall)


LEASE = LeaseClaim(("acme", "agent", "concurrency"), 2)


def spend(amount: int = 1_000_000, window: str = "2026-11-20", cap: int = 5_000_000) -> SpendClaim:
    return SpendClaim(("acme", "agent", "USD", "day"), window, cap, amount, "USD", 1_795_003_600)


def take(store: EmbeddedReservations, *claims: Claim, call: str = "c_1") -> Reserved:
    return granted(store.reserve_now(call, claims))


def used(store: EmbeddedReservations) -> tuple[str, int, int]:
    (budget,) = store.budgets()
    return budget.window, budget.spent_micros, budget.reserved_micros


def test_a_late_settle_of_what_was_reaped_changes_nothing(store: EmbeddedReservations, clock: Clock) -> None:
    lost = take(store, LEASE, spend(2_000_000), call="c_lost")
    assert store.reap({"c_lost"}) == ()
    clock.pass_seconds(61)
    assert store.reap({"c_lost"}) == ()
    assert store.reap(set()) == ("c_lost",)
    store.settle(lost, {"price": 0})
    assert used(store) == ("2026-11-20", 2_000_000, 0)


async def test_256_tasks_that_wait_before_they_ask(store: EmbeddedReservations) -> None:
    async def one(number: int) -> Reserved | Refused:
        await asyncio.sleep(0)
        return await store.reserve(f"c_{number}", (spend(1_000_000, cap=10_000_000),))

    results = await asyncio.gather(*(one(number) for number in range(256)))
    assert sum(isinstance(result, Reserved) for result in results) == 10


def test_256_threads_at_the_last_unit(store: EmbeddedReservations) -> None:
    granted: list[Reserved] = []
    barrier = threading.Barrier(256)

    def one(number: int) -> None:
        barrier.wait()
        result = store.reserve_now(f"c_{number}", (spend(1_000_000, cap=1_000_000), LeaseClaim(("acme", "c"), 256)))
        if isinstance(result, Reserved):
            granted.append(result)
            store.settle(result, {"price": 1_000_000})

    threads = [threading.Thread(target=one, args=(number,)) for number in range(256)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 1
    assert used(store) == ("2026-11-20", 1_000_000, 0)
    assert store.held == 0


def test_a_wall_clock_that_steps_an_hour_moves_no_rate(store: EmbeddedReservations, clock: Clock) -> None:
    rate = RateClaim(("acme", "agent", "rate"), 60_000_000, 1, "1 per minute")
    take(store, rate)
    for step in (3600, -7200):
        clock.wall += step
        assert isinstance(store.reserve_now("c_1", (rate,)), Refused)


def test_idempotency_keys_are_forgotten_and_do_not_pile_up(store: EmbeddedReservations, clock: Clock) -> None:
    for number in range(100):
        store.settle(take(store, OnceClaim(("acme", "agent", "stripe", f"k{number}"), "digest")), {})
        clock.pass_seconds(8_640)
    assert len(store._onces) <= 11


async def test_windows_that_ended_long_ago_are_forgotten_and_no_other(
    store: EmbeddedReservations, clock: Clock
) -> None:
    """What limits are counted by is as long a list as an agent makes it: it is kept for as long as it counts."""
    ends = int(clock.wall) + 3_600

    def of(name: str, window: str, resets_at: int) -> SpendClaim:
        key = ("acme", "agent", "calls", "day", f"object={name}")
        return SpendClaim(key, window, 5_000_000, 1_000_000, "calls", resets_at, "calls")

    for number in range(100):
        store.settle(take(store, of(str(number), "2026-11-20", ends), call=f"c_{number}"), {})
    take(store, of("flies", "2026-11-20", ends), call="c_flies")
    store.settle(take(store, of("run", "run", 0), call="c_run"), {})
    for days, kept in ((7, 102), (2, 2)):
        clock.pass_seconds(days * 86_400)
        store.begin_export()
        assert len(store.export().budgets) == len(store.budgets()) == kept
    assert {use.key.rpartition("=")[2] for use in store.budgets()} == {"flies", "run"}


def test_a_run_is_forgotten_after_forty_days_without_a_call(store: EmbeddedReservations, clock: Clock) -> None:
    def of(run: str) -> SpendClaim:
        return SpendClaim(("acme", "agent", "calls", "run", run), "run", 5_000_000, 1_000_000, "calls", 0, "calls")

    for run in ("over", "goes-on", "flies"):
        reserved = take(store, of(run), call=run)
        if run != "flies":
            store.settle(reserved, {})
    for days, kept in ((39, {"over", "goes-on", "flies"}), (2, {"goes-on", "flies"}), (39, {"flies"})):
        clock.pass_seconds(days * 86_400)
        store.begin_export()
        assert {key.rpartition("/")[2] for key in store.export().budgets} == kept
        if days == 39 and "over" in kept:
            store.settle(take(store, of("goes-on"), call="again"), {})


@pytest.mark.parametrize(
    ("micros", "unit", "text"),
    [
        (0, "USD", "0.00 USD"),
        (2_000, "USD", "0.002 USD"),
        (5_000_000, "USD", "5.00 USD"),
        (1_500_000, "USD", "1.50 USD"),
        (1, "USD", "0.000001 USD"),
        (3_000_000, "tokens", "3 tokens"),
        (500_000, "rows", "0.5 rows"),
    ],
)
def test_amounts_are_told_exactly(micros: int, unit: str, text: str) -> None:
    assert money(micros, unit) == text
