"""Sees in the ledger what somebody should hear of: shares of budgets that are used up, refusals, stop orders, trouble.

Nothing of it is on a call's way. An alert is raised, with a key, before the follower stores how far it has come: read
again after a crash, the key is known. What is read late (a ledger from before, a follower that was behind) raises
nothing that is over: of budgets only the window that is now counts, of events only those of the last hour.
"""

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

RECENT: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=62)
"""Budgets that nobody used for so long are forgotten: longer than any window but a run's."""
_DEGRADED: Final = "degraded.begin"

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
        self._pruned = ""

    def begin(self, rows: sqlite3.Connection) -> None:
        """See `Fold.begin`: nothing is kept in memory."""

    def feed(self, rows: sqlite3.Connection, records: Sequence[Record]) -> None:
        """See `Fold.feed`."""
        for record in records:
            body: dict[str, Any] = record.body
            if record.type == "call.intent" and body["cost"] is not None and body["cost"]["budget"]:
                names = body["cost"]["budget"]
                charges = [_charge(rows, name, charged(name, body["cost"]), record.ts) for name in names]
                rows.execute("INSERT INTO alert_intents VALUES (?, ?)", (record.seq, "\n".join(charges)))
                self._look(rows, names, body["agent"])
            elif record.type == "call.outcome" and body["cost"] is not None:
                self._ended(rows, body)
            elif self._is_recent(record):
                self._event(record, body)
        if records and records[-1].ts[:10] != self._pruned:
            self._pruned = records[-1].ts[:10]
            before = datetime.fromisoformat(records[-1].ts) - KEPT
            rows.execute("DELETE FROM alert_budgets WHERE at < ?", (before.isoformat(),))

    @staticmethod
    def _ended(rows: sqlite3.Connection, body: Mapping[str, Any]) -> None:
        """What was set aside becomes what was spent: never more."""
        found = rows.execute("SELECT told FROM alert_intents WHERE seq = ?", (body["intent"],)).fetchone()
        if found is None:
            return
        rows.execute("DELETE FROM alert_intents WHERE seq = ?", (body["intent"],))
        for charge in found[0].split("\n"):
            micros, _, name = charge.partition(" ")
            key, _, window = name.rpartition("/")
            less = charged(name, body["cost"]) - int(micros)
            rows.execute(
                "UPDATE alert_budgets SET micros = micros + ? WHERE key = ? AND window = ?", (less, key, window)
            )

    def _is_recent(self, record: Record) -> bool:
        return self._now() - datetime.fromisoformat(record.ts).timestamp() < RECENT.total_seconds()

    # budgets

    def _look(self, rows: sqlite3.Connection, names: Sequence[str], agent: Mapping[str, Any]) -> None:
        """Thresholds that this call has crossed are told of."""
        limits = self._limits_now()
        for name in names:
            key, _, window = name.rpartition("/")
            parts = key.split("/")
            for policy, spend in limits.get("/".join(parts[:4]), ()):
                now = window_of(spend.per, datetime.fromtimestamp(self._now(), UTC), policy.timezone)
                if not spend.alert or window != now.id:
                    continue
                used = rows.execute("SELECT micros FROM alert_budgets WHERE key = ?", (key,)).fetchone()[0]
                for share in spend.alert:
                    if used * 100 >= spend.max_micros * share:
                        self._threshold(policy.tenant, name, spend, share, used, now.resets_at, agent)

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
        limit = f"{_amount(most, spend.unit)} of {spend.meter} per {per}"
        text = f"{tenant}: {whose} has used {used * 100 // most} % of {limit}"
        detail = {
            "account": agent["id"],
            "limit": f"{spend.meter} {_amount(most, spend.unit)} per {per}",
            "whose": scope,
            "counted_by": by[0] if by else "",
            "window": window,
            "threshold": f"{share}%",
            "used": _amount(used, spend.unit),
            "left": _amount(left, spend.unit),
            "resets": datetime.fromtimestamp(resets_at, UTC).isoformat() if resets_at else "",
            "run": agent.get("run") or "",
            "workflow": agent.get("workflow") or "",
        }
        severity = Severity.CRITICAL if share >= 100 else Severity.WARNING
        once = f"spend.threshold {name} {share} {most}"
        self._raise(Raise(tenant, "spend.threshold", severity, text, detail, once))

    def _limits_now(self) -> _Limits:
        policy = self._policy()
        if policy is None:
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
        return self._limits[1]

    # events

    def _event(self, record: Record, body: Mapping[str, Any]) -> None:
        if record.type == "call.denied":
            codes = {reason["code"] for reason in body["decision"]["reasons"]}
            if Code.SPEND_CAP_REACHED in codes and body.get("agent") is not None:
                account, day = body["agent"]["id"], record.ts[:10]
                text = f"{record.tenant}: calls of {account} are refused, a spend cap is reached"
                detail = {"account": account, "call": body["call"], "run": body["agent"].get("run") or ""}
                once = f"spend.refused {record.tenant}/{account} {day}"
                self._raise(Raise(record.tenant, "spend.refused", Severity.WARNING, text, detail, once))
        elif record.type == "revocation.issue":
            target = body["target"]
            named = "/".join(part for part in (target.get("tenant"), target.get("name")) if part)
            text = f"revoked: {target['kind']} {named}".strip()
            detail = {"epoch": str(body["epoch"]), "reason": body["reason"], "by": body["actor"]["name"]}
            tenant = target.get("tenant") or INSTALLATION
            once = f"revocation {body['epoch']}"
            self._raise(Raise(tenant, "revocation", Severity.CRITICAL, text, detail, once))
        elif record.type == "operator.act" and body["act"] == _DEGRADED:
            about = body["detail"]
            text = f"degraded: {about['control']}: {about['why']}"
            detail = {name: about[name] for name in ("control", "mode", "nodes", "since") if name in about}
            once = f"degraded {about['episode']}"
            self._raise(Raise(INSTALLATION, "control.degraded", Severity.CRITICAL, text, detail, once))
        elif record.type == "ledger.halt" and body["phase"] == "begin":
            text = f"the ledger takes no calls: {body['reason']}"
            once = f"ledger.halt {record.seq}"
            self._raise(Raise(INSTALLATION, "ledger.halt", Severity.CRITICAL, text, {}, once))


def _charge(rows: sqlite3.Connection, name: str, micros: int, ts: str) -> str:
    """The budget holds it; a window that is older than the newest seen counts against that."""
    key, _, window = name.rpartition("/")
    (charged_to,) = rows.execute(
        """INSERT INTO alert_budgets VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
        micros = CASE WHEN excluded.window > window THEN excluded.micros ELSE micros + excluded.micros END,
        window = max(window, excluded.window), at = excluded.at RETURNING window""",
        (key, window, micros, ts),
    ).fetchone()
    return f"{micros} {key}/{charged_to}"


def _amount(micros: int, unit: str) -> str:
    whole, rest = divmod(micros, 1_000_000)
    fraction = f"{rest:06d}".rstrip("0")
    return f"{whole}.{fraction} {unit}" if fraction else f"{whole} {unit}"


__all__ = ["AlertsFold"]
