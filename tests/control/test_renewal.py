"""A run's credential is renewed at half of its life, through outages, until the issuer says no."""

import pytest

from control.operations import Refused, TokenIssued, Unavailable
from control.renewal import LONGEST_RETRY_SECONDS, keep_renewed
from credentials.secret import Secret

pytestmark = pytest.mark.anyio


def issued(at: int, n: int) -> TokenIssued:
    return TokenIssued(Secret(f"t{n}"), "acme", "agent", "w", "r_1", f"k_{n}", 0, at, at + 100)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def run(answers: list[object]) -> tuple[Clock, list[str], list[str], str]:
    clock, replaced, said = Clock(), [], []
    renewals = iter(answers)

    async def renew(held: TokenIssued) -> TokenIssued:
        answer = next(renewals)
        if isinstance(answer, Exception):
            raise answer
        return issued(int(clock.now), int(str(answer)))

    ended = await keep_renewed(
        issued(1000, 0),
        renew,
        lambda t: replaced.append(t.credential),
        said.append,
        now=lambda: clock.now,
        sleep=clock.sleep,
    )
    return clock, replaced, said, ended.reason


async def test_each_credential_is_replaced_at_half_of_its_life_until_revoked() -> None:
    clock, replaced, said, reason = await run([1, 2, Refused("revoked")])
    assert clock.slept == [50.0, 50.0, 50.0]
    assert replaced == ["k_1", "k_2"]
    assert (said, reason) == ([], "revoked")


async def test_an_outage_is_told_once_and_tried_again_with_growing_bounded_pauses() -> None:
    clock, replaced, said, _ = await run([Unavailable("down")] * 12 + [1, Refused("revoked")])
    pauses = clock.slept[1:13]
    assert all(0 < pause <= LONGEST_RETRY_SECONDS * 1.5 for pause in pauses)
    assert pauses[-1] > pauses[0]
    assert replaced == ["k_1"]
    assert len(said) == 2
    assert "down" in said[0]
    assert "again" in said[1]
