"""Folds beside each other: one that fails is left behind and comes after, and each record is counted once by each."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.following import Follower
from control.stores.sqlite import StoreUnavailable
from ledger import Ledger, Limits, MemoryLockStore, Record
from tests.ledger.conftest import activate, denied

QUICK = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600, seal_idle_seconds=3600)


class Sum:
    """Adds up what it saw, in the database and in memory; fails when it is told to, after it has begun its work."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table = name.partition("/")[0]
        self.tables = (f"CREATE TABLE {self.table} (seq INTEGER PRIMARY KEY)",)
        self.fails = False
        self.fails_to_begin = False
        self.kept: list[int] = []

    def begin(self, rows: sqlite3.Connection) -> None:
        if self.fails_to_begin:
            raise LookupError("a secret: 4711")
        self.kept = [seq for (seq,) in rows.execute(f"SELECT seq FROM {self.table} ORDER BY seq")]

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        for number, record in enumerate(records):
            if self.fails and number == len(records) // 2:
                raise LookupError("a secret: 4711")
            self.kept.append(record.seq)
            rows.execute(f"INSERT INTO {self.table} VALUES (?)", (record.seq,))


class Log:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger.create(
            folder / "ledger", keys=folder / "keys", lock_store=MemoryLockStore(), origin="exeat.test/log", limits=QUICK
        )
        self.ledger.submit(*activate()).result(10)
        self.number = 0
        self.hidden = 0
        self.first, self.second = Sum("first/1"), Sum("second/1")
        self.follower = self.following()

    def following(self) -> Follower:
        return Follower(
            self.folder / "followed.sqlite", self.folder / "ledger", (self.first, self.second),
            lambda: self.ledger.head().size - self.hidden,
        )  # fmt: skip

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            self.ledger.submit(*denied(f"c_{self.number}")).result(10)

    def look(self) -> None:
        while self.follower._look():
            pass

    def counted(self, fold: Sum) -> list[int]:
        database = self.follower.caught_up(fold.name)
        return [seq for (seq,) in database.query(f"SELECT seq FROM {fold.table} ORDER BY seq")]

    def whole(self) -> list[int]:
        return list(range(self.ledger.head().size - self.hidden))


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.follower.stop()
    made.ledger.close()


def test_one_that_fails_holds_nobody_up_and_is_told_of(log):
    log.write(3)
    log.second.fails = True
    log.write(3)
    assert log.counted(log.first) == log.whole()
    assert log.follower.fault == "second: LookupError"
    assert log.follower.warnings() == ("the ledger is not followed: second: LookupError",)
    assert log.follower.gauges() == {"following_lag_records": len(log.whole()), "following_failed": 1.0}
    with pytest.raises(StoreUnavailable, match="second cannot be counted now: LookupError"):
        log.counted(log.second)
    log.write(2)
    assert log.counted(log.first) == log.whole()


def test_it_is_tried_again_and_comes_after_without_gap_or_return(log):
    log.write(4)
    log.look()
    log.second.fails = True
    log.write(5)
    log.look()
    log.second.fails = False
    log.write(2)
    assert log.counted(log.second) == log.whole() == log.second.kept
    assert log.counted(log.first) == log.whole() == log.first.kept
    assert log.follower.fault is None
    log.write(2)
    assert log.counted(log.second) == log.whole() == log.second.kept


def test_it_is_not_tried_with_each_look(log):
    log.second.fails = True
    log.write(1)
    log.look()
    log.second.fails = False
    log.write(1)
    log.look()
    assert log.follower.fault == "second: LookupError"
    for place in log.follower._places:
        place.again_at = 0.0
    log.look()
    assert log.follower.fault is None
    assert log.second.kept == log.whole()


def test_one_that_cannot_begin_is_left_behind_from_the_start(log):
    log.first.fails_to_begin = True
    log.write(3)
    assert log.counted(log.second) == log.whole()
    assert log.follower.fault == "first: LookupError"
    log.first.fails_to_begin = False
    assert log.counted(log.first) == log.whole() == log.first.kept


def test_what_is_not_durable_yet_is_not_counted_by_one_that_comes_after_either(log):
    log.second.fails = True
    log.write(6)
    log.look()
    log.second.fails = False
    log.hidden = 2
    log.write(3)
    assert log.counted(log.second) == log.whole()
    log.hidden = 0
    assert log.counted(log.second) == log.whole() == log.second.kept
    assert log.counted(log.first) == log.whole() == log.first.kept


STEPS = st.lists(st.sampled_from(("write", "look", "first", "second", "again", "restart", "hide", "show")), max_size=25)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_fails_when_each_counts_each_record_once(steps, tmp_path_factory):
    log = Log(tmp_path_factory.mktemp("log"))
    try:
        for step in steps:
            if step == "write":
                log.write(2)
            elif step == "look":
                log.look()
            elif step == "again":
                for place in log.follower._places:
                    place.again_at = 0.0
            elif step == "restart":
                log.follower.stop()
                log.follower = log.following()
            elif step in {"hide", "show"}:
                log.hidden = 1 if step == "hide" else 0
            else:
                fold = getattr(log, step)
                fold.fails = not fold.fails
        log.hidden = 0
        log.first.fails = log.second.fails = False
        for fold in (log.first, log.second):
            assert log.counted(fold) == log.whole() == fold.kept
    finally:
        log.follower.stop()
        log.ledger.close()
