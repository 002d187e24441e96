"""Limits over a restart: a snapshot at record N, and the records after N.

The snapshot holds everything that is counted when the ledger has N records, with the calls then in flight named. Replay
goes through the later records in order:

- an intent of a call that the snapshot has in flight, or that ended while it was taken, is counted already; another
  one counts at its maximum;
- an outcome corrects its intent to what was really spent;
- what has no outcome stays at its maximum. So does a call that was in flight in the snapshot and is never heard of
  again: whether its outcome lies before N cannot be told from here, and a cap errs to the safe side.

A window older than the newest seen counts against the newest, as in `EmbeddedReservations`. The result is never less
than what was spent; it is exact for a snapshot taken while nothing was in flight, which is what a clean stop does.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from control.stores.counted import Budget, Exported, Key
from control.stores.limits import EmbeddedReservations
from control.stores.sqlite import Database
from rules.action import Action
from rules.claims import RateClaim
from rules.limits.claims import bucket_claims
from rules.limits.demand import Demand
from rules.limits.gcra import Exceeds, gcra
from rules.limits.keys import charged, meter_of
from rules.policy.compile import Connection, PolicySet

_VERSION: Final = 3
"""The first knew prices alone, the second not when a budget was last used: what they counted is read as it is and as of
their own time, but no older program may read the budgets of now."""
_READ: Final = (1, 2, _VERSION)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SnapshotRefused(Exception):
    """The snapshot is not one this version wrote. The operator restores the database, or the newer program."""


@dataclass(frozen=True, slots=True)
class LimitsSnapshot:
    """The counters when the ledger had `size` records."""

    size: int
    state: bytes

    @classmethod
    def take(cls, reservations: EmbeddedReservations, durable: Callable[[], int]) -> "LimitsSnapshot":
        """The counters now; `durable` tells the number of durable records. Any thread, one at a time.

        Whoever settles has seen the intent durable, so the intents of calls that ended before lie before that number;
        calls that end while this runs are named in the snapshot.
        """
        reservations.begin_export()
        size = durable()
        return cls(size, _encode(reservations.export()))


class LimitsStore:
    """Keeps the newest snapshot in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, snapshot: LimitsSnapshot) -> None:
        """The snapshot is durable and the older one gone. Raises `StoreUnavailable`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO limits_snapshot (one, size, state) VALUES (1, ?, ?) "
                "ON CONFLICT (one) DO UPDATE SET size = excluded.size, state = excluded.state",
                (snapshot.size, snapshot.state),
            )

    def load(self) -> LimitsSnapshot | None:
        """The newest snapshot; None before the first. Raises `StoreUnavailable`."""
        rows = self._database.query("SELECT size, state FROM limits_snapshot")
        return LimitsSnapshot(rows[0][0], bytes(rows[0][1])) if rows else None


type _Entries = list[tuple[str, str, int]]


@dataclass(slots=True)
class Replay:
    """Feeds on records in order; then `finish` loads the counters."""

    policy: PolicySet | None
    """The policy in force: it names the rates whose buckets are filled again."""
    _budgets: dict[str, Budget] = field(default_factory=dict)
    _tats_us: dict[Key, int] = field(default_factory=dict)
    _carried: dict[str, _Entries] = field(default_factory=dict)
    _ended: frozenset[str] = frozenset()
    _open: dict[tuple[str, int], _Entries] = field(default_factory=dict)

    def start(self, snapshot: LimitsSnapshot) -> None:
        """Begins from a snapshot. Raises `SnapshotRefused`."""
        exported = _decode(snapshot.state)
        self._tats_us = {key: exported.wall_us + ahead for key, ahead in exported.ahead_us.items()}
        self._budgets = exported.budgets
        self._ended = frozenset(exported.ended)
        for call, spends in exported.held:
            for key, window, amount in spends:
                budget = self._budgets.get(key)
                if budget is not None and budget.window == window:
                    budget.spent += amount
            self._carried.setdefault(call, []).extend(spends)
        for budget in self._budgets.values():
            budget.reserved = 0

    def feed(self, record: Mapping[str, Any]) -> None:
        """The next record, as parsed from the ledger; types that spend nothing are passed over."""
        if record["type"] == "call.intent":
            self._intent(record)
        elif record["type"] == "call.outcome":
            self._outcome(record)

    def finish(self, reservations: EmbeddedReservations) -> None:
        """The counters are loaded. Only before the first reserve."""
        reservations.load(self._budgets.items(), self._tats_us.items())

    # What was counted, while more comes: for a store that several processes share.

    def budgets(self) -> list[tuple[str, Budget]]:
        """Every budget's newest window; calls without an outcome count at their maximum."""
        return [(key, replace(budget)) for key, budget in self._budgets.items()]

    def tats(self) -> list[tuple[Key, int]]:
        """The rates' buckets, in microseconds of the wall clock."""
        return list(self._tats_us.items())

    def open_calls(self) -> set[str]:
        """Calls without an outcome."""
        return {call for call, _ in self._open} | self._carried.keys()

    def in_flight(self) -> list[tuple[str, tuple[tuple[str, str, int, str], ...]]]:
        """Calls without an outcome, with what is counted of them: (budget, window, amount, meter)."""
        waiting = [(call, entries) for (call, _), entries in self._open.items()]
        waiting += list(self._carried.items())
        return [
            (call, tuple((key, window, amount, meter_of(key)) for key, window, amount in entries))
            for call, entries in waiting
            if entries
        ]

    def snapshot(self, size: int, wall_us: int) -> LimitsSnapshot:
        """What `start` begins from again, as of `size` records. What is over is forgotten."""
        self._forget(wall_us)
        budgets = {key: replace(budget) for key, budget in self._budgets.items()}
        held = [(call, tuple(entries)) for (call, _), entries in self._open.items()]
        held += [(call, tuple(entries)) for call, entries in self._carried.items()]
        for _, entries in held:
            for key, window, amount in entries:
                if budgets[key].window == window:
                    budgets[key].spent -= amount  # `start` counts it again
        ahead = {key: tat - wall_us for key, tat in self._tats_us.items()}
        return LimitsSnapshot(size, _encode(Exported(wall_us, ahead, budgets, tuple(held), ())))

    def _forget(self, wall_us: int) -> None:
        in_use = {key for entries in (*self._open.values(), *self._carried.values()) for key, _, _ in entries}
        now = wall_us / 1_000_000
        self._budgets = {key: one for key, one in self._budgets.items() if key in in_use or not one.is_over(now)}
        self._tats_us = {key: tat for key, tat in self._tats_us.items() if tat > wall_us}

    def _intent(self, record: Mapping[str, Any]) -> None:
        call, attempt, cost = record["call"], record["attempt"], record["cost"]
        self._fill_buckets(record)
        if call in self._carried:
            self._open[call, attempt] = self._carried.pop(call)
        elif cost is not None and call not in self._ended:
            at = int(datetime.fromisoformat(record["ts"]).timestamp()) if cost["budget"] else 0
            self._open[call, attempt] = [self._charge(name, charged(name, cost), at) for name in cost["budget"]]

    def _charge(self, name: str, micros: int, at: int) -> tuple[str, str, int]:
        key, _, window = name.rpartition("/")
        budget = self._budgets.get(key)
        if budget is None or window > budget.window:
            budget = self._budgets[key] = Budget(window)
        budget.spent += micros
        budget.used_at = max(budget.used_at, at)
        return key, budget.window, micros

    def _outcome(self, record: Mapping[str, Any]) -> None:
        call, cost = record["call"], record["cost"]
        entries = self._open.pop((call, record["attempt"]), None) or self._carried.pop(call, None)
        if entries is None or cost is None:  # settled before the snapshot, or without a price
            return
        for key, window, amount in entries:
            budget = self._budgets.get(key)
            if budget is not None and budget.window == window:
                budget.spent += charged(f"{key}/{window}", cost) - amount

    def _fill_buckets(self, record: Mapping[str, Any]) -> None:
        if record["attempt"] != 1:  # one call, one token
            return
        tenant = None if self.policy is None else self.policy.tenants.get(record["tenant"])
        if tenant is None:
            return
        account = tenant.accounts.get(record["agent"]["id"])
        connection = tenant.connections.get(record["op"]["connector"] or "")
        if account is None or connection is None or not (account.limits.rates or tenant.limits.rates):
            return
        at = datetime.fromisoformat(record["ts"])
        at_us = (at - _EPOCH) // timedelta(microseconds=1)
        for claim in bucket_claims(account.plan, _asked(record, account.name, connection, tenant.timezone, at)):
            if isinstance(claim, RateClaim):
                tat_us = self._tats_us.get(claim.key, 0)
                verdict = gcra(tat_us, at_us, claim.interval_us, claim.burst)
                # It did conform when it was let out; records carry the time of their group, which is a little later.
                self._tats_us[claim.key] = (
                    tat_us + claim.interval_us if isinstance(verdict, Exceeds) else verdict.tat_us
                )


def _asked(record: Mapping[str, Any], account: str, connection: Connection, zone: ZoneInfo, at: datetime) -> Demand:
    """The call as far as its record says: which tool it was, and not what it was about."""
    agent, tool = record["agent"], record["op"].get("tool")
    actions = () if tool is None else (Action(tool, None, None),)
    return Demand(account, agent.get("workflow", ""), agent.get("run", ""), connection, at, zone, actions)


def _encode(exported: Exported) -> bytes:
    data = {
        "v": _VERSION,
        "wall_us": exported.wall_us,
        "rates": [[list(key), ahead] for key, ahead in exported.ahead_us.items()],
        "budgets": [[key, b.window, b.resets_at, b.spent, b.used_at] for key, b in exported.budgets.items()],
        "ended": list(exported.ended),
        "held": [[call, [list(spend) for spend in spends]] for call, spends in exported.held],
    }
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


def _decode(state: bytes) -> Exported:
    try:
        data = json.loads(state)
        if data["v"] not in _READ:
            raise SnapshotRefused(f"the snapshot of limits has version {data['v']}, this program knows {_VERSION}")
        return Exported(
            wall_us=data["wall_us"],
            ahead_us={tuple(key): ahead for key, ahead in data["rates"]},
            budgets={
                key: Budget(window, resets, spent, used_at=used[0] if used else data["wall_us"] // 1_000_000)
                for key, window, resets, spent, *used in data["budgets"]
            },
            held=tuple((call, tuple((key, window, n) for key, window, n in spends)) for call, spends in data["held"]),
            ended=tuple(data["ended"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotRefused("the snapshot of limits is not readable") from error
