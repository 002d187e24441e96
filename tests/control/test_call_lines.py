"""Records become lines: one for each attempt, the right verdict, nothing invented."""

import json
from pathlib import Path
from typing import Any

import pytest

from control.call_lines import Fold, shown
from control.cli import run_command
from control.cli.calls import _cost
from ledger import Ledger, Limits, MemoryLockStore
from ledger.directory import segment_files
from ledger.reading import Record

POLICY = "sha256:" + "1" * 64
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


def test_an_intent_before_what_was_read_is_looked_up() -> None:
    (line,) = Fold(lambda seq: intent(seq) if seq == 1 else None).take([outcome(5, of=1)])
    assert (line.account, line.rules) == ("support", ("read-tickets",))


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


def test_a_call_that_only_its_stage_let_out_says_what_the_rules_would_have_said() -> None:
    reasons = [{"code": "rule_denied", "rule": "never-delete"}, {"code": "rule_denied", "rule": "never-write"}]
    decision = {"verdict": "allow", "rules": ["stage:observe"], "reasons": reasons}
    observed = record(1, "call.intent", agent=AGENT, op=OP, decision=decision, cost=COST)
    (line,) = Fold().take([observed, outcome(2, of=1)])
    assert (line.verdict, line.codes, line.would_deny) == ("allow", (), ("rule_denied",))
    assert shown(line).endswith(" stage:observe (would deny rule_denied)")


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


def ledger_of(folder: Path, calls: int) -> Path:
    """A real ledger in small segments, with so many calls."""
    limits = Limits(segment_bytes=8192)
    ledger = Ledger.create(
        folder / "ledger", keys=folder / "keys", lock_store=MemoryLockStore(), origin="t/1", limits=limits
    )
    ledger.submit(
        "policy.activate", "-",
        {"policy": POLICY, "previous": None, "actor": {"kind": "uid", "id": "0", "name": "r"}, "files": []},
    ).result(10)  # fmt: skip
    env = {"proxy": "0", "config": "c", "worker": "w", "unsafe": []}
    commit = "hmac-sha256:" + "0" * 64
    decision = {
        "verdict": "allow", "policy": POLICY, "epoch": 3, "rules": ["read-tickets"], "reasons": [],
        "inputs": commit, "approvals": [],
    }  # fmt: skip
    for n in range(calls):
        call = f"c_{n:022d}"
        seq = ledger.submit(
            "call.intent", "acme",
            {
                "call": call, "attempt": 1, "agent": AGENT, "op": OP, "decision": decision, "secret": None,
                "cost": None,
                "env": env, "req": {"commit": commit, "len": 0, "media": None},
            },
        ).result(10).seq  # fmt: skip
        result = {
            "status": "confirmed", "http": 200, "err": None, "code": None, "sent": True, "started_us": 1, "ended_us": 2,
        }  # fmt: skip
        content = {"call": call, "attempt": 1, "intent": seq, "result": result, "resp": None, "cost": None}
        ledger.submit("call.outcome", "acme", content).result(10)
    ledger.close()
    return folder


@pytest.mark.parametrize("options", [["-n", "3"], ["-n", "35"], ["-n", "500"], ["--since", "1h"], ["-n", "0"]])
def test_tail_shows_the_newest_whatever_segment_they_lie_in(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    state = ledger_of(tmp_path, 40)
    assert len(segment_files(state / "ledger")) > 4
    assert run_command(["calls", "tail", "--state", str(state), "--json", *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = min(40, int(options[1])) if options[0] == "-n" else 40
    assert [line["call"] for line in lines] == [f"c_{n:022d}" for n in range(40 - expected, 40)]
    assert {line["account"] for line in lines} <= {"support"}


def test_what_limits_counted_is_in_the_line_and_reads_as_people_count() -> None:
    counted = {
        "micro": 0,
        "cur": "XXX",
        "budget": ["acme/a/recipients/day/2026-11-20"],
        "units": {"recipients": 3_000_000},
    }
    fold = Fold()
    done = outcome(2, of=1)
    (line,) = fold.take(
        [intent(1), Record(done.seq, done.type, done.tenant, done.ts, {**done.body, "cost": counted}, b"")]
    )
    assert dict(line.units) == {"recipients": 3_000_000}
    assert _cost(counted) == "recipients 3  of acme/a/recipients/day/2026-11-20"
    assert _cost({"micro": 2500, "cur": "USD", "budget": []}) == "0.0025 USD"
    assert _cost(None) == "-"
