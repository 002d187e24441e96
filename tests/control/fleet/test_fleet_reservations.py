"""A worker's limits: only what control's word says is in force is used, and the word must still hold at the answer."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from control.fleet.claim_frames import claims_body
from control.fleet.frames import Message
from control.fleet.limits_line import LimitsLine
from control.fleet.reservations import FleetReservations
from control.stores.limits import EmbeddedReservations
from rules.claims import Claim, LeaseClaim, Refused, ReservationsUnavailable, Reserved, SpendClaim, Ticket

pytestmark = pytest.mark.anyio

SLOT = LeaseClaim(("acme", "a", "concurrency"), 1)
SPEND = SpendClaim(("acme", "a", "USD", "day"), "2026-11-26", 10_000_000, 1_000_000, "USD", 4_000_000_000)
CLAIMS: tuple[Claim, ...] = (SPEND, SLOT)


class Shared(EmbeddedReservations):
    """In place of the shared store."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def reserve(self, call: str, claims: tuple[Claim, ...]) -> Reserved | Refused:
        answer = await super().reserve(call, claims)
        self.meanwhile()
        return answer

    def adopt(self, reserved: Reserved) -> None:
        self.adopted.append(reserved.id)


class Control:
    """The other end of the line."""

    def __init__(self) -> None:
        self.shared = Shared()
        self.line = LimitsLine()
        self.said: list[Message] = []
        self.answers: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None
        self.counted = FleetReservations(self.shared, self.line)  # type: ignore[arg-type]
        self.line.connected(self._take)

    def _take(self, message: Message) -> None:
        self.said.append(message)
        if message.kind == "reserve":
            body = json.loads(json.dumps(message.body))
            if (answer := self.answers(body)) is not None:
                self.line.answered({"name": body["name"], **answer})

    def says(self, seconds: float = 60.0, **away: int | None) -> None:
        self.line.heard(time.monotonic() + seconds, away)

    def grants(self) -> None:
        self.answers = lambda body: {"claims": body["claims"]}

    def ends(self) -> list[tuple[str, str, dict[str, int]]]:
        return [(m.body["name"], m.body["how"], m.body["amounts"]) for m in self.said if m.kind == "end"]


@pytest.fixture
async def control() -> Control:
    return Control()


async def refused(control: Control, match: str) -> None:
    with pytest.raises(ReservationsUnavailable, match=match):
        await control.counted.reserve("c_1", CLAIMS)


async def test_without_a_word_that_holds_nothing_is_used(control: Control) -> None:
    await refused(control, "does not say")
    control.says(-0.001)
    await refused(control, "does not say")
    control.says(-0.001, acme=7)
    await refused(control, "nobody grants")
    assert control.shared.held == 0


async def test_what_the_shared_store_granted_is_given_back_if_the_word_changed_meanwhile(control: Control) -> None:
    control.says()
    control.shared.meanwhile = lambda: control.says(acme=None)
    await refused(control, "not in force any more")
    control.shared.meanwhile = lambda: None
    assert control.shared.held == 0
    await refused(control, "nobody grants")


async def test_what_control_grants_is_held_and_ended_there(control: Control) -> None:
    control.says(acme=7)
    control.grants()
    got = await control.counted.reserve("c_1", CLAIMS)
    assert isinstance(got, Reserved)
    assert got.claims == CLAIMS
    assert control.shared.held == 0
    control.counted.settle(got, {"price": 250_000})
    control.counted.settle(got, {"price": 1})
    await asyncio.sleep(0.01)
    assert control.ends() == [(got.id, "settle", {"price": 250_000})]


async def test_an_answer_to_an_epoch_that_is_over_is_not_used_and_what_it_took_is_given_back(control: Control) -> None:
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        control.says(acme=8)
        return {"claims": body["claims"]}

    control.says(acme=7)
    control.answers = answer
    await refused(control, "not in force any more")
    await asyncio.sleep(0.01)
    assert [how for _, how, _ in control.ends()] == ["release"]


@pytest.mark.parametrize(
    "answer", [None, {}, {"claims": None}, {"claims": [["lease"]]}, {"refused": []}, {"refused": [9, "x", "", 1]}]
)
async def test_no_answer_or_none_that_can_be_read_denies(control: Control, answer: dict[str, Any] | None) -> None:
    control.says(acme=7)
    control.answers = lambda _: answer
    await refused(control, "control")
    await asyncio.sleep(0.01)
    assert [how for _, how, _ in control.ends()] == ["release"]


async def test_a_refusal_is_of_the_claim_that_was_asked_for(control: Control) -> None:
    control.says(acme=7)
    control.answers = lambda _: {"refused": [1, "concurrency_reached", "1 call is in flight", 1]}
    got = await control.counted.reserve("c_1", CLAIMS)
    assert isinstance(got, Refused)
    assert (got.claim, got.code.value, got.retry_after_seconds) == (SLOT, "concurrency_reached", 1)


async def test_when_the_share_ends_its_calls_are_the_shared_stores(control: Control) -> None:
    control.says(acme=7)
    control.grants()
    got = await control.counted.reserve("c_1", CLAIMS)
    assert isinstance(got, Reserved)
    control.says(acme=None)
    await asyncio.sleep(0.01)
    assert control.shared.adopted == [got.id]


async def test_a_report_has_what_is_in_flight_with_who_granted_it(control: Control) -> None:
    control.says()
    first = await control.counted.reserve("c_1", CLAIMS)
    control.says(acme=7)
    control.grants()
    second = await control.counted.reserve("c_2", CLAIMS)
    assert isinstance(first, Reserved)
    assert isinstance(second, Reserved)
    control.line.report()
    assert control.said[-1].body == {
        "calls": [[first.id, False, claims_body(CLAIMS)], [second.id, True, claims_body(CLAIMS)]],
        "asking": [],
    }
    control.counted.settle(first, {})
    await asyncio.sleep(0.01)
    assert control.ends() == [(first.id, "settle", {})]
    assert control.shared.held == 0


async def test_a_report_names_what_control_may_have_granted_before_its_answer_is_here(control: Control) -> None:
    """Else control would take the call for ended, and grant its slot to another."""
    control.says(acme=7)
    asking = asyncio.create_task(control.counted.reserve("c_1", CLAIMS))
    await asyncio.sleep(0.01)
    (asked,) = [json.loads(json.dumps(message.body)) for message in control.said if message.kind == "reserve"]
    control.line.report()
    assert control.said[-1].body == {"calls": [], "asking": [asked["name"]]}
    control.line.answered({"name": asked["name"], "claims": asked["claims"]})
    got = await asking
    assert isinstance(got, Reserved)
    control.line.report()
    assert control.said[-1].body == {"calls": [[got.id, True, claims_body(CLAIMS)]], "asking": []}


async def test_nobody_waits_for_a_slot_while_control_grants(control: Control) -> None:
    control.says(acme=7)
    control.answers = lambda _: {"refused": [1, "concurrency_reached", "1 call is in flight", 1]}
    assert isinstance(await control.counted.reserve_or_wait("c_1", CLAIMS, Ticket("a")), Refused)


async def test_a_line_that_is_lost_answers_those_who_wait(control: Control) -> None:
    control.says(acme=7)
    control.line.lost()
    await refused(control, "cannot be asked")
    assert not math.isfinite(LimitsLine().word.until)
