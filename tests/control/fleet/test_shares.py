"""Who grants a tenant's calls at each moment, step by step; one place at a time, and none without the ledger's word."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.fleet.claim_frames import claims_body
from control.fleet.frames import FrameInvalid
from control.fleet.shared_limits import SharedCounters
from control.fleet.shares import MARKER, Shares
from control.state import StateUnavailable
from control.stores.counted import Budget
from rules.claims import Claim, LeaseClaim, RateClaim, ReservationsUnavailable, Reserved, SpendClaim
from rules.codes import Code

pytestmark = pytest.mark.anyio

WAIT = 0.05
SPEND = SpendClaim(("acme", "a", "USD", "day"), "2026-11-26", 10_000_000, 1_000_000, "USD", 4_000_000_000)


@dataclass
class World:
    """What `Shares` is told by the state, the shared store and the workers."""

    directory: Path
    percent: int | None = 50
    state_of_link: str = "closed"
    acts: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    in_flight: list[str] = field(default_factory=list)
    used: int = 2_000_000
    there: set[str] = field(default_factory=lambda: {"w0", "w1"})
    reports: bool = True
    shares: Any = None

    @property
    def policy(self) -> Any:
        one = SimpleNamespace(tenant="acme", share_percent=self.percent)
        return SimpleNamespace(tenants={"acme": one})

    def record_act(self, _: object, act: str, detail: dict[str, str]) -> None:
        self.acts.append((act, detail))

    @property
    def store(self) -> Any:
        return SimpleNamespace(health=lambda: SimpleNamespace(state=self.state_of_link))

    async def counted(self, tenant: str) -> Any:
        return [(f"{tenant}/a/USD/day", Budget("2026-11-26", spent=self.used, resets_at=4_000_000_000))], []

    async def load_anew(self, tenant: str, tats: object, in_flight: list[Reserved]) -> None:
        self.in_flight = [one.id for one in in_flight]
        self.loaded.append(tenant)

    def connected(self) -> set[str]:
        return set(self.there)

    def want_reports(self) -> None:
        if self.reports:
            for worker in self.there:
                self.shares.holds(worker, {"calls": [], "asking": []})

    def begin(self) -> Shares:
        self.shares = Shares(self, self, self, wait_seconds=WAIT)  # type: ignore[arg-type]
        return self.shares  # type: ignore[no-any-return]

    @property
    def word(self) -> dict[str, int | None]:
        return dict(self.shares.word)

    async def look(self, *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        await self.shares.look()

    async def until_local(self) -> int:
        self.state_of_link = "open"
        await self.look()
        assert self.word == {"acme": None}
        await self.look(after=WAIT)
        epoch = self.word["acme"]
        assert epoch is not None
        return epoch

    def ask(self, epoch: int, name: str = "c_1#a", **more: Any) -> dict[str, Any]:
        body = {"name": name, "tenant": "acme", "epoch": epoch, "claims": claims_body((SPEND,))} | more
        return self.shares.reserve("w0", json.loads(json.dumps(body)))  # type: ignore[no-any-return]


def sent(claim: Claim) -> Any:
    """As it arrives."""
    return json.loads(json.dumps(claims_body((claim,))))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_short_loss_changes_nothing_but_that_nobody_grants_meanwhile(world: World) -> None:
    world.begin()
    world.state_of_link = "open"
    await world.look()
    assert world.word == {"acme": None}
    world.state_of_link = "closed"
    await world.look(after=WAIT)
    assert world.word == {}
    assert not world.loaded
    assert not world.acts


async def test_a_share_of_what_is_left_is_granted_and_the_store_is_loaded_before_it_is_believed(world: World) -> None:
    world.begin()
    epoch = await world.until_local()
    assert (world.directory / MARKER).exists()
    assert world.acts == [("limits.local", {"tenant": "acme", "share": "50%"})]
    answers = [world.ask(epoch, f"c_{number}#a") for number in range(6)]
    assert ["claims" in answer for answer in answers] == [True] * 4 + [False] * 2  # half of the 8 that were left
    assert answers[4]["refused"][:2] == [0, Code.SPEND_CAP_REACHED.value]
    world.state_of_link = "closed"
    await world.look()
    assert world.word == {"acme": None}
    assert "unavailable" in world.ask(epoch)
    assert not world.loaded
    await world.look(after=WAIT)
    assert world.loaded == ["acme"]
    assert world.word == {}
    assert not (world.directory / MARKER).exists()


async def test_while_nobody_grants_it_is_said_also_of_a_store_that_is_back(world: World) -> None:
    shares = world.begin()
    assert (shares.degraded(), shares.why_not()) == (None, None)
    await world.until_local()
    assert (shares.degraded(), shares.why_not()) == (None, None)
    world.state_of_link = "closed"
    await world.look()
    assert shares.degraded() is not None
    assert "acme" in (shares.why_not() or "")
    await world.look(after=WAIT)
    assert (shares.degraded(), shares.why_not()) == (None, None)


async def test_what_is_used_is_asked_of_who_grants(world: World) -> None:
    """And of nobody while nobody does: what a store that is back has may be of before."""
    shares = world.begin()
    counters = SharedCounters(None, asyncio.get_running_loop())  # type: ignore[arg-type] # no store is to be asked
    counters.instead = shares.counting
    assert shares.counting("acme") is None
    epoch = await world.until_local()
    slot = LeaseClaim(("acme", "a", "concurrency"), 2)
    assert "claims" in world.ask(epoch, claims=json.loads(json.dumps(claims_body((SPEND, slot)))))
    (budget,) = counters.budgets("acme")
    assert (budget.key, budget.spent_micros, budget.reserved_micros) == ("acme/a/USD/day", 2_000_000, 1_000_000)
    assert [(one.call, one.worker, one.leases) for one in counters.holders("acme")] == [
        ("c_1", "w0", ("acme/a/concurrency",))
    ]
    assert counters.waiting("acme", ["acme/a/concurrency"]) == {}
    world.state_of_link = "closed"
    await world.look()
    with pytest.raises(ReservationsUnavailable, match="nobody grants"):
        counters.budgets("acme")


async def test_a_store_that_flaps_is_never_believed_before_it_was_loaded(world: World) -> None:
    world.begin()
    epoch = await world.until_local()
    assert "claims" in world.ask(epoch)
    for _ in range(3):
        for link in ("closed", "open"):
            world.state_of_link = link
            await world.look()
            assert world.word == {"acme": None}
    world.state_of_link = "closed"
    await world.look()
    await world.look(after=WAIT)
    assert (world.loaded, world.word) == (["acme"], {})


async def test_an_epoch_of_before_grants_nothing(world: World) -> None:
    world.begin()
    first = await world.until_local()
    world.state_of_link = "closed"
    await world.look()
    world.state_of_link = "open"
    await world.look()
    await world.look(after=WAIT)
    assert world.word["acme"] not in (None, first)
    assert "unavailable" in world.ask(first)


async def test_nothing_is_granted_before_every_worker_says_what_it_has_in_flight(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.fleet.shares.REPORT_SECONDS", 0.05)
    world.begin()
    world.reports = False
    world.state_of_link = "open"
    await world.look()
    await world.look(after=WAIT)
    assert world.word == {"acme": None}
    world.reports = True
    await world.look()
    assert world.word["acme"] is not None


async def test_slots_of_calls_from_before_count_and_come_free(world: World) -> None:
    world.begin()
    slot = LeaseClaim(("acme", "a", "concurrency"), 2)
    world.want_reports = lambda: [  # type: ignore[method-assign]
        world.shares.holds(worker, {"calls": [["c_0#x", False, sent(slot)]] if worker == "w0" else [], "asking": []})
        for worker in world.there
    ]
    epoch = await world.until_local()
    asked = {"claims": sent(slot)}
    assert world.ask(epoch, **asked)["refused"][1] == Code.CONCURRENCY_REACHED.value
    world.shares.end({"name": "c_0#x", "how": "settle", "amounts": {}})
    assert "claims" in world.ask(epoch, "c_2#a", **asked)


async def test_a_report_from_before_the_answer_ends_no_call_that_was_granted(world: World) -> None:
    """Another tenant's share begins, so every worker says what it has in flight; one has a grant on its way."""
    world.begin()
    slot = sent(LeaseClaim(("acme", "a", "concurrency"), 2))
    epoch = await world.until_local()
    assert "claims" in world.ask(epoch, "c_1#a", claims=slot)
    world.shares.holds("w0", {"calls": [], "asking": ["c_1#a"]})
    assert world.ask(epoch, "c_2#a", claims=slot)["refused"][1] == Code.CONCURRENCY_REACHED.value
    world.shares.holds("w0", {"calls": [], "asking": []})
    assert "claims" in world.ask(epoch, "c_3#a", claims=slot)


async def test_the_store_is_told_of_slots_in_flight_when_it_comes_back_also_after_it_flapped(world: World) -> None:
    world.begin()
    slot = sent(LeaseClaim(("acme", "a", "concurrency"), 4))
    epoch = await world.until_local()
    assert "claims" in world.ask(epoch, "c_1#a", claims=slot)
    assert "claims" in world.ask(epoch, "c_2#a", claims=slot)
    for link in ("closed", "open", "closed"):
        world.state_of_link = link
        await world.look()
    world.shares.end({"name": "c_1#a", "how": "settle", "amounts": {}})
    await world.look(after=WAIT)
    assert (world.loaded, world.in_flight) == (["acme"], ["c_2#a"])


async def test_a_control_that_follows_one_learns_of_slots_from_workers(world: World) -> None:
    (world.directory / MARKER).write_text('["acme"]')
    world.begin()
    slot = sent(LeaseClaim(("acme", "a", "concurrency"), 4))
    world.shares.holds("w0", {"calls": [["c_1#a", True, slot]], "asking": []})
    await world.look(after=WAIT)
    assert (world.loaded, world.in_flight) == (["acme"], ["c_1#a"])


async def test_a_bucket_that_records_do_not_tell_of_outlives_a_second_loss(world: World) -> None:
    told: list[object] = []

    async def load_anew(tenant: str, tats: object, in_flight: list[Reserved]) -> None:
        told.append(tats)

    world.load_anew = load_anew  # type: ignore[method-assign]
    world.begin()
    rate = RateClaim(("acme", "a", "rate", "object:x"), 60_000_000, 4, "4 per minute")
    epoch = await world.until_local()
    assert "refused" in world.ask(epoch, "c_1#a", claims=sent(rate))
    for link in ("closed", "open"):
        world.state_of_link = link
        await world.look()
    await world.look(after=WAIT)
    assert world.word["acme"] is not None
    world.state_of_link = "closed"
    await world.look()
    await world.look(after=WAIT)
    ((bucket,),) = told  # type: ignore[misc]
    assert bucket[0] == rate.key


async def test_a_control_that_follows_one_that_granted_believes_nothing_the_store_has(world: World) -> None:
    (world.directory / MARKER).write_text('["acme"]')
    world.begin()
    assert world.word == {"acme": None}
    await world.look(after=WAIT)
    assert (world.loaded, world.word) == (["acme"], {})


async def test_a_marker_that_cannot_be_read_means_everybody(world: World) -> None:
    (world.directory / MARKER).write_text("{")
    world.begin()
    assert world.word == {"acme": None}
    await world.look(after=WAIT)
    assert (world.loaded, world.word) == (["acme"], {})


async def test_a_marker_that_cannot_be_written_grants_nothing_and_records_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    shares = world.begin()
    monkeypatch.setattr(shares, "_mark", full)
    world.state_of_link = "open"
    await world.look()
    await asyncio.sleep(WAIT)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            await world.look()
    assert (world.word, world.acts) == ({"acme": None}, [])
    monkeypatch.undo()
    await world.look()
    assert world.word["acme"] is not None
    assert len(world.acts) == 1


async def test_a_share_that_cannot_be_recorded_is_not_granted_and_leaves_no_marker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halted(*_: object) -> None:
        raise StateUnavailable("the ledger has halted")

    world.begin()
    monkeypatch.setattr(world, "record_act", halted)
    world.state_of_link = "open"
    await world.look()
    await asyncio.sleep(WAIT)
    with pytest.raises(StateUnavailable):
        await world.look()
    assert world.word == {"acme": None}
    world.state_of_link = "closed"
    await world.look()
    await world.look(after=WAIT)
    assert (world.word, (world.directory / MARKER).exists()) == ({}, False)


async def test_without_the_choice_it_is_closed_and_a_choice_withdrawn_ends_the_share(world: World) -> None:
    world.percent = None
    world.begin()
    world.state_of_link = "open"
    await world.look()
    assert world.word == {}  # workers meet the store that does not answer
    world.percent = 50
    epoch = await world.until_local()
    world.percent = None
    await world.look()
    assert world.word == {"acme": None}
    assert "unavailable" in world.ask(epoch)


async def test_claims_of_another_tenant_are_refused(world: World) -> None:
    world.begin()
    epoch = await world.until_local()
    with pytest.raises(FrameInvalid):
        world.ask(epoch, tenant="other")
