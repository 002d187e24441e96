"""`exeat test`, `policy apply` of a policy with tests, and `policy explain`: real commands on real files."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from control.cli import run_command
from control.policies import check_policy
from control.state import State
from credentials.actor import Actor
from ledger import read_records
from rules.policy.source import PolicyInvalid

ROOT = Path(__file__).parents[2]
POLICY = """\
exeat: 1
tenant: acme
timezone: Europe/Berlin
connections:
  stripe: {host: api.stripe.com, secret: stripe/key}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: it@acme.example, risk: risk@acme.example}
    rules:
      - {id: small, allow: {connection: stripe, methods: [POST], path: /v1/refunds}, when: int(body.amount) <= 100}
      - {id: weekend, deny: "*", when: "now.weekday in ['sat', 'sun']"}
tests:
  - {account: agent, call: POST stripe /v1/refunds, body: {amount: 100}, at: tue 10:00, expect: allow, rule: small}
  - {account: agent, call: POST stripe /v1/refunds, body: {amount: 100}, at: sat 10:00, expect: deny rule_denied}
"""
WRITTEN = ("--policy", "policy.yaml")
EXPLAIN = ("policy", "explain", "--as", "agent", *WRITTEN)
WRONG = POLICY.replace("<= 100", "< 100")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


type Command = Any


@pytest.fixture
def exeat(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> tuple[int, str]:
        code = run_command([*arguments, "--state", str(tmp_path / "state")])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_all_that_is_so_passes_and_coverage_is_told(exeat: Command) -> None:
    assert exeat("test") == (0, "tests 2/2\ncoverage acme/agent 2/2 rules\n")
    assert exeat("test", "policy.yaml", "--strict")[0] == 0


def test_the_program_itself_says_so(written: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "control.cli", "test", str(written)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.startswith("tests 2/2\n")


def test_a_test_that_fails_is_told_with_its_line_and_the_reason(exeat: Command, written: Path) -> None:
    written.write_text(WRONG)
    code, told = exeat("test")
    assert code == 1
    assert told.splitlines() == [
        "policy.yaml:13: POST stripe /v1/refunds as agent: expected allow by small, came deny not_allowed "
        "(No rule allows this call. Not true: the condition of small.)",
        "tests 1/2",
        "coverage acme/agent 1/2 rules; not exercised: small",
    ]


def test_a_rule_that_nothing_exercises_is_a_failure_only_if_asked(exeat: Command, written: Path) -> None:
    written.write_text("\n".join(POLICY.splitlines()[:-1]) + "\n")
    code, told = exeat("test")
    assert (code, told) == (0, "tests 1/1\ncoverage acme/agent 1/2 rules; not exercised: weekend\n")
    assert exeat("test", "--strict") == (1, told)


def test_a_policy_without_tests_exercises_nothing(exeat: Command, written: Path) -> None:
    written.write_text(POLICY[: POLICY.index("tests:")])
    assert exeat("test")[1].splitlines()[0] == "tests 0/0"
    assert exeat("test", "--strict")[0] == 1


def test_the_report_is_there_for_programs(exeat: Command, written: Path) -> None:
    written.write_text(WRONG)
    code, told = exeat("test", "--json")
    report = json.loads(told)
    assert (code, report["passed"], len(report["tests"])) == (1, 1, 2)
    assert report["tests"][0] == {
        "file": "policy.yaml",
        "line": 13,
        "column": 5,
        "tenant": "acme",
        "call": "POST stripe /v1/refunds as agent",
        "passed": False,
        "expected": "allow by small",
        "came": "deny not_allowed",
        "failure": "expected allow by small, came deny not_allowed (No rule allows this call. Not true: the "
        "condition of small.)",
    }
    assert report["coverage"] == [{"tenant": "acme", "account": "agent", "rules": 2, "not_exercised": ["small"]}]


def test_a_folder_names_the_file_of_each_tenant(exeat: Command, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "acme.yaml").write_text(POLICY)
    (tmp_path / "all" / "globex.yaml").write_text(WRONG.replace("tenant: acme", "tenant: globex"))
    code, told = exeat("test", "all")
    assert code == 1
    assert told.startswith("globex.yaml:13: ")
    assert "tests 3/4\n" in told
    assert "coverage globex/agent 1/2" in told


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("test", "nowhere.yaml"), 3, "there is no such file"),
        (("test", "broken.yaml"), 3, "broken.yaml:3:1: unknown key acounts"),
        (("test", "--nonsense"), 2, ""),
        (("test", "a.yaml", "b.yaml"), 2, ""),
        (
            ("policy", "explain", "POST stripe /v1/refunds", "--as", "agent", "--policy", "nowhere.yaml"),
            3,
            "no such file",
        ),
        (("policy", "explain", "POST stripe /v1/refunds"), 2, "--as"),
        ((*EXPLAIN, "refund"), 2, "not a call"),
        ((*EXPLAIN, "POST strip /x"), 2, "did you mean stripe?"),
        (("policy", "explain", "POST stripe /x", "--as", "agnet", *WRITTEN), 2, "did you mean agent?"),
        ((*EXPLAIN, "POST stripe /x", "--at", "noon"), 2, "not a time"),
        ((*EXPLAIN, "POST stripe /x", "--body", "@nowhere"), 2, "cannot be read"),
        (
            (*EXPLAIN, "POST stripe /x", "--body", "{}", "--form", "a=1"),
            2,
            "one body",
        ),
        (
            (*EXPLAIN, "POST stripe /x", "--tenant", "acm"),
            2,
            "did you mean acme?",
        ),
    ],
)
def test_what_cannot_be_tried_is_no_answer(
    exeat: Command, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "broken.yaml").write_text("exeat: 1\ntenant: acme\nacounts: {}\n")
    answered, said = exeat(*arguments)
    assert answered == code
    assert told in said


def test_where_there_is_no_policy_one_has_to_be_named(exeat: Command, written: Path) -> None:
    written.unlink()
    assert exeat("test")[0] == 2


def test_check_counts_tests_and_does_not_try_them(exeat: Command, written: Path) -> None:
    written.write_text(WRONG)
    code, told = exeat("check", "policy.yaml")
    assert code == 0
    assert "1 connection, 2 tests  sha256:" in told
    assert json.loads(exeat("check", "policy.yaml", "--json")[1])["tests"] == 2


def activations(state: Path) -> list[str]:
    return [record.body["policy"] for record in read_records(state / "ledger", types=frozenset({"policy.activate"}))]


def test_a_policy_that_passes_its_tests_is_applied(exeat: Command, tmp_path: Path) -> None:
    code, told = exeat("policy", "apply", "policy.yaml")
    assert code == 0
    assert "  tests 2/2  proof #" in told
    assert json.loads(exeat("policy", "apply", "policy.yaml", "--json")[1])["tests"] == 2
    assert len(activations(tmp_path / "state")) == 2


def test_a_policy_that_fails_one_is_not_and_nothing_changes(exeat: Command, written: Path, tmp_path: Path) -> None:
    assert exeat("policy", "apply", "policy.yaml")[0] == 0
    good = exeat("status", "--json")[1]
    written.write_text(WRONG)
    code, told = exeat("policy", "apply", "policy.yaml")
    assert code == 1
    assert told.startswith("policy.yaml:13: POST stripe /v1/refunds as agent: expected allow by small, came deny")
    assert told.endswith("tests 1/2; nothing was applied\n")
    answer = json.loads(exeat("policy", "apply", "policy.yaml", "--json")[1])
    assert (answer["applied"], answer["passed"]) == (False, 1)
    assert json.loads(exeat("status", "--json")[1])["policy"] == json.loads(good)["policy"]
    assert len(activations(tmp_path / "state")) == 1


def test_the_state_itself_refuses_it_whoever_asks(written: Path, tmp_path: Path) -> None:
    """Not the command alone: what comes over the operators' socket meets the same refusal, and it is recorded."""
    ana = Actor("uid", "1000", "ana")
    with State.open(tmp_path / "own", create=True) as state:
        good = state.apply_policy(written, ana)
        assert good.tests == 2
        written.write_text(WRONG)
        check_policy(written)  # valid as it is
        for source in (written, check_policy(written).source):
            with pytest.raises(PolicyInvalid) as caught:
                state.apply_policy(source, ana, commit="abc")
            (error,) = caught.value.errors
            assert (error.file, error.line) == ("policy.yaml", 13)
            assert "the test fails: POST stripe /v1/refunds as agent: expected allow by small" in error.message
            assert state.policy is good.policy
        rejected = [r.body for r in read_records(state.ledger.directory, types=frozenset({"policy.reject"}))]
        assert [(record["errors"], record["commit"]) for record in rejected] == [(1, "abc")] * 2
    with State.open(tmp_path / "own", create=False) as state:
        assert state.policy is not None
        assert state.policy.digest == good.digest


REFUND = (*EXPLAIN, "POST stripe /v1/refunds")


def test_an_allowed_call_is_explained(exeat: Command) -> None:
    code, told = exeat(*REFUND, "--body", '{"amount": 100}', "--at", "tue 10:00")
    assert code == 0
    assert told.splitlines() == [
        "POST stripe /v1/refunds as agent, at tue 2026-01-06 10:00 CET",
        "  the body is read, for a rule asks for it",
        "guards",
        "  policy_active      no objection",
        "  account_known      no objection",
        "  destination_known  no objection",
        "  target_normal      no objection",
        "  batch_opened       no objection",
        "  definition_pinned  no objection",
        "  content_readable   no objection",
        "  account_bound      no objection",
        "  deny_rules         no objection",
        "  limits_told        no objection",
        "  allow_rules        allows        small",
        "rules that match by connection, method and path",
        "  deny   weekend  false  when now.weekday in ['sat', 'sun']",
        "  allow  small    true   when int(body.amount) <= 100",
        "allow by small; its body is inspected",
    ]


def test_a_form_from_a_file_is_a_body_too(exeat: Command, tmp_path: Path) -> None:
    (tmp_path / "form").write_text("amount=7")
    assert exeat(*REFUND, "--form", "@form", "--at", "tue 10:00")[0] == 0


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            ("--body", '{"amount": 100}', "--at", "sat 10:00"),
            [
                "  deny_rules         denies        rule_denied: Rule weekend denies this call.",
                "  allow_rules        allows        small",
                "  deny   weekend  true  when now.weekday in ['sat', 'sun']",
                "deny rule_denied by weekend: Rule weekend denies this call.",
                "  Open again from Mon 2026-01-12 00:00 Europe/Berlin.",
            ],
        ),
        (
            ("--at", "tue 10:00"),
            [
                "  allow_rules        denies        condition_failed: The condition of rule small cannot be told.",
                "  allow  small    cannot be told  when int(body.amount) <= 100",
                "deny condition_failed by small: The condition of rule small cannot be told.",
            ],
        ),
        (
            ("--body", '{"amount": 1, "amount": 2}', "--at", "tue 10:00"),
            ["deny content_refused: a JSON object has a key twice, perhaps with other capitals"],
        ),
    ],
)
def test_a_denied_call_is_explained(exeat: Command, options: tuple[str, ...], lines: list[str]) -> None:
    code, told = exeat(*REFUND, *options)
    assert code == 1
    assert [line for line in lines if line not in told.splitlines()] == []


def test_when_a_denied_call_would_be_allowed_is_told(exeat: Command) -> None:
    asked = (*REFUND, "--body", '{"amount": 100}', "--json", "--at")
    assert json.loads(exeat(*asked, "sat 10:00")[1])["opens_at"] == "2026-01-12T00:00:00+01:00"
    assert json.loads(exeat(*asked, "tue 10:00")[1])["opens_at"] is None
    assert json.loads(exeat(*REFUND, "--body", '{"amount": 101}', "--json", "--at", "tue 10:00")[1])["opens_at"] is None


def test_a_call_is_explained_as_it_is_judged(exeat: Command) -> None:
    code, told = exeat(*EXPLAIN, "POST stripe /v1/%72efunds?x=1", "--form", "amount=1")
    assert "  judged as  /v1/refunds?x=1" in told.splitlines()
    code, told = exeat(*EXPLAIN, "GET stripe /v1/../x")
    assert (code, told.splitlines()[1:]) == (1, ["deny ambiguous_target: a dot segment"])
    code, told = exeat(*EXPLAIN, "GET stripe /nothing", "--at", "tue 10:00")
    assert code == 1
    assert "deny not_allowed: No rule allows this call." in told


def test_without_a_path_the_active_policy_is_explained(exeat: Command, written: Path) -> None:
    asked = ("POST stripe /v1/refunds", "--as", "agent", "--form", "amount=100", "--at", "tue 10:00")
    assert exeat("policy", "explain", *asked)[0] == 3
    assert exeat("policy", "apply", "policy.yaml")[0] == 0
    written.write_text(WRONG)
    assert exeat("policy", "explain", *asked)[0] == 0
    assert exeat("policy", "explain", *asked, *WRITTEN)[0] == 1


def test_an_explanation_is_there_for_programs(exeat: Command) -> None:
    code, told = exeat(*REFUND, "--body", '{"amount": 101}', "--at", "2026-07-01 10:00", "--json")
    found = json.loads(told)
    assert (code, found["decision"], found["rule"], found["at"]) == (1, "deny", None, "2026-07-01T08:00:00+00:00")
    assert found["guards"][-1] == {"guard": "allow_rules", "says": "no objection", "detail": ""}
    assert [(rule["rule"], rule["kind"], rule["holds"]) for rule in found["rules"]] == [
        ("weekend", "deny", "false"),
        ("small", "allow", "false"),
    ]
    assert found["reasons"] == [{"code": "not_allowed", "detail": "No rule allows this call.", "rule": None}]
    assert found["policy"].startswith("sha256:")


BY_TOOL = POLICY.replace(
    "path: /v1/refunds}, when: int(body.amount) <= 100}", "path: /v1/refunds}, when: amount <= usd(5)}"
)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ('{"amount": "5 USD"}', 0, "allow by small; its body is inspected"),
        ('{"amount": "6 USD"}', 1, "deny not_allowed: No rule allows this call."),
        ("{}", 1, "deny amount_unknown by small: The amount that rule small asks for cannot be determined."),
        ("[]", 2, "--args is no JSON object"),
    ],
)
def test_a_tool_is_explained_as_a_call_of_it(exeat: Command, written: Path, args: str, code: int, said: str) -> None:
    written.write_text(BY_TOOL[: BY_TOOL.index("tests:")])
    came, told = exeat(*EXPLAIN, "stripe.refund.create", "--args", args, "--at", "tue 10:00")
    assert (came, said in told) == (code, True), told


def test_in_stage_observe_a_guard_that_says_nothing_is_not_said_to_allow(exeat: Command, written: Path) -> None:
    written.write_text(
        POLICY[: POLICY.index("tests:")].replace("    rules:", "    stage: observe\n    until: 2026-12-31\n    rules:")
    )
    code, told = exeat(*EXPLAIN, "GET stripe /v1/charges", "--at", "2026-11-24 10:00")
    assert code == 0
    assert "  destination_known  no objection" in told.splitlines()
    assert told.count("allows") == 0
    assert "allow by stage:observe" in told


def test_a_tool_that_is_none_is_told_with_its_cure(exeat: Command) -> None:
    code, told = exeat(*EXPLAIN, "stripe.refund.crate")
    assert (code, "there is no such tool" in told) == (2, True), told
