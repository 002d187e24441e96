"""`exeat test`: a policy's own tests, tried without a gate, and which rules they exercise."""

from pathlib import Path

import click

from control.cli.invocation import Exit, Invocation, Trouble, command_options, counted
from control.codec import Json, to_json
from control.operations import PolicyRefused
from control.policies import Checked, check_policy
from proxy.trial import Coverage, Outcome, Report, run_cases

_DEFAULTS = (Path("policy.yaml"), Path("policy"))


@click.command(short_help="Try the tests that stand in a policy.")
@click.argument("path", type=click.Path(path_type=Path), required=False, metavar="[POLICY]")
@click.option("--strict", is_flag=True, help="A rule that no passing test exercises counts as a failure.")
@command_options
def test(invocation: Invocation, path: Path | None, *, strict: bool) -> None:
    """Try the tests of a policy file, or of a folder of them, without applying it.

    POLICY is policy.yaml, or else the folder policy, when left out. Exit code 1 when a test fails, 3 when the policy
    could not be read.
    """
    checked = readable(path or _default())
    report = run_cases(checked.source, checked.compiled)
    lines = [*failures(report), summary(report), *map(_covered, report.coverage)]
    missed = any(coverage.missed for coverage in report.coverage)
    invocation.answer(report_document(report), "\n".join(lines))
    if report.failed or (strict and missed):
        invocation.end(Exit.NO)


def _default() -> Path:
    """The policy that `exeat init` writes when it is given no name, or a folder of policies."""
    found = next((path for path in _DEFAULTS if path.exists()), None)
    if found is None:
        raise Trouble("there is no policy.yaml here, and no folder policy", "Name the policy.", Exit.WRONG_USE)
    return found


def readable(path: Path) -> Checked:
    """The policy at a path, valid. Ends the command with code 3 and every error where it is not."""
    try:
        return check_policy(path)
    except PolicyRefused as refused:
        rows = [f"{f.file}:{f.line}:{f.column}: {f.message}; {f.fix}" for f in refused.faults]
        message = "\n".join(["the policy could not be read", *rows])
        raise Trouble(message, f"exeat check {path}") from refused


def failures(report: Report) -> list[str]:
    """A line for each test that failed."""
    return [f"{_place(outcome)}: {outcome.case.asked}: {outcome.failure}" for outcome in report.failed]


def summary(report: Report) -> str:
    """How many passed, of how many."""
    return f"tests {report.passed}/{len(report.outcomes)}"


def report_document(report: Report) -> dict[str, Json]:
    """The report, for programs."""
    coverage: list[Json] = [
        {
            "tenant": coverage.tenant,
            "account": coverage.account,
            "rules": len(coverage.rules),
            "not_exercised": to_json(coverage.missed),
        }
        for coverage in report.coverage
    ]
    return {"passed": report.passed, "tests": [_outcome(found) for found in report.outcomes], "coverage": coverage}


def _outcome(outcome: Outcome) -> Json:
    return {
        "file": outcome.written.file,
        "line": outcome.written.line,
        "column": outcome.written.column,
        "tenant": outcome.tenant,
        "call": str(outcome.case.asked),
        "passed": outcome.failure is None,
        "expected": str(outcome.case.expected),
        "came": str(outcome.came),
        "failure": outcome.failure,
    }


def _place(outcome: Outcome) -> str:
    return f"{outcome.written.file}:{outcome.written.line}"


def _covered(coverage: Coverage) -> str:
    exercised = len(coverage.rules) - len(coverage.missed)
    line = f"coverage {coverage.tenant}/{coverage.account} {exercised}/{counted(len(coverage.rules), 'rule')}"
    return f"{line}; not exercised: {', '.join(coverage.missed)}" if coverage.missed else line
