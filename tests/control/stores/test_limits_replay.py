"""Limits over a restart: never less than what was spent, and exact where nothing was in flight."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.stores.limits import EmbeddedReservations
from control.stores.limits_replay import LimitsSnapshot, Replay, SnapshotRefused
from rules.claims import Claim, RateClaim, Refused, Reserved, SpendClaim
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy

CAP = 1_000_000
KEY = ("acme", "agent", "USD", "day")
START = 1_795_176_000.0  # 2026-11-20T12:00:00Z

POLICY = b"""\
exeat: 1
tenant: acme
connections:
  tickets: {host: acme.zendesk.com, price: 1 USD}
  models: {host: api.openai.com}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: p@acme.example, risk: r@acme.example}
    stage: autonomous
    limits:
      rate: [{connection: tickets, max: 1, per: minute, burst: 3}]
      spend: [{meter: price, max: 5 USD, per: day}]
    rules:
      - {id: read, allow: {connection: tickets, methods: [GET], path: /**}}
"""


@pytest.fixture(scope="module")
def policy() -> PolicySet:
    return compile_policy(parse_policy({"acme.yaml": POLICY}))


class Clock:
    def __init__(self) -> None:
        self.wall = START
        self.mono_us = 5_000_000


def store(clock: Clock) -> EmbeddedReservations:
    return EmbeddedReservations(monotonic_us=lambda: clock.mono_us, wall_seconds=lambda: clock.wall)


def intent(
    call: str, micros: int, window: str = "2026-11-20", attempt: int = 1, ts: str = "12:00:00"
) -> dict[str, Any]:
    return {
        "type": "call.intent",
        "tenant": "acme",
        "ts": f"2026-11-20T{ts}.000000Z",
        "call": call,
        "attempt": attempt,
        "agent": {"id": "agent"},
        "op": {"connector": "tickets"},
        "cost": {"micro": micros, "cur": "USD", "budget": ["/".join((*KEY, window))]},
    }


def outcome(call: str, micros: int, attempt: int = 1) -> dict[str, Any]:
    cost = {"micro": micros, "cur": "USD", "budget": []}
    return {"type": "call.outcome", "tenant": "acme", "call": call, "attempt": attempt, "cost": cost}


def restarted(
    records: list[dict[str, Any]],
    *,
    snapshot: LimitsSnapshot | None = None,
    policy: PolicySet | None = None,
    clock: Clock | None = None,
) -> EmbeddedReservations:
    replay = Replay(policy)
    if snapshot is not None:
        replay.start(snapshot)
    for record in records[snapshot.size if snapshot is not None else 0 :]:
        replay.feed(record)
    fresh = store(clock or Clock())
    replay.finish(fresh)
    return fresh


def spent(subject: EmbeddedReservations) -> tuple[str, int, int] | None:
    for use in subject.budgets():
        return use.window, use.spent_micros, use.reserved_micros
    return None


def take(subject: EmbeddedReservations, *claims: Claim, call: str = "c") -> Reserved:
    result = subject.reserve_now(call, claims)
    assert isinstance(result, Reserved), result
    return result


def claim(amount: int, window: str = "2026-11-20") -> SpendClaim:
    return SpendClaim(KEY, window, CAP, amount, "USD", 0)


class TestFromRecordsAlone:
    def test_an_outcome_corrects_its_intent(self) -> None:
        assert spent(restarted([intent("a", 10), outcome("a", 4)])) == ("2026-11-20", 4, 0)

    def test_what_has_no_outcome_stays_at_its_maximum(self) -> None:
        assert spent(restarted([intent("a", 10), intent("b", 10), outcome("b", 0)])) == ("2026-11-20", 10, 0)

    def test_attempts_of_one_call_count_each(self) -> None:
        records = [intent("a", 10), outcome("a", 10), intent("a", 10, attempt=2), outcome("a", 3, attempt=2)]
        assert spent(restarted(records)) == ("2026-11-20", 13, 0)

    def test_only_the_newest_window_counts(self) -> None:
        records = [intent("a", 10, "2026-11-19"), intent("b", 7), outcome("a", 9), outcome("b", 7)]
        assert spent(restarted(records)) == ("2026-11-20", 7, 0)

    def test_an_older_window_behind_a_newer_one_opens_no_second_quota(self) -> None:
        """The clock was set back while the gate ran; after the restart the quota must not be open again."""
        records = [intent("a", CAP, "2026-11-21"), outcome("a", CAP), intent("b", 5, "2026-11-20"), outcome("b", 5)]
        fresh = restarted(records)
        assert spent(fresh) == ("2026-11-21", CAP + 5, 0)
        assert isinstance(fresh.reserve_now("c", (claim(1, "2026-11-20"),)), Refused)

    def test_calls_without_a_price_and_other_records_spend_nothing(self) -> None:
        free = {**intent("a", 0), "cost": None}
        done = {**outcome("a", 0), "cost": None}
        assert spent(restarted([free, done, {"type": "seal"}, {"type": "call.denied"}])) is None


REFUNDS = "stripe.refund.create.amount"
COUNTED = ("acme/agent/USD/day/2026-11-20", f"acme/*/{REFUNDS}:USD/month/2026-11", "acme/agent/calls/run/run=r_1/run")


def counted(record: dict[str, Any], price: int, refunds: int, calls: int) -> dict[str, Any]:
    units = {REFUNDS: refunds, "calls": calls}
    return {**record, "cost": {"micro": price, "cur": "USD", "budget": list(COUNTED), "units": units}}


class TestSeveralMeters:
    """Each budget is charged what its own meter counted; its name in the record says which that is."""

    def books(self, subject: EmbeddedReservations) -> list[int]:
        found = {f"{use.key}/{use.window}": use.spent_micros for use in subject.budgets()}
        return [found[name] for name in COUNTED]

    def test_what_has_no_outcome_stays_at_its_maximum_by_each(self) -> None:
        assert self.books(restarted([counted(intent("a", 0), 1, 20, 300)])) == [1, 20, 300]

    def test_an_outcome_corrects_each(self) -> None:
        records = [counted(intent("a", 0), 1, 20, 300), counted(outcome("a", 0), 1, 0, 300)]
        assert self.books(restarted(records)) == [1, 0, 300]

    def test_a_call_in_flight_in_a_snapshot_is_corrected_by_each(self) -> None:
        before = store(Clock())
        claims = [
            SpendClaim(tuple(name.split("/")[:-1]), name.split("/")[-1], CAP, amount, "x", 0, meter)
            for name, amount, meter in zip(COUNTED, (1, 20, 300), ("price", REFUNDS, "calls"), strict=True)
        ]
        take(before, *claims, call="a")
        records = [counted(intent("a", 0), 1, 20, 300), counted(outcome("a", 0), 0, 0, 300)]
        assert self.books(restarted(records, snapshot=LimitsSnapshot.take(before, lambda: 0))) == [0, 0, 300]

    def test_a_record_that_does_not_say_how_much_stops_the_start(self) -> None:
        """To count it as nothing would be a reset."""
        record = counted(intent("a", 0), 1, 20, 300)
        del record["cost"]["units"]
        with pytest.raises(ValueError, match="does not say how much"):
            restarted([record])


class TestRates:
    @pytest.mark.parametrize(("seconds", "left"), [(0, 1), (60, 2), (120, 3), (3600, 3)])
    def test_buckets_are_as_full_as_they_would_be(self, policy: PolicySet, seconds: int, left: int) -> None:
        clock = Clock()
        clock.wall = START + seconds
        fresh = restarted([intent("a", 1), intent("b", 1)], policy=policy, clock=clock)
        rate = RateClaim(("acme", "agent", "rate", "tickets", "minute"), 60_000_000, 3, "1 per minute")
        granted = [isinstance(fresh.reserve_now("c", (rate,)), Reserved) for _ in range(4)]
        assert granted == [True] * left + [False] * (4 - left)

    def test_another_attempt_of_a_call_takes_no_second_token(self, policy: PolicySet) -> None:
        fresh = restarted([intent("a", 1), intent("a", 1, attempt=2), intent("a", 1, attempt=3)], policy=policy)
        rate = RateClaim(("acme", "agent", "rate", "tickets", "minute"), 60_000_000, 3, "1 per minute")
        assert isinstance(fresh.reserve_now("c", (rate,)), Reserved)

    def test_a_snapshot_carries_them(self) -> None:
        clock = Clock()
        before = store(clock)
        rate = RateClaim(("acme", "agent", "rate"), 60_000_000, 2, "")
        take(before, rate)
        take(before, rate)
        snapshot = LimitsSnapshot.take(before, lambda: 0)
        later = Clock()
        later.mono_us, later.wall = 77, clock.wall + 60
        fresh = restarted([], snapshot=snapshot, clock=later)
        assert isinstance(fresh.reserve_now("c", (rate,)), Reserved)
        assert isinstance(fresh.reserve_now("c", (rate,)), Refused)

    def test_a_clock_set_back_over_the_restart_neither_opens_nor_locks_for_long(self) -> None:
        clock = Clock()
        before = store(clock)
        rate = RateClaim(("acme", "agent", "rate"), 60_000_000, 2, "")
        take(before, rate)
        take(before, rate)
        snapshot = LimitsSnapshot.take(before, lambda: 0)
        earlier = Clock()
        earlier.wall = clock.wall - 86_400
        fresh = restarted([], snapshot=snapshot, clock=earlier)
        assert isinstance(fresh.reserve_now("c", (rate,)), Refused)
        earlier.mono_us += 60_000_000
        assert isinstance(fresh.reserve_now("c", (rate,)), Reserved)


class TestSnapshot:
    def test_a_call_in_flight_whose_intent_follows_is_counted_once(self) -> None:
        before = store(Clock())
        take(before, claim(10), call="a")
        snapshot = LimitsSnapshot.take(before, lambda: 0)
        assert spent(restarted([intent("a", 10)], snapshot=snapshot)) == ("2026-11-20", 10, 0)
        assert spent(restarted([intent("a", 10), outcome("a", 4)], snapshot=snapshot)) == ("2026-11-20", 4, 0)

    def test_a_call_in_flight_whose_outcome_follows_is_corrected(self) -> None:
        before = store(Clock())
        take(before, claim(10), call="a")
        snapshot = LimitsSnapshot.take(before, lambda: 1)
        assert spent(restarted([intent("a", 10), outcome("a", 4)], snapshot=snapshot)) == ("2026-11-20", 4, 0)

    def test_a_call_in_flight_that_is_never_heard_of_again_stays_at_its_maximum(self) -> None:
        before = store(Clock())
        take(before, claim(10), call="a")
        assert spent(restarted([], snapshot=LimitsSnapshot.take(before, lambda: 0))) == ("2026-11-20", 10, 0)

    def test_a_settled_call_whose_outcome_follows_is_not_corrected_again(self) -> None:
        before = store(Clock())
        before.settle(take(before, claim(10), call="a"), {"price": 4})
        snapshot = LimitsSnapshot.take(before, lambda: 1)
        assert spent(restarted([intent("a", 10), outcome("a", 4)], snapshot=snapshot)) == ("2026-11-20", 4, 0)

    def test_a_call_that_ends_while_the_snapshot_is_taken_is_counted_once(self) -> None:
        before = store(Clock())
        held = take(before, claim(10), call="a")

        def size_then_settled() -> int:
            before.settle(held, {"price": 4})
            return 0

        snapshot = LimitsSnapshot.take(before, size_then_settled)
        assert spent(restarted([intent("a", 10), outcome("a", 4)], snapshot=snapshot)) == ("2026-11-20", 4, 0)

    @pytest.mark.parametrize("state", [b"", b"{}", b"[]", b'{"v":2}', b"\xff"])
    def test_one_that_cannot_be_read_is_refused(self, state: bytes) -> None:
        with pytest.raises(SnapshotRefused):
            Replay(None).start(LimitsSnapshot(0, state))


def test_what_a_program_before_did_not_date_is_as_old_as_its_snapshot() -> None:
    run = ["acme/agent/USD/run/r1", "run", 0, 7]
    state = {"v": 2, "wall_us": int(START) * 1_000_000, "rates": [], "budgets": [run], "ended": [], "held": []}
    for days, kept in ((39, 1), (41, 0)):
        replay = Replay(None)
        replay.start(LimitsSnapshot(0, json.dumps(state).encode()))
        replay.snapshot(0, int(START + days * 86_400) * 1_000_000)
        assert len(replay.budgets()) == kept


def test_what_is_over_is_forgotten_and_what_is_in_flight_is_not() -> None:
    """A program that counts from the ledger for months keeps what still counts, and is told of no window's end."""
    replay = Replay(None)

    def call(name: str, run: str, at: str, *, ends: bool) -> None:
        begun = intent(name, 1)
        begun["ts"], begun["cost"]["budget"] = at, [f"acme/agent/USD/run/{run}/run"]
        replay.feed(begun)
        if ends:
            replay.feed(outcome(name, 1))

    for number in range(50):
        call(f"c{number}", f"r{number}", "2026-11-20T12:00:00.000000Z", ends=number > 0)
    call("later", "r9", "2026-12-10T12:00:00.000000Z", ends=True)
    for days, kept in ((39, 50), (41, 2)):
        again = Replay(None)
        again.start(replay.snapshot(100, int(START + days * 86_400) * 1_000_000))
        for counted in (replay, again):
            assert len(counted.budgets()) == kept
    assert {key: budget.spent for key, budget in again.budgets()} == {
        "acme/agent/USD/run/r0": 1,
        "acme/agent/USD/run/r9": 2,
    }


def test_a_snapshot_of_the_first_version_is_read() -> None:
    """It is of a program that knew prices alone; what it counted is what it says."""
    key = "/".join(KEY)
    state = json.dumps(
        {
            "v": 1,
            "wall_us": int(START * 1_000_000),
            "rates": [[["acme", "agent", "rate", "tickets", "minute"], 5]],
            "budgets": [[key, "2026-11-20", 0, 40]],
            "ended": [],
            "held": [["a", [[key, "2026-11-20", 10]]]],
        }
    ).encode()
    assert spent(restarted([], snapshot=LimitsSnapshot(0, state))) == ("2026-11-20", 50, 0)
    assert spent(restarted([outcome("a", 4)], snapshot=LimitsSnapshot(0, state))) == ("2026-11-20", 44, 0)


@dataclass
class Life:
    """One call's way: what it reserved, what it spent, and how far it gets before the crash."""

    amount: int
    spent: int
    stages: int
    """0 nothing, 1 reserved, 2 intent durable, 3 settled, 4 outcome durable."""


lives = st.lists(
    st.builds(lambda a, s, n: Life(a, min(s, a), n), st.integers(0, 50), st.integers(0, 50), st.integers(0, 4)),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(calls=lives, order=st.randoms(use_true_random=False), cut=st.floats(0, 1))
def test_whatever_the_order_and_the_instant_nothing_is_free(calls: list[Life], order: Any, cut: float) -> None:
    """Calls go through their stages interleaved; a snapshot is taken somewhere; then the process dies."""
    subject = store(Clock())
    steps = [number for number, life in enumerate(calls) for _ in range(life.stages)]
    order.shuffle(steps)
    at = int(cut * len(steps))
    records: list[dict[str, Any]] = []
    stage = [0] * len(calls)
    held: dict[int, Reserved] = {}
    snapshot = None
    in_flight_at_snapshot = False
    for index, number in enumerate([*steps, -1]):
        if index == at:
            snapshot = LimitsSnapshot.take(subject, lambda: len(records))
            in_flight_at_snapshot = any(0 < s < 4 for s in stage)
        if number < 0:
            break
        life, stage[number] = calls[number], stage[number] + 1
        call = f"c{number}"
        if stage[number] == 1:
            held[number] = take(subject, claim(life.amount), call=call)
        elif stage[number] == 2:
            records.append(intent(call, life.amount))
        elif stage[number] == 3:
            subject.settle(held[number], {"price": life.spent})
        else:
            records.append(outcome(call, life.spent))
    # Recovery of the ledger closes open intents at their maximum.
    for number, life in enumerate(calls):
        if stage[number] in (2, 3):
            records.append(outcome(f"c{number}", life.amount))
    reached = list(zip(calls, stage, strict=True))
    done = sum(life.spent for life, at_stage in reached if at_stage == 4)
    least = done + sum({2: life.amount, 3: life.spent}.get(at_stage, 0) for life, at_stage in reached)
    most = done + sum(life.amount for life, at_stage in reached if at_stage in (2, 3))
    never_sent = sum(life.amount for life, at_stage in reached if at_stage == 1)
    assert snapshot is not None
    from_snapshot = (spent(restarted(records, snapshot=snapshot)) or ("", 0, 0))[1]
    # In the snapshot a call in flight may be known no further than reserved: it errs by its maximum, to the safe side.
    assert (
        least <= from_snapshot <= most + never_sent + sum(life.amount - life.spent for life, at in reached if at == 4)
    )
    if not in_flight_at_snapshot:
        assert from_snapshot == most
    assert (spent(restarted(records)) or ("", 0, 0))[1] == most
