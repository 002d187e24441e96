"""`exeat doctor`: what is wrong here, and how to mend it."""

import click

from control.cli.invocation import Exit, Invocation, columns, command_options
from control.codec import to_json
from control.doctor import Finding, Verdict, examine

_MARKS = {Verdict.GOOD: "ok", Verdict.WARNING: "warn", Verdict.BAD: "FAIL"}


@click.group(short_help="Find what is wrong and say how to mend it.", invoke_without_command=True)
@command_options
def doctor(invocation: Invocation) -> None:
    """Find what is wrong and say how to mend it. Exit code 1 when anything failed.

    Started by `exeat run -- exeat doctor` it looks at the agent's side: variables, certificates, and a real request.
    The commands below look closer at one thing.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    findings = examine(invocation.state)
    invocation.answer({"findings": to_json(findings)}, describe(findings))
    if any(finding.verdict is Verdict.BAD for finding in findings):
        invocation.end(Exit.NO)


def describe(findings: tuple[Finding, ...]) -> str:
    """The findings for people, each cure below its finding."""
    width = columns([(_MARKS[f.verdict], f.subject, f.text) for f in findings]).splitlines()
    lines: list[str] = []
    for finding, line in zip(findings, width, strict=True):
        lines.append(line)
        if finding.cure and finding.verdict is not Verdict.GOOD:
            lines.append(f"        cure: {finding.cure}")
    return "\n".join(lines)
