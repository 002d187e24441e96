"""Sees in the ledger that an account uses much more than it usually does, while the hour or the day is under way.

Counted is what calls came to when they ended, by hour; calls themselves when they are let out. It is no cap: a call is
judged by what was recorded before. What is read late judges nothing: only the window that is now is.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from control.alerts.alert import Raise, Severity
from control.spending.fold import amounts_of
from control.spending.usual import DAYS, usual_of
from ledger import Record
from rules.claims import PRICE
from rules.limits.keys import WHOLE_TENANT, unit_of
from rules.limits.limit import Spike
from rules.limits.windows import Window, window_of
from rules.meters.calls import CALLS
from rules.meters.meter import ONE
from rules.policy.compile import PolicySet, TenantPolicy
from rules.policy.limit_models import write_times
from rules.policy.values import Money

MOST_TOLD: Final = 10_000

type Counted = tuple[str, str, str, str]
"""Tenant, account or `*`, meter, unit."""
type Stop = Callable[[Raise, str | None, str], object]
"""Refuses the calls of an account, or of a tenant, and raises the alert; once for its key. The last is why."""


class SpikesFold:
    """Implements `control.following.Fold`."""

    name = "spikes/1"
    tables: tuple[str, ...] = (
        "CREATE TABLE spike_intents (seq INTEGER PRIMARY KEY, account TEXT NOT NULL)",
        """CREATE TABLE hourly (
            tenant TEXT, account TEXT, meter TEXT, unit TEXT, hour TEXT, micros INTEGER NOT NULL,
            PRIMARY KEY (tenant, account, meter, unit, hour)) WITHOUT ROWID""",
    )

    def __init__(
        self,
        policy: Callable[[], PolicySet | None],
        zone_of: Callable[[str], ZoneInfo],
        raise_alert: Callable[[Raise], object],
        stop: Stop,
        now: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._zone_of = zone_of
        self._raise = raise_alert
        self._stop = stop
        self._now = now
        self._open: dict[int, str] = {}
        self._usual: dict[tuple[Counted, str], tuple[str, int | None]] = {}
        """By what is counted and period: of which window, and how much."""
        self._told: set[str] = set()
        self._pruned = ""

    def begin(self, rows: sqlite3.Connection) -> None:
        """See `Fold.begin`."""
        self._open = dict(rows.execute("SELECT seq, account FROM spike_intents"))
        self._usual.clear()

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        """See `Fold.feed`."""
        used: defaultdict[tuple[Counted, str], int] = defaultdict(int)
        hours: dict[tuple[str, str], str] = {}
        before = set(self._open)
        for record in records:
            for counted, micros in self._counted(record):
                minute = record.tenant, record.ts[:16]  # hours begin with a minute
                hour = hours.get(minute)
                if hour is None:
                    at = datetime.fromisoformat(record.ts)
                    hour = hours[minute] = window_of("hour", at, self._zone_of(record.tenant)).id
                used[counted, hour] += micros
        for (counted, hour), micros in tuple(used.items()):
            tenant, _, meter, unit = counted
            used[(tenant, WHOLE_TENANT, meter, unit), hour] += micros
        rows.executemany(
            "INSERT INTO hourly VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET micros = micros + excluded.micros",
            [(*counted, hour, micros) for (counted, hour), micros in used.items()],
        )
        rows.executemany("DELETE FROM spike_intents WHERE seq = ?", [(seq,) for seq in before - self._open.keys()])
        rows.executemany(
            "INSERT INTO spike_intents VALUES (?, ?)",
            [(seq, account) for seq, account in self._open.items() if seq not in before],
        )
        if records:
            self._prune(rows, records[-1].ts[:10])
        for counted, hour in used:
            self._judge(rows, counted, hour)

    def _counted(self, record: Record) -> Iterator[tuple[Counted, int]]:
        body: dict[str, Any] = record.body
        if record.type == "call.intent":
            account = body["agent"]["id"]
            if body["cost"] is not None:
                self._open[record.seq] = account
            if body["attempt"] == 1:
                yield (record.tenant, account, CALLS, CALLS), ONE
        elif record.type == "call.outcome":
            whose, cost = self._open.pop(body["intent"], None), body["cost"]
            if whose is None or cost is None:
                return
            for meter, micros in amounts_of(cost).items():
                if micros and meter != CALLS:
                    yield (record.tenant, whose, meter, unit_of(meter, cost)), micros

    def _prune(self, rows: sqlite3.Connection, today: str) -> None:
        if today == self._pruned:
            return
        self._pruned = today
        before = (datetime.fromisoformat(today) - timedelta(days=DAYS + 2)).date().isoformat()
        rows.execute("DELETE FROM hourly WHERE hour < ?", (before,))

    # judging

    def _judge(self, rows: sqlite3.Connection, counted: Counted, hour: str) -> None:
        """Spikes of which this was the last straw are told of, and stopped where the policy says so."""
        tenant, account, meter, unit = counted
        policy_set = self._policy()
        policy = None if policy_set is None else policy_set.tenants.get(tenant)
        if policy is None:
            return
        for spike in _about(policy, account):
            if (spike.meter, spike.unit) != (meter, unit):
                continue
            window = window_of(spike.per, datetime.fromtimestamp(self._now(), UTC), policy.timezone)
            then = "stop" if spike.stop else "alert"
            what = f"{tenant}/{account}/{meter}:{unit}/{spike.per}/{window.id}"
            # By its height too: an account can have one of its own and one of its tenant's, reached later.
            once = f"spend.spike {what} {then} {spike.over_percent} {spike.least_micros}"
            if not hour.startswith(window.id) or once in self._told:
                continue
            usual = self._usual_of(rows, counted, spike.per, window.id)
            used = _used(rows, counted, window.id)
            if usual is None or used < spike.least_micros or used * 100 <= usual * spike.over_percent:
                continue
            self._tell(tenant, account, spike, window, used, usual, once)
            if len(self._told) >= MOST_TOLD:
                self._told.clear()
            self._told.add(once)

    def _usual_of(self, rows: sqlite3.Connection, counted: Counted, per: str, window: str) -> int | None:
        """Asked once a window: what is past does not change any more."""
        known = self._usual.get((counted, per))
        if known is None or known[0] != window:
            known = self._usual[counted, per] = window, usual_of(per, window, _past(rows, counted, per, window))
        return known[1]

    def _tell(self, tenant: str, account: str, spike: Spike, window: Window, used: int, usual: int, once: str) -> None:
        whole = account == WHOLE_TENANT
        whose = "all accounts together" if whole else account
        came, often = _amount(spike, used), _amount(spike, usual)
        why = f"{came} in one {spike.per}, and {often} is usual"
        text = f"{tenant}: {whose}: {why}"
        detail = {
            "account": "" if whole else account,
            "whose": account,
            "meter": spike.meter,
            "used": came,
            "usual": often,
            "over": write_times(spike.over_percent),
            "per": spike.per,
            "window": window.id,
            "resets": datetime.fromtimestamp(window.resets_at, UTC).isoformat(),
            "then": "stop" if spike.stop else "alert",
        }
        if not spike.stop:
            self._raise(Raise(tenant, "spend.spike", Severity.WARNING, text, detail, once))
            return
        resume = f"exeat resume tenant {tenant}" if whole else f"exeat resume account {account} --tenant {tenant}"
        told = f"{text}; suspended until somebody runs: {resume} --reason WHY"
        self._stop(Raise(tenant, "spend.spike", Severity.CRITICAL, told, detail, once), None if whole else account, why)


def _about(policy: TenantPolicy, account: str) -> Iterator[Spike]:
    """The spikes that are about an account by itself, or about the whole tenant."""
    if account == WHOLE_TENANT:
        yield from (spike for spike in policy.limits.spikes if not spike.by_account)
    elif account in policy.accounts:
        yield from policy.accounts[account].limits.spikes
        yield from (spike for spike in policy.limits.spikes if spike.by_account)


def _used(rows: sqlite3.Connection, counted: Counted, window: str) -> int:
    # An hour is the window itself; of a day they begin with its date, and "U" follows "T".
    query = f"SELECT coalesce(sum(micros), 0) FROM hourly WHERE {_OF} AND hour >= ? AND hour < ?"  # noqa: S608
    found: int = rows.execute(query, (*counted, window, f"{window}U")).fetchone()[0]
    return found


def _past(rows: sqlite3.Connection, counted: Counted, per: str, window: str) -> Mapping[str, int]:
    length = len(window)
    first = (datetime.fromisoformat(window[:10]) - timedelta(days=DAYS)).date().isoformat()
    query = (
        f"SELECT substr(hour, 1, {length}) AS of, sum(micros) FROM hourly WHERE {_OF} AND hour >= ? AND hour < ?"  # noqa: S608
        " GROUP BY of"
    )
    return dict(rows.execute(query, (*counted, first, window)))


_OF: Final = "tenant = ? AND account = ? AND meter = ? AND unit = ?"


def _amount(spike: Spike, micros: int) -> str:
    """`12.5 USD`, `300 calls`, `12.5 USD of stripe.refund.create.amount`."""
    shown = str(Money(micros, spike.unit))
    return shown if spike.currency is None or spike.meter == PRICE else f"{shown} of {spike.meter}"


__all__ = ["SpikesFold"]
