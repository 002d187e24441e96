"""Sees in the ledger what somebody should hear of: shares of budgets that are used up, refusals, stop orders, trouble.

Nothing of it is on a call's way. An alert is raised, with a key, before the follower stores how far it has come: read
again after a crash, the key is known. What is read late (a ledger from before, a follower that was behind) raises
nothing that is over: of budgets only the window that is now counts, of events only those of the last hour.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from control.alerts.alert import INSTALLATION, Raise, Severity
from ledger import Record
from rules.codes import Code
from rules.limits.keys import WHOLE_TENANT, charged
from rules.limits.limit import Level, Spend
from rules.limits.plan import budget_of
from rules.limits.windows import window_of
from rules.policy.compile import PolicySet, TenantPolicy
from rules.policy.values import Money

RECENT: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=62)
"""Budgets that nobody used for so long are forgotten: longer than any window but a run's."""
MOST_TOLD: Final = 10_000
_DEGRADED: Final = "degraded.begin"
_WHOLE_AGAIN: Final = "degraded.end"

type _Limits = Mapping[str, tuple[tuple[TenantPolicy, Spend], ...]]


class AlertsFold:
    """Implements `control.following.Fold`."""

    name = "alerts/1"
    tables: tuple[str, ...] = (
        "CREATE TABLE alert_intents (seq INTEGER PRIMARY KEY, told TEXT NOT NULL)",
        """CREATE TABLE alert_budgets (
            key TEXT PRIMARY KEY, window TEXT NOT NULL, micros INTEGER NOT NULL, at TEXT NOT NULL) WITHOUT ROWID""",
    )

    def __init__(
        self,
        policy: Callable[[], PolicySet | None],
        raise_alert: Callable[[Raise], object],
        now: Callable[[], float],
    ) -> None:
        """`raise_alert` makes an alert durable, once for its key."""
        self._policy = policy
        self._raise = raise_alert
        self._now = now
        self._limits: tuple[str, _Limits] = ("", {})
        self._watched: dict[str, tuple[tuple[TenantPolicy, Spend], ...]] = {}
        """By a budget's key: the limits of which somebody wants to hear."""
        self._pruned = ""
        self._told: set[str] = set()
        """Keys of alerts that were raised: what is refused a thousand times asks the database once."""

    def begin(self, rows: sqlite3.Connection) -> None:
        """See `Fold.begin`: nothing is kept in memory."""

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        """See `Fold.feed`."""
        counted = _Counted(rows)
        limits = self._limits_now()
        for record in records:
            body: dict[str, Any] = record.body
            if record.type == "call.intent" and body["cost"] is not None and body["cost"]["budget"]:
                counted.begun(record.seq, body["agent"], body["cost"], record.ts)
                self._look(counted, limits, body["cost"]["budget"], body["agent"])
            elif record.type == "call.outcome":
                # What was a guess can come to more: then it is this that reaches a share, perhaps the last to do so.
                grown = None if body["cost"] is None else counted.ended(body["intent"], body["cost"])
                if grown is not None:
                    self._look(counted, limits, body["cost"]["budget"], grown)
            elif self._is_recent(record):
                self._event(record, body)
        counted.store()
        if records and records[-1].ts[:10] != self._pruned:
            self._pruned = records[-1].ts[:10]
            before = datetime.fromisoformat(records[-1].ts) - KEPT
            rows.execute("DELETE FROM alert_budgets WHERE at < ?", (before.isoformat(),))

    def _is_recent(self, record: Record) -> bool:
        return self._now() - datetime.fromisoformat(record.ts).timestamp() < RECENT.total_seconds()

    # budgets

    def _look(self, counted: "_Counted", limits: _Limits, names: Sequence[str], agent: Mapping[str, Any]) -> None:
        """Thresholds that this call has crossed are told of."""
        for name in names:
            key, _, window = name.rpartition("/")
            for policy, spend in self._watching(key, limits):
                now = window_of(spend.per, datetime.fromtimestamp(self._now(), UTC), policy.timezone)
                if window != now.id:
                    continue
                used = counted.used(key)
                for share in spend.alert:
                    if used * 100 >= spend.max_micros * share:
                        self._threshold(policy.tenant, name, spend, share, used, now.resets_at, agent)

    def _watching(self, key: str, limits: _Limits) -> tuple[tuple[TenantPolicy, Spend], ...]:
        found = self._watched.get(key)
        if found is None:
            if len(self._watched) >= MOST_TOLD:
                self._watched.clear()
            of_all = limits.get("/".join(key.split("/")[:4]), ())
            found = self._watched[key] = tuple(one for one in of_all if one[1].alert)
        return found

    def _threshold(
        self,
        tenant: str,
        name: str,
        spend: Spend,
        share: int,
        used: int,
        resets_at: int,
        agent: Mapping[str, Any],
    ) -> None:
        _, scope, _, per, *by, window = name.split("/")
        whose = "all accounts together" if scope == WHOLE_TENANT else scope
        most, left = spend.max_micros, max(0, spend.max_micros - used)
        limit = f"{Money(most, spend.unit)} of {spend.meter} per {per}"
        text = f"{tenant}: {whose} has used {used * 100 // most} % of {limit}"
        detail = {
            "account": agent["id"],
            "limit": f"{spend.meter} {Money(most, spend.unit)} per {per}",
            "whose": scope,
            "counted_by": by[0] if by else "",
            "window": window,
            "threshold": f"{share}%",
            "used": str(Money(used, spend.unit)),
            "left": str(Money(left, spend.unit)),
            "resets": datetime.fromtimestamp(resets_at, UTC).isoformat() if resets_at else "",
            "run": agent.get("run") or "",
            "workflow": agent.get("workflow") or "",
        }
        severity = Severity.CRITICAL if share >= 100 else Severity.WARNING
        once = f"spend.threshold {name} {share} {most}"
        self._tell(Raise(tenant, "spend.threshold", severity, text, detail, once))

    def _limits_now(self) -> _Limits:
        policy = self._policy()
        if policy is None:
            self._watched = {}
            return {}
        if self._limits[0] != policy.digest:
            found: dict[str, tuple[tuple[TenantPolicy, Spend], ...]] = {}
            for tenant in policy.tenants.values():
                levels = [Level(tenant.tenant, WHOLE_TENANT, tenant.limits)]
                levels += [Level(tenant.tenant, name, account.limits) for name, account in tenant.accounts.items()]
                for level in levels:
                    for spend in level.limits.spends:
                        key = "/".join(budget_of(level, spend).key)
                        found[key] = (*found.get(key, ()), (tenant, spend))
            self._limits = policy.digest, found
            self._watched = {}
        return self._limits[1]

    def _tell(self, wanted: Raise) -> None:
        if wanted.once is None or wanted.once in self._told:
            return
        self._raise(wanted)
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told.add(wanted.once)

    # events

    def _event(self, record: Record, body: Mapping[str, Any]) -> None:
        if record.type == "call.denied":
            codes = {reason["code"] for reason in body["decision"]["reasons"]}
            if Code.SPEND_CAP_REACHED in codes and body.get("agent") is not None:
                account, day = body["agent"]["id"], record.ts[:10]
                text = f"{record.tenant}: calls of {account} are refused, a spend cap is reached"
                detail = {"account": account, "call": body["call"], "run": body["agent"].get("run") or ""}
                once = f"spend.refused {record.tenant}/{account} {day}"
                self._tell(Raise(record.tenant, "spend.refused", Severity.WARNING, text, detail, once))
        elif record.type == "revocation.issue":
            target = body["target"]
            named = "/".join(part for part in (target.get("tenant"), target.get("name")) if part)
            text = f"revoked: {target['kind']} {named}".strip()
            detail = {"epoch": str(body["epoch"]), "reason": body["reason"], "by": body["actor"]["name"]}
            tenant = target.get("tenant") or INSTALLATION
            once = f"revocation {body['epoch']}"
            self._tell(Raise(tenant, "revocation", Severity.CRITICAL, text, detail, once))
        elif record.type == "operator.act" and body["act"] == _DEGRADED:
            about = body["detail"]
            text = f"degraded: {about['control']}: {about['why']}"
            detail = {name: about[name] for name in ("control", "mode", "nodes", "since") if name in about}
            once = f"degraded {about['episode']}"
            self._tell(Raise(INSTALLATION, "control.degraded", Severity.CRITICAL, text, detail, once))
        elif record.type == "operator.act" and body["act"] == _WHOLE_AGAIN:
            about = body["detail"]
            text = f"whole again: {about['control']}, {about['since']} to {about['until']}"
            detail = {name: about[name] for name in ("control", "nodes", "since", "until", "times") if name in about}
            once = f"recovered {about['episode']}"
            self._tell(Raise(INSTALLATION, "control.recovered", Severity.NOTICE, text, detail, once))
        elif record.type == "ledger.halt" and body["phase"] == "end":
            once = f"ledger.halt {record.seq}"
            self._tell(
                Raise(INSTALLATION, "ledger.recovered", Severity.NOTICE, "the ledger takes calls again", {}, once)
            )
        elif record.type == "ledger.halt":
            text = f"the ledger takes no calls: {body['reason']}"
            once = f"ledger.halt {record.seq}"
            self._tell(Raise(INSTALLATION, "ledger.halt", Severity.CRITICAL, text, {}, once))


type _Charge = tuple[int, str, str]
"""Micro-units, budget and window."""


def _written(agent: Mapping[str, Any], charges: list[_Charge]) -> str:
    """An intent that is still open: the agent as JSON, then a line for each charge."""
    who = json.dumps({name: agent.get(name) for name in ("id", "run", "workflow")})
    return "\n".join([who, *(f"{micros} {key}/{window}" for micros, key, window in charges)])


def _read(told: str) -> tuple[Mapping[str, Any], list[_Charge]]:
    who, *lines = told.split("\n")
    charges: list[_Charge] = []
    for line in lines:
        micros, _, name = line.partition(" ")
        key, _, window = name.rpartition("/")
        charges.append((int(micros), key, window))
    return json.loads(who), charges


class _Counted:
    """Budgets while a number of records is read: each row is read and written once, however many calls it counts."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        self._budgets: dict[str, tuple[str, int, str]] = {}
        """Window, what is used of it, when it was last charged."""
        self._begun: dict[int, tuple[Mapping[str, Any], list[_Charge]]] = {}
        """By intent: the agent, and what its budgets were charged."""
        self._ended: list[tuple[int]] = []

    def used(self, key: str) -> int:
        """In the newest window."""
        return self._budget(key)[1]

    def begun(self, seq: int, agent: Mapping[str, Any], cost: Mapping[str, Any], ts: str) -> None:
        """Its budgets hold the most that it can cost; a window older than the newest seen counts against that."""
        charges: list[_Charge] = []
        for name in cost["budget"]:
            key, _, window = name.rpartition("/")
            newest, used, _ = self._budget(key)
            if window > newest:
                newest, used = window, 0
            micros = charged(name, cost)
            self._budgets[key] = newest, used + micros, ts
            charges.append((micros, key, newest))
        self._begun[seq] = agent, charges

    def ended(self, seq: int, cost: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What was set aside becomes what was spent; the agent, where that is more."""
        begun = self._begun.pop(seq, None)
        if begun is None:
            found = self._rows.execute("SELECT told FROM alert_intents WHERE seq = ?", (seq,)).fetchone()
            if found is None:
                return None
            begun = _read(found[0])
            self._ended.append((seq,))
        agent, charges = begun
        grown = False
        for micros, key, window in charges:
            newest, used, ts = self._budget(key)
            if newest == window:
                more = charged(f"{key}/{window}", cost) - micros
                grown = grown or more > 0
                self._budgets[key] = newest, used + more, ts
        return agent if grown else None

    def store(self) -> None:
        """All of it is in the database."""
        self._rows.executemany(
            "INSERT OR REPLACE INTO alert_budgets (key, window, micros, at) VALUES (?, ?, ?, ?)",
            [(key, *row) for key, row in self._budgets.items()],
        )
        self._rows.executemany("DELETE FROM alert_intents WHERE seq = ?", self._ended)
        self._rows.executemany(
            "INSERT INTO alert_intents (seq, told) VALUES (?, ?)",
            [(seq, _written(agent, charges)) for seq, (agent, charges) in self._begun.items()],
        )

    def _budget(self, key: str) -> tuple[str, int, str]:
        found = self._budgets.get(key)
        if found is None:
            query = "SELECT window, micros, at FROM alert_budgets WHERE key = ?"
            found = self._budgets[key] = self._rows.execute(query, (key,)).fetchone() or ("", 0, "")
        return found


__all__ = ["AlertsFold"]
