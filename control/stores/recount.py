"""Counting from the ledger while it grows: what a shared store of counters is loaded from when it has lost its own."""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from control.stores.counted import Budget, Key
from control.stores.limits_replay import LimitsSnapshot, Replay
from ledger import read_records
from rules.claims import PRICE
from rules.policy.compile import PolicySet

REMEMBERED: Final = 50_000
"""Ended calls whose spending is known: more than are let out within a reservation's time to live."""
_TYPES: Final = frozenset({"call.intent", "call.outcome"})


class Recount:
    """What has been spent, by the records so far. One thread at a time."""

    def __init__(self, replay: Replay, size: int) -> None:
        self._replay = replay
        self.size = size
        """Records that are counted."""
        self._spent: OrderedDict[str, dict[str, int]] = OrderedDict()

    @classmethod
    def begin(cls, snapshot: LimitsSnapshot | None, policy: PolicySet | None) -> "Recount":
        """As of a snapshot, or of the ledger's beginning. Raises `SnapshotRefused`."""
        replay = Replay(policy)
        if snapshot is None:
            return cls(replay, 0)
        replay.start(snapshot)
        return cls(replay, snapshot.size)

    def follow(self, directory: Path, policy: PolicySet | None) -> None:
        """Every durable record is counted. Raises `LedgerRefused` and `OSError`; what was counted stays so."""
        self._replay.policy = policy
        for record in read_records(directory, start=self.size):
            if record.type in _TYPES:
                self._replay.feed(record.body)
                if record.type == "call.outcome":
                    self._remember(record.body)
            self.size = record.seq + 1

    def _remember(self, outcome: dict[str, Any]) -> None:
        cost = outcome["cost"]
        spent = self._spent.setdefault(outcome["call"], {})
        for meter, micros in ({} if cost is None else spent_by(cost)).items():
            spent[meter] = spent.get(meter, 0) + micros
        self._spent.move_to_end(outcome["call"])
        if len(self._spent) > REMEMBERED:
            self._spent.popitem(last=False)

    def spent(self, call: str) -> dict[str, int] | None:
        """What the records say an ended call spent, in micro-units by meter; None where they do not, or not lately."""
        return None if call in self._replay.open_calls() else self._spent.get(call)

    def budgets(self) -> list[tuple[str, Budget]]:
        """Every budget's newest window; calls without an outcome count at their maximum."""
        return self._replay.budgets()

    def tats(self) -> list[tuple[Key, int]]:
        """The rates' buckets, in microseconds of the wall clock."""
        return self._replay.tats()

    def in_flight(self) -> list[tuple[str, tuple[tuple[str, str, int, str], ...]]]:
        """Calls without an outcome, with what is counted of them: (budget, window, amount, meter)."""
        return self._replay.in_flight()

    def snapshot(self) -> LimitsSnapshot:
        """As of `size` records."""
        return self._replay.snapshot(self.size, time.time_ns() // 1000)


def spent_by(cost: dict[str, Any]) -> dict[str, int]:
    """A record's cost by meter, in micro-units."""
    return {PRICE: int(cost["micro"]), **cost.get("units", {})}
