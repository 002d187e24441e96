"""Records become lines: one for each attempt, the right verdict, nothing invented."""

from typing import Any

from control.call_lines import Fold, shown
from ledger.reading import Record

OP = {
    "connector": "tickets",
    "tool": None,
    "method": "GET",
    "host": "h",
    "port": 443,
    "scheme": "https",
    "route": "/t/{id}",
    "effect": "read",
}
AGENT = {"id": "support", "workflow": "w", "run": "r_1", "credential": "k_1", "auth": "jwt"}
COST = {"micro": 2000, "cur": "USD", "budget": []}


def record(seq: int, type_: str, **body: Any) -> Record:
    ts = f"2026-11-20T14:02:{seq:02d}.000000Z"
    return Record(seq, type_, "acme", ts, {"call": "c_9f2abcdefghijklmnopqrst", **body}, b"")


def intent(seq: int) -> Record:
    decision = {"verdict": "allow", "rules": ["read-tickets"], "reasons": []}
    return record(seq, "call.intent", agent=AGENT, op=OP, decision=decision, cost=COST)


def outcome(seq: int, of: int, status: str = "confirmed", http: int | None = 200, code: str | None = None) -> Record:
    result = {
        "status": status,
        "http": http,
        "err": None,
        "code": code,
        "sent": True,
        "started_us": 1_000,
        "ended_us": 42_000,
    }
    return record(seq, "call.outcome", intent=of, attempt=1, result=result, resp=None, cost=COST)


def test_an_intent_and_its_outcome_are_one_line() -> None:
    fold = Fold()
    assert list(fold.take([intent(1)])) == []
    (line,) = fold.take([outcome(2, of=1)])
    assert (line.account, line.run, line.verdict, line.http, line.millis) == ("support", "r_1", "allow", 200, 41.0)
    assert (line.rules, line.cost_micros, line.currency) == (("read-tickets",), 2000, "USD")
    assert shown(line).split() == [
        "14:02:02",
        "c_9f2abcdefg",
        "allow",
        "tickets",
        "GET",
        "/t/{id}",
        "200",
        "41ms",
        "read-tickets",
    ]
    assert list(fold.still_open()) == []


def test_an_outcome_that_is_not_confirmed_says_what_it_is() -> None:
    fold = Fold()
    lines = list(fold.take([intent(1), outcome(2, of=1, status="aborted", http=None, code="revoked_in_flight")]))
    assert lines[0].codes == ("revoked_in_flight",)
    assert " ABORTED " in shown(lines[0])


def test_an_outcome_whose_intent_lies_before_what_was_read_is_still_shown() -> None:
    (line,) = Fold().take([outcome(5, of=1)])
    assert (line.account, line.operation, line.http) == (None, "-", 200)


def test_a_denial_says_code_and_rule() -> None:
    decision = {
        "verdict": "deny",
        "rules": ["never-delete"],
        "reasons": [{"code": "rule_denied", "rule": "never-delete"}],
    }
    (line,) = Fold().take(
        [record(3, "call.denied", agent=AGENT, op=OP, decision=decision, cost=None, answered={"http": 403})]
    )
    assert (line.verdict, line.http, line.codes) == ("deny", 403, ("rule_denied",))
    assert shown(line).endswith("rule_denied (never-delete)")


def test_a_rejection_without_agent_or_operation_is_a_line() -> None:
    (line,) = Fold().take(
        [
            record(
                4,
                "call.rejected",
                agent=None,
                op=None,
                reason={"code": "credential_missing"},
                source="local",
                door="forward",
            )
        ]
    )
    assert (line.verdict, line.account, line.codes) == ("reject", None, ("credential_missing",))


def test_an_open_intent_is_shown_as_open() -> None:
    fold = Fold()
    list(fold.take([intent(1)]))
    (line,) = fold.still_open()
    assert (line.verdict, line.http, line.result) == ("open", None, None)
