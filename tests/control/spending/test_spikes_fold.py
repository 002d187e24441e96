"""Which records are a spike: against a straightforward count, once a window, while it is under way, however read."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from control.alerts.alert import Raise
from control.following import Follower
from control.spending.spikes import SpikesFold
from control.spending.usual import usual_of
from ledger import Ledger, Limits, MemoryLockStore
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from tests.ledger.conftest import SteppedClock, activate, intent, outcome

QUICK = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=10**9, seal_idle_seconds=10**9)
POLICY = """exeat: 1
tenant: acme
timezone: {zone}
connections: {{lab: {{host: saas.test, price: 1 USD}}}}
limits: {{spikes: {whole}}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{{meter: price, max: 1000 USD, per: day}}], spikes: {own}}}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
  other:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {{spend: [{{meter: price, max: 1000 USD, per: day}}]}}
    rules: [{{id: all, allow: {{connection: lab, path: /**}}}}]
"""
ALERT = "[{meter: price, per: hour, over: 3x, least: 5 USD}]"
STOP = "[{meter: price, per: hour, over: 3x, least: 5 USD, then: stop}]"
START = datetime(2026, 10, 1, tzinfo=UTC)


def policy(own: str = "null", whole: str = "null", zone: str = "UTC") -> PolicySet:
    return compile_policy(parse_policy({"acme.yaml": POLICY.format(own=own, whole=whole, zone=zone).encode()}))


class Log:
    """A ledger whose time a test moves, with a follower that tells into lists, each key once as the outbox does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SteppedClock(int(START.timestamp() * 1_000_000))
        self.raised: dict[str, Raise] = {}
        self.stopped: list[tuple[str | None, str]] = []
        self.asked = 0
        self.ledger = Ledger.create(
            folder / "ledger", keys=folder / "keys", lock_store=MemoryLockStore(), origin="exeat.test/log",
            clock=self.clock, limits=QUICK,
        )  # fmt: skip
        self.write(activate())
        self.policy = policy(ALERT)
        self.number = 0
        self.follower = self.following()

    def following(self) -> Follower:
        def take(wanted: Raise) -> None:
            self.asked += 1
            self.raised.setdefault(str(wanted.once), wanted)

        def stop(wanted: Raise, account: str | None, why: str) -> None:
            take(wanted)
            self.stopped.append((account, why))

        def zone_of(tenant: str) -> ZoneInfo:
            return self.policy.tenants["acme"].timezone

        fold = SpikesFold(lambda: self.policy, zone_of, take, stop, lambda: self.clock.wall / 1_000_000)
        return Follower(
            self.folder / "followed.sqlite", self.folder / "ledger", (fold,), lambda: self.ledger.head().size
        )

    def restart(self) -> None:
        self.follower.stop()
        self.follower = self.following()

    def write(self, record: tuple[str, str, dict[str, Any]]) -> int:
        return self.ledger.submit(*record).result(10).seq

    def to(self, moment: datetime) -> None:
        micros = int(moment.timestamp() * 1_000_000) - self.clock.wall
        assert micros > 0
        self.clock.advance(micros)

    def begin(
        self, dollars: float = 1, account: str = "agent", attempt: int = 1, again: str | None = None
    ) -> tuple[str, int, dict[str, Any]]:
        self.number += 1
        call = again or f"c_{self.number}"
        agent = {"id": account, "workflow": "w", "run": "r_1", "credential": "j", "auth": "jwt"}
        cost = {"micro": int(dollars * 1_000_000), "cur": "USD", "budget": [f"acme/{account}/USD/day/2026-10-01"]}
        return call, self.write(intent(call, attempt=attempt, agent=agent, cost=cost)), cost

    def call(self, dollars: float = 1, account: str = "agent") -> None:
        call, seq, cost = self.begin(dollars, account)
        self.write(outcome(call, seq, cost=cost))

    def past(self, hours: int = 30, dollars: float = 2, account: str = "agent") -> datetime:
        """So many hours of the same, and then it is the next one."""
        for hour in range(hours):
            self.to(START + timedelta(hours=hour, minutes=5))
            self.call(dollars, account)
        now = START + timedelta(hours=hours, minutes=5)
        self.to(now)
        return now

    def told(self) -> list[Raise]:
        self.follower.caught_up()
        return list(self.raised.values())


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.follower.stop()
    made.ledger.close()


def test_it_is_told_while_the_hour_is_under_way_and_once(log):
    log.past()
    log.call(6)
    assert log.told() == []
    log.call(0.5)
    (told,) = log.told()
    assert (told.kind, told.tenant, str(told.severity)) == ("spend.spike", "acme", "warning")
    assert told.text == "acme: agent: 6.5 USD in one hour, and 2 USD is usual"
    assert (told.detail["window"], told.detail["used"], told.detail["over"]) == ("2026-10-02T06", "6.5 USD", "3x")
    assert told.detail["resets"] == "2026-10-02T07:00:00+00:00"
    for _ in range(20):
        log.call(5)
    log.told()
    assert log.asked == 1
    log.to(START + timedelta(hours=31, minutes=5))
    log.call(9)
    assert [one.detail["window"] for one in log.told()] == ["2026-10-02T06", "2026-10-02T07"]


def test_a_young_account_is_not_judged(log):
    log.past(hours=23)
    log.call(500)
    assert log.told() == []


def test_below_the_least_nothing_is_a_spike(log):
    log.past(dollars=0.01)
    log.call(5 - 0.000001)
    assert log.told() == []
    log.call(0.000001)
    assert len(log.told()) == 1


def test_what_is_set_aside_is_not_what_it_came_to(log):
    log.past()
    call, seq, cost = log.begin(500)
    assert log.told() == []
    log.write(outcome(call, seq, cost={**cost, "micro": 1_000_000}))
    assert log.told() == []
    call, seq, cost = log.begin(1)
    log.restart()  # its end is counted by another process than its beginning
    log.write(outcome(call, seq, cost={**cost, "micro": 8_000_000}))
    assert [one.detail["used"] for one in log.told()] == ["9 USD"]


def test_a_stop_says_whom_why_and_how_it_ends(log):
    log.policy = policy(STOP)
    log.past()
    log.call(7)
    (told,) = log.told()
    assert log.stopped == [("agent", "7 USD in one hour, and 2 USD is usual")]
    assert str(told.severity) == "critical"
    assert told.text.endswith("suspended until somebody runs: exeat resume account agent --tenant acme --reason WHY")


def test_other_accounts_have_a_past_of_their_own(log):
    log.past(account="other")
    log.call(500)
    log.call(50, account="other")  # the policy says nothing of it
    assert log.told() == []


def test_calls_are_counted_when_they_are_let_out_and_attempts_are_not(log):
    log.policy = policy(whole="[{meter: calls, per: day, over: 2x, least: 4, by: [account]}]")
    for day in range(8):
        log.to(START + timedelta(days=day, hours=1))
        log.call()
        log.call()
    log.to(START + timedelta(days=8, hours=1))
    for _ in range(4):
        call, seq, cost = log.begin()
        log.write(outcome(call, seq, status="indeterminate", cost=cost))
        log.begin(attempt=2, again=call)
    assert log.told() == []
    log.begin()
    (told,) = log.told()
    assert told.text == "acme: agent: 5 calls in one day, and 2 calls is usual"


def test_a_tenant_is_judged_as_a_whole_and_stopped_as_a_whole(log):
    log.policy = policy(whole=STOP)
    for hour in range(30):
        log.to(START + timedelta(hours=hour, minutes=5))
        log.call(1)
        log.call(1, account="other")
    log.to(START + timedelta(hours=30, minutes=5))
    log.call(3)
    log.call(3, account="other")
    assert log.told() == []
    log.call(1, account="other")
    (told,) = log.told()
    assert log.stopped == [(None, "7 USD in one hour, and 2 USD is usual")]
    assert "exeat resume tenant acme" in told.text


def test_a_spike_that_is_read_when_it_is_over_is_not_told(log):
    now = log.past()
    log.call(50)
    log.to(now + timedelta(hours=1))
    log.call(1)
    assert log.told() == []


def test_a_policy_that_says_it_later_has_the_past_at_once(log):
    log.policy = policy()
    log.past()
    log.call(9)
    assert log.told() == []
    log.policy = policy(STOP)
    log.call(0.01)
    assert len(log.told()) == 1


def test_read_anew_it_tells_the_same_keys(log):
    log.past()
    log.call(9)
    keys = {one.once for one in log.told()}
    log.follower.stop()
    (log.folder / "followed.sqlite").unlink()
    log.follower = log.following()
    assert {one.once for one in log.told()} == keys
    assert (len(keys), log.asked) == (1, 2)


def test_days_and_hours_are_those_of_the_tenants_clocks(log):
    log.policy = policy(ALERT, zone="Asia/Kolkata")  # half past
    log.past()
    log.to(START + timedelta(hours=30, minutes=20))
    log.call(4)
    log.to(START + timedelta(hours=30, minutes=40))
    log.call(3)  # the next hour there
    assert log.told() == []
    log.call(4)
    assert [one.detail["window"] for one in log.told()] == ["2026-10-02T12"]


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_a_straightforward_count_says(log, seed):
    """Random hours and amounts, the follower given up at random: each window's first spike is the one that is told."""
    rolls = random.Random(seed)
    log.policy = policy(ALERT)
    used: defaultdict[str, int] = defaultdict(int)
    expected = []
    now = START
    for _ in range(250):
        now += timedelta(minutes=rolls.choice([1, 20, 40, 60, 200]))
        log.to(now)
        dollars = rolls.choice([1, 2, 3, 20]) if rolls.random() < 0.9 else 0
        log.call(dollars)
        hour = now.strftime("%Y-%m-%dT%H")
        used[hour] += dollars * 1_000_000
        past = {of: micros for of, micros in used.items() if of < hour and micros}
        usual = usual_of("hour", hour, past)
        if usual is not None and used[hour] >= 5_000_000 and used[hour] > 3 * usual and hour not in expected:
            expected.append(hour)
        log.follower.caught_up()
        if rolls.random() < 0.1:
            log.restart()
    assert [one.detail["window"] for one in log.told()] == expected
    assert expected, "this seed shows nothing"


def test_what_is_kept_is_bounded(log):
    log.policy = policy()
    for day in range(70):
        log.to(START + timedelta(days=day, hours=3))
        log.call()
    database = log.follower.caught_up()
    (days,) = database.query("SELECT count(DISTINCT substr(hour, 1, 10)) FROM hourly")[0]
    assert days <= 32
    assert database.query("SELECT count(*) FROM spike_intents") == [(0,)]


def test_a_higher_one_of_the_tenants_stops_again_after_the_accounts_own_was_resumed(log):
    """Each by its own height, once a window; an operator who resumed the lower one has not spoken of the higher."""
    whole = "[{meter: price, per: hour, over: 10x, least: 5 USD, by: [account], then: stop}]"
    log.policy = policy(STOP, whole)
    log.past()
    log.call(7)
    assert len(log.told()) == 1
    log.call(7)
    assert len(log.told()) == 1
    log.call(7)
    assert [one.detail["over"] for one in log.told()] == ["3x", "10x"]
    assert [account for account, _ in log.stopped] == ["agent", "agent"]
