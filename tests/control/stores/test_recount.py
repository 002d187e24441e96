"""Counting from the ledger while it grows: at any point as if it had been counted from the beginning."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from control.stores.limits_replay import Replay
from control.stores.recount import Recount
from tests.control.stores.test_limits_replay import intent, outcome

WINDOWS = ["2026-11-20", "2026-11-21"]
lives = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 100), st.booleans(), st.sampled_from(WINDOWS)), max_size=12
)


@settings(deadline=None, max_examples=60)
@given(lives=lives, cut=st.integers(0, 24))
def test_a_snapshot_anywhere_counts_as_the_beginning_does(lives: list[tuple[int, int, bool, str]], cut: int) -> None:
    records = []
    for number, (most, spent, ended, window) in enumerate(lives):
        records.append(intent(f"c_{number}", most, window))
        if ended:
            records.append(outcome(f"c_{number}", spent))
    whole = Replay(None)
    first = Replay(None)
    for index, record in enumerate(records):
        whole.feed(record)
        if index < cut:
            first.feed(record)
    second = Recount.begin(first.snapshot(min(cut, len(records)), 0), None)._replay
    for record in records[cut:]:
        second.feed(record)
    assert dict(second.budgets()) == dict(whole.budgets())
    assert sorted(second.in_flight()) == sorted(whole.in_flight())
    assert second.open_calls() == whole.open_calls()


def test_a_ledger_that_is_not_there_yet_has_nothing(tmp_path: Path) -> None:
    assert Recount.begin(None, None).size == 0
    assert Recount.begin(None, None).budgets() == []
