"""Calls as lines for people, folded from the ledger's records: an intent and its outcome are one line."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ledger.reading import Record

CALL_TYPES = frozenset({"call.intent", "call.outcome", "call.denied", "call.rejected"})


@dataclass(frozen=True, slots=True)
class CallLine:
    """One attempt of a call, as far as it is known."""

    ts: str
    seq: int
    """Of the record that ended it, or of the intent while it is open."""
    call: str
    tenant: str
    account: str | None
    run: str | None
    verdict: str
    """`allow`, `deny`, `reject`, or `open` while there is no outcome."""
    operation: str
    http: int | None
    """Status the agent was answered with."""
    millis: float | None
    result: str | None
    """Of an outcome: confirmed, failed, timeout, aborted, indeterminate."""
    codes: tuple[str, ...]
    rules: tuple[str, ...]
    would_deny: tuple[str, ...]
    """Of a call that its account's stage let out: the codes with which the rules would have denied it."""
    cost_micros: int
    currency: str | None
    units: Mapping[str, int]
    """What limits counted beside the price, by meter, in millionths."""


class Fold:
    """Turns records, in order, into lines. Open intents wait for their outcome.

    `earlier` finds the record of a seq that lies before the first one taken: the intent of a call that was in flight
    then. Without it such a call's line lacks what only its intent says.
    """

    def __init__(self, earlier: Callable[[int], Record | None] = lambda seq: None) -> None:
        self._earlier = earlier
        self._open: dict[int, Record] = {}

    def take(self, records: Iterable[Record]) -> Iterator[CallLine]:
        """The lines that these records complete."""
        for record in records:
            if record.type == "call.intent":
                self._open[record.seq] = record
            elif record.type == "call.outcome":
                seq = int(str(record.body["intent"]))
                yield _outcome(record, self._open.pop(seq, None) or self._earlier(seq))
            elif record.type == "call.denied":
                yield _denied(record)
            elif record.type == "call.rejected":
                yield _rejected(record)

    def still_open(self) -> Iterator[CallLine]:
        """Lines of the intents without an outcome yet."""
        for record in self._open.values():
            yield _line(record, record.body, verdict="open")


def shown(line: CallLine) -> str:
    """The line as `exeat calls tail` prints it."""
    verdict = line.verdict
    if line.result not in (None, "confirmed"):
        verdict = str(line.result).upper()
    elif verdict != "allow":
        verdict = verdict.upper()
    why = ", ".join(line.codes if line.verdict in ("deny", "reject") else line.rules)
    if line.verdict == "deny" and line.rules:
        why += f" ({', '.join(line.rules)})"
    if line.would_deny:
        why += f" (would deny {', '.join(line.would_deny)})"
    parts = [
        line.ts[11:19],
        line.call[:12].ljust(12),
        verdict.ljust(7),
        line.operation.ljust(44),
        ("" if line.http is None else str(line.http)).rjust(3),
        ("" if line.millis is None else f"{line.millis:.0f}ms").rjust(8),
        why,
    ]
    return "  ".join(parts).rstrip()


def _outcome(record: Record, intent: Record | None) -> CallLine:
    outcome: dict[str, Any] = record.body
    result: dict[str, Any] = outcome["result"]
    millis = None
    if result["started_us"] is not None and result["ended_us"] is not None:
        millis = (result["ended_us"] - result["started_us"]) / 1000
    body: dict[str, Any] = {**(intent.body if intent is not None else {}), "cost": outcome.get("cost")}
    line = _line(record, body, verdict="allow")
    return CallLine(
        **{
            **_members(line),
            "call": outcome["call"],
            "http": result["http"],
            "millis": millis,
            "result": result["status"],
            "codes": () if result["code"] is None else (result["code"],),
        }
    )


def _denied(record: Record) -> CallLine:
    return _line(record, record.body, verdict="deny")


def _rejected(record: Record) -> CallLine:
    rejected: dict[str, Any] = record.body
    line = _line(record, rejected, verdict="reject")
    return CallLine(**{**_members(line), "codes": (rejected["reason"]["code"],)})


def _line(record: Record, body: dict[str, Any], *, verdict: str) -> CallLine:
    agent, operation = body.get("agent") or {}, body.get("op") or {}
    decision, cost = body.get("decision") or {}, body.get("cost") or {}
    codes = tuple(reason["code"] for reason in decision.get("reasons", ()))
    observed = decision.get("verdict") == "allow"
    return CallLine(
        ts=record.ts,
        seq=record.seq,
        call=str(body.get("call") or "-"),
        tenant=record.tenant,
        account=agent.get("id"),
        run=agent.get("run"),
        verdict=verdict,
        operation=_operation(operation),
        http=(body.get("answered") or {}).get("http"),
        millis=None,
        result=None,
        codes=() if observed else codes,
        rules=tuple(decision.get("rules", ())),
        would_deny=tuple(dict.fromkeys(codes)) if observed else (),
        cost_micros=int(cost.get("micro", 0)),
        currency=cost.get("cur"),
        units=cost.get("units") or {},
    )


def _operation(op: dict[str, Any]) -> str:
    where = op.get("connector") or op.get("host") or "-"
    return " ".join(str(part) for part in (where, op.get("method"), op.get("route")) if part)


def _members(line: CallLine) -> dict[str, Any]:
    return {name: getattr(line, name) for name in CallLine.__slots__}
