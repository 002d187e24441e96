"""Counts calls, and what they cost, by the records of their ends.

A row is one day (in the tenant's time zone), account, workflow, run, tool and, for calls, what came back: 0 where
nobody knows. What counts as an outcome is not decided here: it is asked of these rows, by the policy of then.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from ledger import Record
from rules.claims import PRICE
from rules.limits.keys import unit_of

DENIED: Final = -1
"""In place of a status: the call was not let out."""
KEPT_DAYS: Final = 92
"""Runs are told apart for so long; what is older is kept by day, workflow and tool."""
OUTCOME_ACT: Final = "outcome.declare"

_WHO: Final = "tenant, day, account, workflow, run, tool"

type Who = tuple[str, str, str, str, str, str]


class SpendingFold:
    """Implements `control.following.Fold`."""

    name = "spending/1"
    tables: tuple[str, ...] = (
        "CREATE TABLE open_intents (seq INTEGER PRIMARY KEY, told TEXT NOT NULL)",
        f"""CREATE TABLE calls (
            tenant TEXT, day TEXT, account TEXT, workflow TEXT, run TEXT, tool TEXT, status INTEGER,
            calls INTEGER NOT NULL, attempts INTEGER NOT NULL, retries INTEGER NOT NULL, repeats INTEGER NOT NULL,
            first TEXT NOT NULL, last TEXT NOT NULL, PRIMARY KEY ({_WHO}, status)) WITHOUT ROWID""",
        f"""CREATE TABLE spent (
            tenant TEXT, day TEXT, account TEXT, workflow TEXT, run TEXT, tool TEXT, meter TEXT, unit TEXT,
            micros INTEGER NOT NULL, failed INTEGER NOT NULL, retried INTEGER NOT NULL,
            PRIMARY KEY ({_WHO}, meter, unit)) WITHOUT ROWID""",
        """CREATE TABLE declared (
            tenant TEXT, day TEXT, account TEXT, workflow TEXT, run TEXT, count INTEGER NOT NULL,
            PRIMARY KEY (tenant, day, account, workflow, run)) WITHOUT ROWID""",
        """CREATE TABLE seen (
            tenant TEXT, account TEXT, at TEXT NOT NULL, call TEXT NOT NULL, tool TEXT NOT NULL,
            PRIMARY KEY (tenant, account)) WITHOUT ROWID""",
    )

    def __init__(self, zone_of: Callable[[str], ZoneInfo]) -> None:
        """`zone_of`: where a day of a tenant begins."""
        self._zone_of = zone_of
        self._open: dict[int, list[Any]] = {}
        self._pruned = ""
        self._days: dict[str, tuple[str, ZoneInfo, str]] = {}
        """By tenant: the minute of the newest record, in UTC, and the day there. Days begin with a minute."""

    def begin(self, rows: sqlite3.Connection) -> None:
        """See `Fold.begin`."""
        self._open = {seq: json.loads(told) for seq, told in rows.execute("SELECT seq, told FROM open_intents")}

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        """See `Fold.feed`."""
        chunk = _Chunk()
        before = set(self._open)
        for record in records:
            body: dict[str, Any] = record.body
            if record.type == "call.intent":
                who = self._who(record, body["agent"], body["op"])
                # Kept as plain values: an intent that is open when the process ends is read again.
                self._open[record.seq] = [list(who), body["cost"]]
                chunk.see(who, record, body["call"])
            elif record.type == "call.outcome":
                found = self._open.pop(body["intent"], None)
                if found is not None:
                    self._ended(chunk, tuple(found[0]), body, found[1], record.ts)
            elif record.type == "call.denied" and body.get("agent") is not None and body.get("op") is not None:
                who = self._who(record, body["agent"], body["op"])
                chunk.call(who, DENIED, record.ts, attempt=body["attempt"], repeated=False)
                chunk.see(who, record, body["call"])
            elif record.type == "operator.act" and body["act"] == OUTCOME_ACT:
                self._declared(chunk, record, body["detail"])
        chunk.store(rows)
        rows.executemany("DELETE FROM open_intents WHERE seq = ?", [(seq,) for seq in before - self._open.keys()])
        rows.executemany(
            "INSERT INTO open_intents (seq, told) VALUES (?, ?)",
            [(seq, json.dumps(told)) for seq, told in self._open.items() if seq not in before],
        )
        if records:
            self._prune(rows, records[-1].ts)

    def _who(self, record: Record, agent: Mapping[str, Any], op: Mapping[str, Any]) -> Who:
        tool = op.get("tool") or f"{op.get('connector') or '-'} {op.get('method') or '-'}"
        return (
            record.tenant,
            self._day(record.tenant, record.ts),
            agent["id"],
            agent.get("workflow") or "",
            agent.get("run") or "",
            tool,
        )

    def _day(self, tenant: str, ts: str) -> str:
        zone, minute = self._zone_of(tenant), ts[:16]
        known = self._days.get(tenant)
        if known is None or known[0] != minute or known[1] is not zone:
            day = datetime.fromisoformat(ts).astimezone(zone).date().isoformat()
            known = self._days[tenant] = minute, zone, day
        return known[2]

    @staticmethod
    def _ended(chunk: "_Chunk", who: Who, body: Mapping[str, Any], most: Mapping[str, Any] | None, ts: str) -> None:
        result, cost = body["result"], body["cost"]
        answered = result["status"] == "confirmed" and result["http"] is not None
        status = result["http"] if answered else 0
        failed = not 200 <= status < 400
        # Something counts it, and nothing was set aside: it repeats what was charged before, under the same key.
        repeated = most is not None and bool(most["budget"]) and not (most["micro"] or any(amounts_of(most).values()))
        chunk.call(who, status, ts, attempt=body["attempt"], repeated=repeated)
        for meter, micros in ({} if cost is None else amounts_of(cost)).items():
            if micros:
                chunk.cost(who, meter, unit_of(meter, cost), micros, failed=failed, retried=body["attempt"] > 1)

    def _declared(self, chunk: "_Chunk", record: Record, detail: Mapping[str, str]) -> None:
        day = self._day(record.tenant, record.ts)
        who = (record.tenant, day, detail.get("account", ""), detail["workflow"], detail["run"])
        chunk.declared[who] += int(detail["count"])

    def _prune(self, rows: sqlite3.Connection, ts: str) -> None:
        """Runs of long ago are one. Once a day of the ledger."""
        today = ts[:10]
        if today == self._pruned:
            return
        self._pruned = today
        before = (date.fromisoformat(today) - timedelta(days=KEPT_DAYS)).isoformat()
        rows.execute(
            """INSERT INTO calls SELECT tenant, day, account, workflow, '', tool, status, sum(calls), sum(attempts),
            sum(retries), sum(repeats), min(first), max(last) FROM calls WHERE day < ? AND run != ''
            GROUP BY tenant, day, account, workflow, tool, status
            ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, attempts = attempts + excluded.attempts,
            retries = retries + excluded.retries, repeats = repeats + excluded.repeats,
            first = min(first, excluded.first), last = max(last, excluded.last)""",
            (before,),
        )
        rows.execute(
            """INSERT INTO spent SELECT tenant, day, account, workflow, '', tool, meter, unit, sum(micros), sum(failed),
            sum(retried) FROM spent WHERE day < ? AND run != ''
            GROUP BY tenant, day, account, workflow, tool, meter, unit
            ON CONFLICT DO UPDATE SET micros = micros + excluded.micros, failed = failed + excluded.failed,
            retried = retried + excluded.retried""",
            (before,),
        )
        rows.execute(
            """INSERT INTO declared SELECT tenant, day, account, workflow, '', sum(count) FROM declared
            WHERE day < ? AND run != '' GROUP BY tenant, day, account, workflow
            ON CONFLICT DO UPDATE SET count = count + excluded.count""",
            (before,),
        )
        for table in ("calls", "spent", "declared"):
            rows.execute(f"DELETE FROM {table} WHERE day < ? AND run != ''", (before,))  # noqa: S608 - our own names


class _Chunk:
    """What a number of records come to: one row each, however many they are."""

    def __init__(self) -> None:
        self.calls: dict[tuple[Who, int], list[Any]] = {}
        self.spent: defaultdict[tuple[Who, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.declared: defaultdict[tuple[str, str, str, str, str], int] = defaultdict(int)
        self.seen: dict[tuple[str, str], tuple[str, str, str]] = {}

    def see(self, who: Who, record: Record, call: str) -> None:
        """An account has called."""
        self.seen[who[0], who[2]] = (record.ts, call, who[5])

    def call(self, who: Who, status: int, ts: str, *, attempt: int, repeated: bool) -> None:
        """An attempt has ended."""
        row = self.calls.setdefault((who, status), [0, 0, 0, 0, ts, ts])
        row[0] += attempt == 1
        row[1] += 1
        row[2] += attempt > 1
        row[3] += repeated
        row[5] = ts

    def cost(self, who: Who, meter: str, unit: str, micros: int, *, failed: bool, retried: bool) -> None:
        """It has cost something."""
        row = self.spent[who, meter, unit]
        row[0] += micros
        row[1] += micros if failed else 0
        row[2] += micros if retried else 0

    def store(self, rows: sqlite3.Connection) -> None:
        """Added to what is there."""
        rows.executemany(
            """INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)
            ON CONFLICT DO UPDATE SET calls = calls + excluded.calls,
            attempts = attempts + excluded.attempts, retries = retries + excluded.retries,
            repeats = repeats + excluded.repeats, last = excluded.last""",
            [(*who, status, *row) for (who, status), row in self.calls.items()],
        )
        rows.executemany(
            """INSERT INTO spent VALUES (?,?,?,?,?,?,?,?,?,?,?)
            ON CONFLICT DO UPDATE SET micros = micros + excluded.micros, failed = failed + excluded.failed,
            retried = retried + excluded.retried""",
            [(*who, meter, unit, *row) for (who, meter, unit), row in self.spent.items()],
        )
        rows.executemany(
            """INSERT INTO declared (tenant, day, account, workflow, run, count) VALUES (?,?,?,?,?,?)
            ON CONFLICT DO UPDATE SET count = count + excluded.count""",
            [(*who, count) for who, count in self.declared.items()],
        )
        rows.executemany(
            """INSERT INTO seen (tenant, account, at, call, tool) VALUES (?,?,?,?,?)
            ON CONFLICT DO UPDATE SET at = excluded.at, call = excluded.call, tool = excluded.tool""",
            [(*account, *last) for account, last in self.seen.items()],
        )


def amounts_of(cost: Mapping[str, Any]) -> dict[str, int]:
    """Micro-units by meter, of a record's cost."""
    return {PRICE: int(cost["micro"]), **cost.get("units", {})}
