"""GCRA against its definition and against a plain count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.limits.gcra import Conforms, Exceeds, gcra, interval_us

SECOND = 1_000_000


def run(arrivals: list[int], interval: int, burst: int) -> list[int]:
    """The arrivals that conformed."""
    tat, passed = 0, []
    for now in arrivals:
        match gcra(tat, now, interval, burst):
            case Conforms(tat_us):
                tat = tat_us
                passed.append(now)
            case Exceeds():
                pass
    return passed


def test_a_burst_passes_at_once_and_the_next_call_waits_one_interval() -> None:
    start = 5 * SECOND
    assert run([start] * 5, SECOND, 3) == [start] * 3
    tat = start + 3 * SECOND
    assert gcra(tat, start, SECOND, 3) == Exceeds(SECOND)
    assert gcra(tat, start + SECOND - 1, SECOND, 3) == Exceeds(1)
    assert gcra(tat, start + SECOND, SECOND, 3) == Conforms(tat + SECOND)


def test_an_unused_bucket_does_not_save_up_more_than_its_burst() -> None:
    assert run([0, *[10**12] * 10], SECOND, 2) == [0, 10**12, 10**12]


@pytest.mark.parametrize(("interval", "burst"), [(0, 1), (-1, 1), (1, 0), (1, -3)])
def test_a_rate_that_means_nothing_is_refused(interval: int, burst: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        gcra(0, 0, interval, burst)


@given(
    st.lists(st.integers(0, 50), max_size=60),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_no_span_of_time_ever_holds_more_than_the_burst_and_one_call_an_interval(
    gaps: list[int], interval: int, burst: int
) -> None:
    arrivals, now = [], 0
    for gap in gaps:
        now += gap
        arrivals.append(now)
    passed = run(arrivals, interval, burst)
    for i, first in enumerate(passed):
        for j in range(i, len(passed)):
            assert j - i + 1 <= burst + (passed[j] - first) // interval


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 1000), st.integers(1, 50))
def test_the_told_wait_is_exact(tat: int, now: int, interval: int, burst: int) -> None:
    match gcra(tat, now, interval, burst):
        case Exceeds(wait):
            assert wait > 0
            assert isinstance(gcra(tat, now + wait, interval, burst), Conforms)
            assert isinstance(gcra(tat, now + wait - 1, interval, burst), Exceeds)
        case Conforms(new):
            assert new >= now + interval


@given(st.integers(1, 10**7), st.integers(1, 10**11))
def test_rounding_an_interval_never_grants_more_than_was_written(count: int, period: int) -> None:
    assert interval_us(count, period) * count >= period
    assert (interval_us(count, period) - 1) * count < period


@pytest.mark.parametrize(("count", "period"), [(0, 1), (1, 0)])
def test_a_rate_of_nothing_has_no_interval(count: int, period: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        interval_us(count, period)
