"""The embedded counters: examples, refusals, and what hundreds do at the last unit."""

import asyncio
import threading

import pytest

from control.stores.limits import EmbeddedReservations, money
from rules.claims import (
    Claim,
    LeaseClaim,
    PauseClaim,
    RateClaim,
    Refused,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
)
from rules.codes import Code

pytestmark = pytest.mark.anyio


class Clock:
    """Two clocks that move only when told."""

    def __init__(self) -> None:
        self.mono_us = 1_000_000_000
        self.wall = 1_795_000_000.0

    def pass_seconds(self, seconds: float) -> None:
        self.mono_us += int(seconds * 1_000_000)
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> EmbeddedReservations:
    return EmbeddedReservations(monotonic_us=lambda: clock.mono_us, wall_seconds=lambda: clock.wall)


RATE = RateClaim(("acme", "agent", "rate"), 100_000, 3, "10 per second")
LEASE = LeaseClaim(("acme", "agent", "concurrency"), 2)


def spend(amount: int = 1_000_000, window: str = "2026-11-20", cap: int = 5_000_000, name: str = "agent") -> SpendClaim:
    return SpendClaim(("acme", name, "USD", "day"), window, cap, amount, "USD", 1_795_003_600)


def take(store: EmbeddedReservations, *claims: Claim, call: str = "c_1") -> Reserved:
    result = store.reserve_now(call, claims)
    assert isinstance(result, Reserved), result
    return result


def refused(store: EmbeddedReservations, *claims: Claim) -> Refused:
    result = store.reserve_now("c_1", claims)
    assert isinstance(result, Refused), result
    return result


def used(store: EmbeddedReservations, name: str = "agent") -> tuple[str, int, int]:
    (budget,) = [b for b in store.budgets() if b.key == f"acme/{name}/USD/day"]
    return budget.window, budget.spent_micros, budget.reserved_micros


def test_a_rate_lets_its_burst_through_and_then_one_each_interval(store: EmbeddedReservations, clock: Clock) -> None:
    for _ in range(3):
        take(store, RATE)
    refusal = refused(store, RATE)
    assert (refusal.code, refusal.retry_after_seconds) == (Code.RATE_LIMITED, 1)
    assert "10 per second" in refusal.detail
    clock.pass_seconds(0.1)
    take(store, RATE)
    refused(store, RATE)


def test_a_stricter_rate_after_a_laxer_one_does_not_lock_the_bucket(store: EmbeddedReservations, clock: Clock) -> None:
    lax = RateClaim(RATE.key, 60_000_000, 1000, "1 per minute")
    for _ in range(1000):
        take(store, lax)
    refused(store, RATE)
    clock.pass_seconds(0.1)
    take(store, RATE)


def test_a_lease_is_back_after_release_and_after_settle_and_only_once(store: EmbeddedReservations) -> None:
    one, two = take(store, LEASE), take(store, LEASE)
    assert refused(store, LEASE).code is Code.CONCURRENCY_REACHED
    store.release(one)
    store.release(one)
    store.settle(one, {"price": 0})
    take(store, LEASE)
    refused(store, LEASE)
    store.settle(two, {"price": 0})
    take(store, LEASE)
    refused(store, LEASE)


def test_spending_is_set_aside_and_then_corrected(store: EmbeddedReservations) -> None:
    reserved = take(store, spend(2_000_000))
    assert used(store) == ("2026-11-20", 0, 2_000_000)
    store.settle(reserved, {"price": 500_000})
    store.settle(reserved, {"price": 500_000})
    store.release(reserved)
    assert used(store) == ("2026-11-20", 500_000, 0)
    store.release(take(store, spend(4_500_000)))
    assert used(store) == ("2026-11-20", 500_000, 0)


@pytest.mark.parametrize("impossible", [-1, True, 0.5, None])
def test_an_impossible_amount_is_settled_at_the_maximum(store: EmbeddedReservations, impossible: object) -> None:
    store.settle(take(store, spend(2_000_000)), {"price": impossible})  # type: ignore[arg-type]
    assert used(store) == ("2026-11-20", 2_000_000, 0)


def test_spending_more_than_was_set_aside_is_told_and_stops_the_next(store: EmbeddedReservations) -> None:
    store.settle(take(store, spend(1_000_000)), {"price": 7_000_000})
    assert used(store) == ("2026-11-20", 7_000_000, 0)
    assert refused(store, spend(0)).code is Code.SPEND_CAP_REACHED


def test_a_reached_cap_says_when_it_ends_and_what_is_left(store: EmbeddedReservations) -> None:
    take(store, spend(4_500_000))
    refusal = refused(store, spend(1_000_000))
    assert refusal.code is Code.SPEND_CAP_REACHED
    assert refusal.retry_after_seconds == 3601
    assert "5.00 USD" in refusal.detail
    assert "0.50 USD left" in refusal.detail


def test_a_refused_reserve_consumes_nothing(store: EmbeddedReservations) -> None:
    """The first two claims could be taken; the third cannot."""
    held = [take(store, LEASE), take(store, LEASE)]
    for _ in range(50):
        assert refused(store, RATE, spend(), LEASE).code is Code.CONCURRENCY_REACHED
    for reserved in held:
        store.release(reserved)
    for _ in range(2):
        take(store, RATE, spend(), LEASE)
    assert used(store) == ("2026-11-20", 0, 2_000_000)


def test_two_claims_on_one_budget_count_both(store: EmbeddedReservations) -> None:
    refused(store, spend(3_000_000), spend(3_000_000))
    store.settle(take(store, spend(2_000_000), spend(3_000_000)), {"price": 1_000_000})
    assert used(store) == ("2026-11-20", 2_000_000, 0)


def test_a_new_window_starts_at_zero(store: EmbeddedReservations) -> None:
    store.settle(take(store, spend(5_000_000)), {"price": 5_000_000})
    refused(store, spend())
    take(store, spend(5_000_000, "2026-11-21"))
    assert used(store) == ("2026-11-21", 0, 5_000_000)


def test_what_is_settled_after_midnight_belongs_to_its_own_day(store: EmbeddedReservations) -> None:
    yesterday = take(store, spend(5_000_000))
    take(store, spend(1_000_000, "2026-11-21"))
    store.settle(yesterday, {"price": 5_000_000})
    assert used(store) == ("2026-11-21", 0, 1_000_000)


def test_a_clock_set_back_opens_no_second_quota(store: EmbeddedReservations) -> None:
    store.settle(take(store, spend(5_000_000, "2026-11-20")), {"price": 5_000_000})
    store.settle(take(store, spend(4_000_000, "2026-11-21")), {"price": 4_000_000})
    refused(store, spend(2_000_000, "2026-11-20"))
    late = take(store, spend(1_000_000, "2026-11-20"))
    assert [claim.window for claim in late.claims if isinstance(claim, SpendClaim)] == ["2026-11-21"]
    refused(store, spend(1, "2026-11-20"))
    refused(store, spend(1, "2026-11-21"))


def test_a_refused_reserve_in_a_new_window_does_not_reopen_the_old_one(store: EmbeddedReservations) -> None:
    store.settle(take(store, spend(5_000_000)), {"price": 5_000_000})
    refused(store, spend(6_000_000, "2026-11-21"))
    refused(store, spend(1))


def test_budgets_of_neighbours_are_apart(store: EmbeddedReservations) -> None:
    take(store, spend(5_000_000))
    take(store, spend(5_000_000, name="other"))
    other_tenant = SpendClaim(("globex", "agent", "USD", "day"), "2026-11-20", 5_000_000, 5_000_000, "USD", 0)
    take(store, other_tenant)


@pytest.mark.parametrize(
    "claim",
    [
        spend(-1),
        spend(1, cap=-1),
        spend(1, window=""),
        LeaseClaim(("acme",), 0),
        RateClaim(("acme",), 0, 1, ""),
        RateClaim(("acme",), 1, 0, ""),
        "a claim of tomorrow",
    ],
    ids=repr,
)
def test_a_claim_that_makes_no_sense_is_not_granted(store: EmbeddedReservations, claim: Claim) -> None:
    """A negative amount would raise the cap; a cap of zero must not mean none."""
    with pytest.raises(ReservationsUnavailable):
        store.reserve_now("c_1", (LEASE, spend(1_000_000), claim))
    assert store.held == 0
    take(store, LEASE)
    take(store, LEASE)
    assert used(store) == ("2026-11-20", 0, 0)


def test_a_call_without_claims_is_reserved(store: EmbeddedReservations) -> None:
    store.release(take(store))
    assert store.held == 0


class TestReaper:
    def test_ends_what_its_owner_lost_and_spends_its_maximum(self, store: EmbeddedReservations, clock: Clock) -> None:
        take(store, LEASE, spend(2_000_000), call="c_lost")
        alive = take(store, LEASE, spend(1_000_000), call="c_alive")
        assert store.reap({"c_alive"}) == ()
        clock.pass_seconds(61)
        assert store.reap({"c_alive"}) == ("c_lost",)
        assert used(store) == ("2026-11-20", 2_000_000, 1_000_000)
        take(store, LEASE)
        store.settle(alive, {"price": 1_000_000})
        assert used(store) == ("2026-11-20", 3_000_000, 0)

    def test_a_late_settle_of_what_was_reaped_changes_nothing(self, store: EmbeddedReservations, clock: Clock) -> None:
        lost = take(store, LEASE, spend(2_000_000))
        clock.pass_seconds(61)
        store.reap(set())
        store.settle(lost, {"price": 0})
        assert used(store) == ("2026-11-20", 2_000_000, 0)


async def test_256_tasks_at_the_last_unit(store: EmbeddedReservations) -> None:
    """Ten units are left in each of three limits; hundreds ask at once."""
    claims = (
        RateClaim(("acme", "r"), 1_000_000_000, 20, "20 at once"),
        LeaseClaim(("acme", "c"), 15),
        spend(1_000_000, cap=10_000_000),
    )

    async def one(number: int) -> Reserved | Refused:
        await asyncio.sleep(0)
        return await store.reserve(f"c_{number}", claims)

    results = await asyncio.gather(*(one(number) for number in range(256)))
    granted = [result for result in results if isinstance(result, Reserved)]
    assert len(granted) == 10
    assert used(store) == ("2026-11-20", 0, 10_000_000)
    for reserved in granted:
        store.settle(reserved, {"price": 1_000_000})
    assert store.held == 0
    assert used(store) == ("2026-11-20", 10_000_000, 0)


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


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.00 USD"), (2_000, "0.002 USD"), (5_000_000, "5.00 USD"), (1_500_000, "1.50 USD"), (1, "0.000001 USD")],
)
def test_money_is_exact(micros: int, text: str) -> None:
    assert money(micros, "USD") == text


def test_each_meter_is_settled_by_its_own_amount(store: EmbeddedReservations) -> None:
    tokens = SpendClaim(("acme", "agent", "tokens", "day"), "2026-11-20", 9_000_000, 8_000_000, "tokens", 0, "tokens")
    store.settle(take(store, spend(2_000_000), tokens), {"price": 1_000_000, "tokens": 3_000_000})
    assert {use.key: use.spent_micros for use in store.budgets()} == {
        "acme/agent/USD/day": 1_000_000,
        "acme/agent/tokens/day": 3_000_000,
    }


def test_a_meter_that_nobody_tells_counts_at_its_maximum(store: EmbeddedReservations) -> None:
    store.settle(take(store, spend(2_000_000)), {"tokens": 0})
    assert used(store) == ("2026-11-20", 2_000_000, 0)


def test_a_pause_refuses_everybody_until_it_is_over(store: EmbeddedReservations, clock: Clock) -> None:
    claim = PauseClaim(("acme", "connection", "stripe"))
    take(store, claim)
    store.pause(claim.key, 2.5)
    store.pause(claim.key, 1)
    assert refused(store, claim).retry_after_seconds == 3
    take(store, PauseClaim(("acme", "connection", "github")))
    clock.pass_seconds(2.5)
    take(store, claim)
