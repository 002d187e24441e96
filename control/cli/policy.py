"""`exeat check` and `exeat policy`: a policy is checked, and applied as a whole or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from control.cli.connect import operations
from control.cli.invocation import Exit, Invocation, command_options, counted
from control.cli.policy_diff import active_policy, change_document, change_lines, diff
from control.cli.policy_explain import explain
from control.cli.policy_history import history
from control.cli.policy_tests import failures, report_document, summary
from control.codec import to_json
from control.operations import PolicyApplied, PolicyRefused, Provenance
from control.policies import Checked, check_policy, provenance_of, secrets_wanted
from proxy.trial import run_cases
from rules.policy.diff import Summary, summarise
from rules.policy.finding import NAMES

_PATH = click.argument("path", type=click.Path(path_type=Path))


@click.command(short_help="Check a policy without applying it.")
@_PATH
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option(
    "--ignore",
    multiple=True,
    type=click.Choice(NAMES),
    metavar="NAME",
    help="Leave out warnings of this name, which stands at their end in brackets. May be repeated.",
)
@command_options
def check(invocation: Invocation, path: Path, *, strict: bool, ignore: tuple[str, ...]) -> None:
    """Check a policy file, or a folder of them, without applying it. Exit code 1 when it is not valid.

    It says how many tests the policy has; `exeat test` tries them.
    """
    checked = _checked(invocation, path)
    warnings = [str(warning) for warning in checked.source.warnings if warning.name not in ignore]
    tests = sum(len(document.tests or ()) for document in checked.source.documents)
    rows = [*warnings, f"valid: {_size(checked)}, {counted(tests, 'test')}  {checked.compiled.digest}"]
    document = {
        "valid": True,
        "digest": checked.compiled.digest,
        "tenants": sorted(checked.compiled.tenants),
        "tests": tests,
        "warnings": to_json(warnings),
        "errors": [],
    }
    invocation.answer(to_json(document), "\n".join(rows))
    if strict and warnings:
        invocation.end(Exit.NO)


@click.group(short_help="Compare, apply and explain policies.")
def policy() -> None:
    """Say what a policy would change, apply it, and say what one would decide."""


policy.add_command(diff)
policy.add_command(explain)
policy.add_command(history)


@policy.command("apply")
@_PATH
@click.option("--commit", metavar="ID", help="Recorded as declared. Default: what git says of committed files.")
@click.option("--author", metavar="WHO", help="Recorded as declared. Default: what git says of committed files.")
@click.option("--approver", metavar="WHO", help="Recorded as declared.")
@click.option("--reason", metavar="TEXT", help="Recorded as declared.")
@click.option("--dry-run", is_flag=True, help="Do all but that: say what would open and close. Nothing is recorded.")
@command_options
def apply(
    invocation: Invocation,
    path: Path,
    *,
    commit: str | None,
    author: str | None,
    approver: str | None,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Validate a policy, try its tests, say what it opens and closes, and make it the active one, as a whole.

    When it is refused, or fails a test, the last good one stays.
    """
    checked = _checked(invocation, path)
    report = run_cases(checked.source, checked.compiled)
    if report.failed:
        lines = [*failures(report), f"{summary(report)}; nothing was applied"]
        invocation.answer({"applied": False, **report_document(report)}, "\n".join(lines))
        invocation.end(Exit.NO)
    if dry_run:
        _would_apply(invocation, checked, report.passed)
        return
    found = provenance_of(path)
    declared = replace(
        found, commit=commit or found.commit, author=author or found.author, approver=approver, reason=reason
    )
    with operations(invocation, create=True) as on:
        try:
            applied = on.apply_policy(checked.text, declared)
        except PolicyRefused as refused:
            _refuse(invocation, refused)
    invocation.answer(to_json(applied), describe(applied))


@policy.command("rollback")
@click.option("--to", metavar="N|DIGEST", help="An activation's number, or the beginning of a policy's digest.")
@click.option("--commit", metavar="ID", help="Recorded as declared.")
@click.option("--author", metavar="WHO", help="Recorded as declared.")
@click.option("--approver", metavar="WHO", help="Recorded as declared.")
@click.option("--reason", metavar="TEXT", help="Recorded as declared.")
@command_options
def rollback(invocation: Invocation, *, to: str | None, **declared: str | None) -> None:
    """Make a policy active again that was active before; without --to, the last one before this one.

    It is an activation of its own, recorded as any other, and needs none of the files. Exit code 1 when this version
    cannot read that policy, or when it fails its own tests; the active one stays then.
    """
    with operations(invocation) as on:
        try:
            applied = on.roll_back_policy(to, Provenance(**declared))
        except PolicyRefused as refused:
            _refuse(invocation, refused)
    invocation.answer(to_json(applied), describe(applied))


def _would_apply(invocation: Invocation, checked: Checked, tests: int) -> None:
    with operations(invocation) as on:
        old = active_policy(on)
        held = {(row.tenant, row.name) for row in on.list_secrets()}
    new = checked.compiled
    change = summarise(old, new)
    missing = tuple(f"{tenant}/{name}" for tenant, name in sorted(secrets_wanted(new) - held))
    passed = f"  tests {tests}/{tests}" if tests else ""
    rows = [*change_lines(change), f"would be active: {new.digest[:19]}  {_size(checked)}{passed}"]
    if old is not None and old.digest == new.digest:
        rows[-1] += "  (unchanged)"
    rows += [str(warning) for warning in checked.source.warnings]
    rows += map(_missing, missing)
    document = change_document(old, new, change) | {"applied": False, "tests": tests, "secrets_missing": list(missing)}
    invocation.answer(document, "\n".join(rows))


def describe(applied: PolicyApplied) -> str:
    """What was opened and closed, what is active now, and what is still missing."""
    change = Summary(applied.opens, applied.closes, applied.changes)
    counts = _counts(len(applied.tenants), applied.accounts, applied.connections)
    tests = f"  tests {applied.tests}/{applied.tests}" if applied.tests else ""
    lines = [*change_lines(change), f"active: {applied.digest[:19]}  {counts}{tests}  proof #{applied.seq}"]
    if applied.previous == applied.digest:
        lines[-1] += "  (unchanged)"
    lines += [f"warning: {warning}" for warning in applied.warnings]
    lines += map(_missing, applied.secrets_missing)
    return "\n".join(lines)


def _missing(secret: str) -> str:
    tenant, _, name = secret.partition("/")
    return f"secret missing: exeat secret set {name} --tenant {tenant} < FILE"


def _checked(invocation: Invocation, path: Path) -> Checked:
    try:
        return check_policy(path)
    except PolicyRefused as refused:
        _refuse(invocation, refused)


def _refuse(invocation: Invocation, refused: PolicyRefused) -> NoReturn:
    rows = [f"{f.file}:{f.line}:{f.column}: {f.message}; {f.fix}" for f in refused.faults]
    document = {"valid": False, "digest": None, "tenants": [], "warnings": [], "errors": to_json(refused.faults)}
    invocation.answer(to_json(document), "\n".join([*rows, str(refused)]))
    invocation.end(Exit.NO)


def _size(checked: Checked) -> str:
    tenants = checked.compiled.tenants.values()
    return _counts(len(tenants), sum(len(t.accounts) for t in tenants), sum(len(t.connections) for t in tenants))


def _counts(tenants: int, accounts: int, connections: int) -> str:
    return f"{counted(tenants, 'tenant')}, {counted(accounts, 'account')}, {counted(connections, 'connection')}"
