"""The generic cell rate algorithm in whole microseconds.

ITU-T I.371 (03/2004), Annex A, figure A.1, the virtual scheduling algorithm. Its words and ours:

    T    increment, the time between two conforming cells     `interval_us`
    tau  limit, how early a cell may come                     `(burst - 1) * interval_us`
    TAT  theoretical arrival time of the next cell            `tat_us`
    ta   arrival time                                         `now_us`

One integer is the whole state of a bucket, so it cannot leak, needs no refill task and survives a restart as it is.
"""

from dataclasses import dataclass

from rules.swift import swift


@swift
@dataclass(frozen=True, slots=True)
class Conforms:
    """The call is within its rate; the caller must store `tat_us` in place of the old one."""

    tat_us: int


@dataclass(frozen=True, slots=True)
class Exceeds:
    """The call is too early and nothing changes; it conforms `retry_after_us` later, if no other is taken before."""

    retry_after_us: int


def gcra(tat_us: int, now_us: int, interval_us: int, burst: int) -> Conforms | Exceeds:
    """Whether one call arriving at `now_us` conforms to `burst` at once, then one each `interval_us`.

    `tat_us` is what the last conforming call returned, on the same clock as `now_us`; 0, or any time in the past, is a
    bucket that was never used. The clock is the caller's choice; it should be one that does not step.

    Raises ValueError when `interval_us` or `burst` is below 1: a limit that means nothing must not be taken for none.
    """
    if interval_us < 1 or burst < 1:
        raise ValueError("a rate needs an interval of at least 1 us and a burst of at least 1")
    earliest_us = tat_us - (burst - 1) * interval_us
    if now_us < earliest_us:  # "ta < TAT - tau: non-conforming"
        return Exceeds(earliest_us - now_us)
    return Conforms(max(now_us, tat_us) + interval_us)  # "TAT = max(ta, TAT) + T"


def interval_us(count: int, period_us: int) -> int:
    """The time between two calls at `count` per `period_us`, rounded up: rounding never grants more than is written."""
    if count < 1 or period_us < 1:
        raise ValueError("a rate needs a count and a period of at least 1")
    return -(-period_us // count)
