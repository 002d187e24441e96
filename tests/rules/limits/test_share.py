"""A share is never more than its limit, and together with what was used never beyond it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.claims import LeaseClaim, RateClaim, SpendClaim
from rules.limits.gcra import Conforms, gcra
from rules.limits.share import NoShare, lease_share, rate_share, spend_share, told_by_records

PERCENT = st.integers(1, 100)
AMOUNT = st.integers(0, 10**15)


@given(most=AMOUNT, used=AMOUNT, percent=PERCENT)
def test_an_amount_is_the_share_of_what_is_left(most: int, used: int, percent: int) -> None:
    claim = SpendClaim(("acme", "a", "USD", "day"), "2026-11-26", most, 1, "USD", 0)
    cut = spend_share(claim, percent, used)
    assert cut.max_micros <= most
    assert max(0, cut.max_micros - used) <= max(0, most - used) * percent // 100
    assert (cut.key, cut.window, cut.amount_micros) == (claim.key, claim.window, claim.amount_micros)


@given(most=st.integers(1, 10_000), percent=PERCENT)
def test_slots_are_rounded_down_and_none_is_refused(most: int, percent: int) -> None:
    claim = LeaseClaim(("acme", "a", "concurrency"), most)
    if most * percent < 100:
        with pytest.raises(NoShare, match=f"{percent}% of {most}"):
            lease_share(claim, percent)
    else:
        assert 1 <= lease_share(claim, percent).max <= most * percent / 100


@given(interval=st.integers(1, 10**9), burst=st.integers(1, 50), percent=PERCENT)
def test_a_rate_of_a_share_passes_no_more_than_the_share(interval: int, burst: int, percent: int) -> None:
    cut = rate_share(RateClaim(("acme", "a", "rate", "saas", "second"), interval, burst, "n per second"), percent)
    tat = passed = 0
    span = 10 * interval
    for now in range(0, span + 1, max(1, span // 200)):
        while isinstance(verdict := gcra(tat, now, cut.interval_us, cut.burst), Conforms):
            tat, passed = verdict.tat_us, passed + 1
            assert passed <= 1_000
    assert passed <= max(1, burst * percent // 100) + span * percent / (100 * interval)
    assert cut.key != ("acme", "a", "rate", "saas", "second")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (("acme", "a", "rate", "saas", "second"), True),
        (("acme", "a", "rate", "saas", "second", "run=r_1&workflow=w"), True),
        (("acme", "a", "rate", "saas", "second", "object=~1"), False),
        (("acme", "a", "rate", "saas:stripe.refund.create", "second"), False),
    ],
)
def test_what_records_do_not_say_begins_used_up(key: tuple[str, ...], told: bool) -> None:
    assert told_by_records(RateClaim(key, 1, 1, "1 per second")) is told
