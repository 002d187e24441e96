"""What every store of counters promises: each test runs against all of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from rules.claims import (
    Claim,
    LeaseClaim,
    OnceClaim,
    PauseClaim,
    RateClaim,
    Refused,
    ReservationsUnavailable,
    Reserved,
    SpendClaim,
)
from rules.codes import Code
from tests.control.stores.subjects import Embedded, Shared, Subject, granted
from tests.worlds.valkey import Valkey, valkey

pytestmark = pytest.mark.anyio

RATE = RateClaim(("acme", "agent", "rate"), 10_000_000, 3, "6 per minute")
LEASE = LeaseClaim(("acme", "agent", "concurrency"), 2)
ONCE = OnceClaim(("acme", "agent", "stripe", "k1"), "digest-1")
UNTIL = 4_000_000_000
"""Unix seconds, far ahead of every clock here."""


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


def spend(
    amount: int = 1_000_000,
    window: str = "2026-11-20",
    cap: int = 5_000_000,
    name: str = "agent",
    unit: str = "USD",
    meter: str = "price",
    resets_at: int = UNTIL,
) -> SpendClaim:
    return SpendClaim(("acme", name, unit, "day"), window, cap, amount, unit, resets_at, meter)


async def take(subject: Subject, *claims: Claim, call: str = "c_1") -> Reserved:
    return granted(await subject.store.reserve(call, claims))


async def refused(subject: Subject, *claims: Claim) -> Refused:
    result = await subject.store.reserve("c_1", claims)
    assert isinstance(result, Refused), result
    return result


async def settle(subject: Subject, reserved: Reserved, **spent: object) -> None:
    subject.store.settle(reserved, spent)  # type: ignore[arg-type]
    await subject.settled()


async def release(subject: Subject, reserved: Reserved) -> None:
    subject.store.release(reserved)
    await subject.settled()


async def used(subject: Subject, name: str = "agent", unit: str = "USD") -> tuple[str, int, int] | None:
    return (await subject.books()).get(f"acme/{name}/{unit}/day")


class TestRates:
    async def test_a_burst_and_then_one_each_interval(self, subject: Subject) -> None:
        for _ in range(3):
            await take(subject, RATE)
        refusal = await refused(subject, RATE)
        assert (refusal.code, refusal.claim) == (Code.RATE_LIMITED, RATE)
        assert refusal.retry_after_seconds in (9, 10)
        assert "6 per minute" in refusal.detail
        await subject.pass_seconds(10)
        await take(subject, RATE)
        await refused(subject, RATE)

    async def test_an_unused_bucket_holds_no_more_than_its_burst(self, subject: Subject) -> None:
        await take(subject, RATE)
        await subject.pass_seconds(86_400)
        for _ in range(3):
            await take(subject, RATE)
        await refused(subject, RATE)

    async def test_a_stricter_rate_after_a_laxer_one_does_not_lock_the_bucket(self, subject: Subject) -> None:
        lax = RateClaim(RATE.key, 600_000_000, 100, "1 per 10 minutes")
        for _ in range(100):
            await take(subject, lax)
        assert (await refused(subject, RATE)).retry_after_seconds in (9, 10)
        await subject.pass_seconds(10)
        await take(subject, RATE)

    async def test_released_tokens_stay_spent(self, subject: Subject) -> None:
        for _ in range(3):
            await release(subject, await take(subject, RATE))
        await refused(subject, RATE)

    async def test_the_same_bucket_twice_in_a_call_takes_two(self, subject: Subject) -> None:
        await take(subject, RATE, RATE)
        await refused(subject, RATE, RATE)
        await take(subject, RATE)


class TestLeases:
    async def test_a_lease_is_back_after_release_and_after_settle_and_only_once(self, subject: Subject) -> None:
        one, two = await take(subject, LEASE), await take(subject, LEASE)
        assert (await refused(subject, LEASE)).code is Code.CONCURRENCY_REACHED
        await release(subject, one)
        await release(subject, one)
        await settle(subject, one, price=0)
        await take(subject, LEASE)
        await refused(subject, LEASE)
        await settle(subject, two, price=0)
        await take(subject, LEASE)
        await refused(subject, LEASE)

    async def test_two_slots_of_one_cap_in_a_call_are_two(self, subject: Subject) -> None:
        both = await take(subject, LEASE, LEASE)
        await refused(subject, LEASE)
        await release(subject, both)
        one = await take(subject, LEASE)
        await refused(subject, LEASE, LEASE)
        await release(subject, one)
        assert await subject.held() == 0


class TestSpending:
    async def test_is_set_aside_and_then_corrected(self, subject: Subject) -> None:
        reserved = await take(subject, spend(2_000_000))
        assert await used(subject) == ("2026-11-20", 0, 2_000_000)
        await settle(subject, reserved, price=500_000)
        await settle(subject, reserved, price=500_000)
        await release(subject, reserved)
        assert await used(subject) == ("2026-11-20", 500_000, 0)
        await release(subject, await take(subject, spend(4_500_000)))
        assert await used(subject) == ("2026-11-20", 500_000, 0)

    @pytest.mark.parametrize("impossible", [-1, True, 0.5, None, "1"])
    async def test_an_impossible_amount_is_settled_at_the_maximum(self, subject: Subject, impossible: object) -> None:
        await settle(subject, await take(subject, spend(2_000_000)), price=impossible)
        assert await used(subject) == ("2026-11-20", 2_000_000, 0)

    async def test_more_than_was_set_aside_is_told_and_stops_the_next(self, subject: Subject) -> None:
        await settle(subject, await take(subject, spend(1_000_000)), price=7_000_000)
        assert await used(subject) == ("2026-11-20", 7_000_000, 0)
        assert (await refused(subject, spend(0))).code is Code.SPEND_CAP_REACHED

    async def test_a_reached_cap_says_when_it_ends_and_what_is_left(self, subject: Subject) -> None:
        soon = int(subject.wall) + 3600
        await take(subject, spend(4_500_000, resets_at=soon))
        refusal = await refused(subject, spend(1_000_000, resets_at=soon))
        assert refusal.code is Code.SPEND_CAP_REACHED
        assert refusal.retry_after_seconds is not None
        assert 3595 <= refusal.retry_after_seconds <= 3601
        assert "5.00 USD" in refusal.detail
        assert "0.50 USD left" in refusal.detail

    async def test_a_window_that_does_not_end_by_the_clock_promises_no_time(self, subject: Subject) -> None:
        await take(subject, spend(5_000_000, "run", resets_at=0))
        assert (await refused(subject, spend(1, "run", resets_at=0))).retry_after_seconds is None

    async def test_each_meter_is_settled_by_its_own_amount(self, subject: Subject) -> None:
        tokens = spend(8_000_000, unit="tokens", meter="tokens", cap=9_000_000)
        both = await take(subject, spend(2_000_000), tokens)
        await settle(subject, both, price=1_000_000, tokens=3_000_000)
        assert await used(subject) == ("2026-11-20", 1_000_000, 0)
        assert await used(subject, unit="tokens") == ("2026-11-20", 3_000_000, 0)
        assert "6 tokens left" in (await refused(subject, tokens)).detail

    async def test_a_meter_that_nobody_tells_counts_at_its_maximum(self, subject: Subject) -> None:
        await settle(subject, await take(subject, spend(2_000_000)), tokens=0)
        assert await used(subject) == ("2026-11-20", 2_000_000, 0)

    async def test_two_claims_on_one_budget_count_both(self, subject: Subject) -> None:
        await refused(subject, spend(3_000_000), spend(3_000_000))
        await settle(subject, await take(subject, spend(2_000_000), spend(3_000_000)), price=1_000_000)
        assert await used(subject) == ("2026-11-20", 2_000_000, 0)

    async def test_amounts_are_exact_to_the_last_micro_unit(self, subject: Subject) -> None:
        """A cap of nine billion: beyond what fourteen digits, or a float's text, can carry."""
        cap = 2**53 - 1
        await settle(subject, await take(subject, spend(cap - 3, cap=cap)), price=cap - 3)
        one = await take(subject, spend(1, cap=cap))
        assert await used(subject) == ("2026-11-20", cap - 3, 1)
        await refused(subject, spend(3, cap=cap))
        await settle(subject, one, price=1)
        await settle(subject, await take(subject, spend(2, cap=cap)), price=2)
        assert await used(subject) == ("2026-11-20", cap, 0)
        await refused(subject, spend(1, cap=cap))

    async def test_an_absurd_amount_stops_the_budget_and_nothing_else(self, subject: Subject) -> None:
        one, two = await take(subject, spend(1)), await take(subject, spend(1))
        await settle(subject, one, price=10**30)
        await settle(subject, two, price=10**30)
        assert (await refused(subject, spend(0))).code is Code.SPEND_CAP_REACHED
        await take(subject, spend(1, name="other"))

    async def test_budgets_of_neighbours_are_apart(self, subject: Subject) -> None:
        await take(subject, spend(5_000_000))
        await take(subject, spend(5_000_000, name="other"))
        await take(subject, spend(5_000_000, unit="EUR"))
        slashes = SpendClaim(("acme", "a", "b/c"), "w", 1, 1, "USD", 0)
        await take(subject, slashes, SpendClaim(("acme", "a/b", "d"), "w", 1, 1, "USD", 0))


class TestWindows:
    async def test_a_new_window_starts_at_zero(self, subject: Subject) -> None:
        await settle(subject, await take(subject, spend(5_000_000)), price=5_000_000)
        await refused(subject, spend())
        await take(subject, spend(5_000_000, "2026-11-21"))
        assert await used(subject) == ("2026-11-21", 0, 5_000_000)

    async def test_what_is_settled_after_midnight_belongs_to_its_own_day(self, subject: Subject) -> None:
        yesterday = await take(subject, spend(5_000_000))
        await take(subject, spend(1_000_000, "2026-11-21"))
        await settle(subject, yesterday, price=5_000_000)
        assert await used(subject) == ("2026-11-21", 0, 1_000_000)

    async def test_a_clock_set_back_opens_no_second_quota(self, subject: Subject) -> None:
        await settle(subject, await take(subject, spend(5_000_000, "2026-11-20")), price=5_000_000)
        await settle(subject, await take(subject, spend(4_000_000, "2026-11-21")), price=4_000_000)
        await refused(subject, spend(2_000_000, "2026-11-20"))
        late = await take(subject, spend(1_000_000, "2026-11-20"))
        assert [claim.window for claim in late.claims if isinstance(claim, SpendClaim)] == ["2026-11-21"]
        await refused(subject, spend(1, "2026-11-20"))
        await refused(subject, spend(1, "2026-11-21"))

    @pytest.mark.parametrize(("older", "newer"), [("2026-11", "2026-12"), ("2026-11-01T01A", "2026-11-01T01a")])
    async def test_windows_order_as_bytes(self, subject: Subject, older: str, newer: str) -> None:
        await take(subject, spend(1, newer))
        late = await take(subject, spend(1, older))
        assert [claim.window for claim in late.claims if isinstance(claim, SpendClaim)] == [newer]

    async def test_a_refused_reserve_does_not_open_the_new_window(self, subject: Subject) -> None:
        """Neither when the spend claim itself is refused nor when another one of the call is."""
        await settle(subject, await take(subject, spend(5_000_000)), price=5_000_000)
        await refused(subject, spend(6_000_000, "2026-11-21"))
        held = await take(subject, LEASE, LEASE)
        await refused(subject, spend(1_000_000, "2026-11-21"), LEASE)
        assert await used(subject) == ("2026-11-20", 5_000_000, 0)
        await release(subject, held)
        await refused(subject, spend(1))


class TestAllOrNothing:
    async def test_a_refused_reserve_consumes_nothing(self, subject: Subject) -> None:
        """The first claims could be taken; the last cannot."""
        held = [await take(subject, LEASE), await take(subject, LEASE)]
        for _ in range(20):
            assert (await refused(subject, RATE, spend(), ONCE, LEASE)).code is Code.CONCURRENCY_REACHED
        for reserved in held:
            await release(subject, reserved)
        one = await take(subject, RATE, spend(), ONCE, LEASE)
        await release(subject, one)
        for _ in range(2):
            await take(subject, RATE, spend(), LEASE)
        assert await used(subject) == ("2026-11-20", 0, 2_000_000)

    async def test_the_refusal_names_the_first_claim_that_cannot_be_taken(self, subject: Subject) -> None:
        other = LeaseClaim(("acme", "other", "concurrency"), 1)
        await take(subject, other)
        assert (await refused(subject, RATE, LEASE, other, spend(6_000_000))).claim == other
        assert (await refused(subject, RATE, spend(6_000_000), other)).claim == spend(6_000_000)

    @pytest.mark.parametrize(
        "claim",
        [
            spend(-1),
            spend(1, cap=-1),
            spend(1, window=""),
            spend(2**53, cap=2**53 - 1),
            spend(1, cap=2**53),
            LeaseClaim(("acme",), 0),
            LeaseClaim((), 1),
            RateClaim(("acme",), 0, 1, ""),
            RateClaim(("acme",), 1, 0, ""),
            RateClaim(("acme",), 10**15, 10**3, ""),
            OnceClaim(("acme", "k"), ""),
            LeaseClaim(("globex", "agent"), 5),
            "a claim of tomorrow",
        ],
        ids=repr,
    )
    async def test_a_claim_that_makes_no_sense_is_not_granted(self, subject: Subject, claim: Claim) -> None:
        """A negative amount would raise the cap; a cap of zero must not mean none; a call is of one tenant."""
        with pytest.raises(ReservationsUnavailable):
            await subject.store.reserve("c_1", (LEASE, spend(1_000_000), claim))
        assert await subject.held() == 0
        assert await used(subject) is None

    async def test_a_call_without_claims_is_reserved(self, subject: Subject) -> None:
        await release(subject, await take(subject))
        assert await subject.held() == 0

    async def test_hundreds_at_the_last_units(self, subject: Subject) -> None:
        """Ten, fifteen and twenty units are left in three limits; 256 ask at once."""
        claims = (
            RateClaim(("acme", "r"), 10_000_000_000, 20, "20 at once"),
            LeaseClaim(("acme", "c"), 15),
            spend(1_000_000, cap=10_000_000),
        )
        results = await asyncio.gather(*(subject.store.reserve(f"c_{number}", claims) for number in range(256)))
        taken = [result for result in results if isinstance(result, Reserved)]
        assert len(taken) == 10
        assert await used(subject) == ("2026-11-20", 0, 10_000_000)
        for reserved in taken:
            subject.store.settle(reserved, {"price": 1_000_000})
        await subject.settled()
        assert await subject.held() == 0
        assert await used(subject) == ("2026-11-20", 10_000_000, 0)


class TestPauses:
    CLAIM = PauseClaim(("acme", "connection", "stripe"))

    async def test_everybody_waits_until_it_is_over(self, subject: Subject) -> None:
        await take(subject, self.CLAIM)
        subject.store.pause(self.CLAIM.key, 25)
        subject.store.pause(self.CLAIM.key, 10)
        await subject.settled()
        refusal = await refused(subject, self.CLAIM)
        assert (refusal.code, refusal.claim) == (Code.RATE_LIMITED, self.CLAIM)
        assert refusal.retry_after_seconds in (24, 25)
        await take(subject, PauseClaim(("acme", "connection", "github")))
        await subject.pass_seconds(25)
        await take(subject, self.CLAIM)

    async def test_a_negative_wait_is_none(self, subject: Subject) -> None:
        subject.store.pause(self.CLAIM.key, -5)
        await subject.settled()
        await take(subject, self.CLAIM)


class TestOnce:
    async def test_one_attempt_at_a_time(self, subject: Subject) -> None:
        first = await take(subject, ONCE)
        refusal = await refused(subject, ONCE)
        assert (refusal.code, refusal.retry_after_seconds) == (Code.IDEMPOTENCY_IN_FLIGHT, 1)
        await settle(subject, first)
        await take(subject, ONCE)

    async def test_another_request_under_the_key_is_refused_for_good(self, subject: Subject) -> None:
        other = OnceClaim(ONCE.key, "digest-2")
        first = await take(subject, ONCE)
        assert (await refused(subject, other)).code is Code.IDEMPOTENCY_CONFLICT
        await settle(subject, first)
        refusal = await refused(subject, other)
        assert (refusal.code, refusal.retry_after_seconds) == (Code.IDEMPOTENCY_CONFLICT, None)

    async def test_a_call_is_charged_once_over_all_its_attempts(self, subject: Subject) -> None:
        """Also at a cap that is reached, wherever the claim stands, and when an attempt says that it cost something."""
        await settle(subject, await take(subject, spend(5_000_000), ONCE), price=5_000_000)
        again = await take(subject, spend(5_000_000), ONCE)
        assert [claim.amount_micros for claim in again.claims if isinstance(claim, SpendClaim)] == [0]
        await settle(subject, again, price=5_000_000)
        await release(subject, await take(subject, ONCE, spend(5_000_000)))
        await settle(subject, await take(subject, ONCE, spend(5_000_000)))
        assert await used(subject) == ("2026-11-20", 5_000_000, 0)
        await refused(subject, spend(1))

    async def test_an_attempt_in_flight_after_a_paid_one_is_what_refuses_the_next(self, subject: Subject) -> None:
        """And not a cap: the next one would cost nothing either."""
        await settle(subject, await take(subject, spend(5_000_000), ONCE), price=5_000_000)
        await take(subject, ONCE, spend(5_000_000))
        assert (await refused(subject, spend(5_000_000), ONCE)).code is Code.IDEMPOTENCY_IN_FLIGHT

    async def test_an_attempt_that_cost_less_is_followed_by_one_at_its_whole_amount(self, subject: Subject) -> None:
        tokens = spend(3_000_000, unit="tokens", meter="tokens")
        await settle(subject, await take(subject, ONCE, spend(2_000_000), tokens), price=2_000_000, tokens=0)
        again = await take(subject, ONCE, spend(2_000_000), tokens)
        assert again.claims == (ONCE, spend(2_000_000), tokens)

    async def test_an_attempt_that_the_service_refused_pays_for_no_other(self, subject: Subject) -> None:
        """Though it was charged whole itself; one after a paid one leaves it paid."""
        for _ in range(2):
            reserved = await take(subject, ONCE, spend())
            assert [claim.amount_micros for claim in reserved.claims if isinstance(claim, SpendClaim)] != [0]
            subject.store.settle(reserved, {}, refused=True)
            await subject.settled()
        await settle(subject, await take(subject, ONCE, spend()))
        for refused_again in (True, False):
            paid = await take(subject, ONCE, spend())
            assert [claim.amount_micros for claim in paid.claims if isinstance(claim, SpendClaim)] == [0]
            subject.store.settle(paid, {}, refused=refused_again)
            await subject.settled()

    async def test_a_released_attempt_changes_nothing(self, subject: Subject) -> None:
        await release(subject, await take(subject, ONCE, spend()))
        await release(subject, await take(subject, OnceClaim(ONCE.key, "digest-2"), spend()))
        await settle(subject, await take(subject, ONCE, spend()), price=1_000_000)
        assert await used(subject) == ("2026-11-20", 1_000_000, 0)

    async def test_the_key_is_forgotten_a_day_after_its_last_attempt(self, subject: Subject) -> None:
        await settle(subject, await take(subject, ONCE, spend()))
        await subject.pass_seconds(60_000)
        await settle(subject, await take(subject, ONCE, spend()))
        await subject.pass_seconds(60_000)
        await refused(subject, OnceClaim(ONCE.key, "digest-2"))
        await subject.pass_seconds(30_000)
        await take(subject, OnceClaim(ONCE.key, "digest-2"))

    async def test_the_same_key_twice_in_a_call_is_refused(self, subject: Subject) -> None:
        await refused(subject, ONCE, ONCE)
        await take(subject, ONCE)

    async def test_keys_are_apart(self, subject: Subject) -> None:
        await take(subject, ONCE)
        await take(subject, OnceClaim(("acme", "other", "stripe", "k1"), "digest-2"))


class TestLostCalls:
    async def test_what_its_owner_lost_is_ended_and_counts_at_its_maximum(self, subject: Subject) -> None:
        await take(subject, LEASE, spend(2_000_000), ONCE, call="c_lost")
        alive = await take(subject, LEASE, spend(1_000_000), call="c_alive")
        await refused(subject, LEASE)
        await subject.lose({"c_lost"})
        await take(subject, LEASE)
        await refused(subject, LEASE)
        assert await used(subject) == ("2026-11-20", 2_000_000, 1_000_000)
        assert (await take(subject, ONCE, spend(5_000_000))).claims == (ONCE, spend(0))
        await settle(subject, alive, price=1_000_000)
        assert await used(subject) == ("2026-11-20", 3_000_000, 0)


class TestHolders:
    async def test_who_holds_a_slot_is_visible(self, subject: Subject) -> None:
        await take(subject, RATE, spend(1), call="c_without")
        one = await take(subject, LEASE, LEASE, call="c_one")
        (holder,) = await subject.store.holders("acme")  # type: ignore[attr-defined]
        assert (holder.call, holder.leases) == ("c_one", ("acme/agent/concurrency", "acme/agent/concurrency"))
        assert holder.worker
        assert abs(holder.since - subject.wall) < 60
        assert await subject.store.holders("globex") == ()  # type: ignore[attr-defined]
        await release(subject, one)
        assert await subject.store.holders("acme") == ()  # type: ignore[attr-defined]
