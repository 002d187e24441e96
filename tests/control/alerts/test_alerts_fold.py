"""Which records raise an alert: shares of budgets in the window that is now, each once, and what happened lately."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from control.alerts.alert import Raise
from control.alerts.fold import AlertsFold
from control.following import Follower
from ledger import Ledger, Limits, MemoryLockStore, Record
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import parse_policy
from tests.ledger.conftest import activate, intent, outcome

QUICK = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600, seal_idle_seconds=3600)
POLICY = b"""exeat: 1
tenant: acme
connections: {lab: {host: saas.test, price: 1 USD}}
accounts:
  agent:
    owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}
    limits: {spend: [{meter: price, max: 10 USD, per: day, alert: [50%, 100%]}]}
    rules: [{id: all, allow: {connection: lab, path: /**}}]
"""


class Log:
    """A ledger with a follower that raises into a list, each key once as the outbox does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raised: dict[str, Raise] = {}
        self.asked = 0
        self.ledger = Ledger.create(
            folder / "ledger", keys=folder / "keys", lock_store=MemoryLockStore(), origin="exeat.test/log", limits=QUICK
        )
        self.write(activate())
        self.policy: PolicySet | None = compile_policy(parse_policy({"acme.yaml": POLICY}))
        self.now: Callable[[], float] = lambda: datetime.now(UTC).timestamp()
        self.follower = self.following()

    def following(self) -> Follower:
        def take(wanted: Raise) -> None:
            self.asked += 1
            self.raised.setdefault(str(wanted.once), wanted)

        fold = AlertsFold(lambda: self.policy, take, lambda: self.now())  # noqa: PLW0108 - a test moves it
        return Follower(
            self.folder / "followed.sqlite", self.folder / "ledger", (fold,), lambda: self.ledger.head().size
        )

    def write(self, record: tuple[str, str, dict[str, Any]]) -> int:
        return self.ledger.submit(*record).result(10).seq

    def spend(self, call: str, dollars: int, day: str | None = None) -> int:
        return self.write(intent(call, agent=agent(), cost=cost(dollars, day)))

    def shares(self) -> list[str]:
        self.follower.caught_up()
        return [one.detail["threshold"] for one in self.raised.values() if one.kind == "spend.threshold"]


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.follower.stop()
    made.ledger.close()


def agent():
    return {"id": "agent", "workflow": "w", "run": "r_1", "credential": "j", "auth": "jwt"}


def cost(dollars, day=None):
    day = day or datetime.now(UTC).date().isoformat()
    return {"micro": dollars * 1_000_000, "cur": "USD", "budget": [f"acme/agent/USD/day/{day}"]}


def test_each_share_is_told_when_it_is_reached_and_once(log):
    log.spend("c_1", 4)
    assert log.shares() == []
    log.spend("c_2", 1)
    assert log.shares() == ["50%"]
    for number in range(20):
        log.spend(f"c_{number + 3}", 1)
    assert log.shares() == ["50%", "100%"]
    assert log.asked == 2


def test_what_is_set_aside_counts_and_what_was_not_spent_does_not(log):
    seq = log.spend("c_1", 4)
    log.write(outcome("c_1", seq, cost=cost(0)))
    assert log.shares() == []
    log.spend("c_2", 4)
    assert log.shares() == []
    seq = log.spend("c_3", 1)
    assert log.shares() == ["50%"]
    log.write(outcome("c_3", seq, cost=cost(1)))


def test_an_end_in_a_later_chunk_corrects_its_beginning(log):
    seq = log.spend("c_1", 4)
    assert log.shares() == []
    log.follower.stop()
    log.follower = log.following()
    log.write(outcome("c_1", seq, cost=cost(1)))
    log.spend("c_2", 3)
    assert log.shares() == []
    log.spend("c_3", 1)
    assert log.shares() == ["50%"]


def test_what_comes_to_more_than_was_set_aside_is_told_when_it_ends(log):
    """No later call may come to tell of it: all of them are refused."""
    seq = log.spend("c_1", 1)
    assert log.shares() == []
    log.follower.stop()
    log.follower = log.following()
    log.write(outcome("c_1", seq, cost=cost(12)))
    assert log.shares() == ["50%", "100%"]
    assert [one.detail["account"] for one in log.raised.values()] == ["agent", "agent"]


def test_a_window_that_is_over_raises_nothing(log):
    log.spend("c_1", 9, "2026-01-02")
    log.spend("c_2", 9, "2026-01-03")
    assert log.shares() == []
    log.spend("c_3", 6)
    assert log.shares() == ["50%"]


def test_read_again_it_raises_the_same_keys(log):
    log.spend("c_1", 6)
    assert log.shares() == ["50%"]
    keys = set(log.raised)
    log.follower.stop()
    (log.folder / "followed.sqlite").unlink()
    log.follower = log.following()
    assert log.shares() == ["50%"]
    assert set(log.raised) == keys


def test_events_of_long_ago_raise_nothing(log):
    log.write(("operator.act", "-", trouble("e_1")))
    log.follower.caught_up()
    assert [one.kind for one in log.raised.values()] == ["control.degraded"]
    log.now = lambda: datetime.now(UTC).timestamp() + 7200
    log.write(("operator.act", "-", trouble("e_2")))
    log.follower.caught_up()
    assert len(log.raised) == 1


def test_trouble_that_is_over_is_told_of_once(log):
    log.write(("operator.act", "-", trouble("e_1")))
    over = {"control": "limits", "episode": "e_1", "nodes": "w0", "since": "10:00", "until": "10:05", "times": "1"}
    for _ in range(2):
        log.write(("operator.act", "-", {**trouble("e_1"), "act": "degraded.end", "detail": over}))
    log.follower.caught_up()
    assert [(one.kind, str(one.severity)) for one in log.raised.values()] == [
        ("control.degraded", "critical"),
        ("control.recovered", "notice"),
    ]
    told = list(log.raised.values())[1]
    assert told.text == "whole again: limits, 10:00 to 10:05"
    assert told.detail["until"] == "10:05"


def test_a_ledger_that_takes_calls_again_is_told_of(log):
    """Only the sequencer writes such records: they are made here."""
    fold = AlertsFold(lambda: None, lambda wanted: log.raised.setdefault(str(wanted.once), wanted), log.now)
    with closing(sqlite3.connect(":memory:")) as rows:
        for statement in fold.tables:
            rows.execute(statement)
        now = datetime.now(UTC).isoformat()
        for seq, phase in ((7, "begin"), (9, "end")):
            body = {"phase": phase, "reason": "no space", "free_bytes": 0}
            fold.feed(rows, [Record(seq, "ledger.halt", "-", now, body, b"")])
    assert [(one.kind, one.text) for one in log.raised.values()] == [
        ("ledger.halt", "the ledger takes no calls: no space"),
        ("ledger.recovered", "the ledger takes calls again"),
    ]


def trouble(episode):
    detail = {"control": "limits", "mode": "closed", "why": "down", "episode": episode, "nodes": "w0", "since": "now"}
    return {"act": "degraded.begin", "actor": {"kind": "system", "id": "0", "name": "exeat"}, "detail": detail}
