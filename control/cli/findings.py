"""How a doctor's findings are shown to people."""

from control.cli.invocation import columns
from control.doctor import Finding, Verdict

_MARKS = {Verdict.GOOD: "ok", Verdict.WARNING: "warn", Verdict.BAD: "FAIL"}


def describe(findings: tuple[Finding, ...]) -> str:
    """The findings for people, each cure below its finding."""
    width = columns([(_MARKS[f.verdict], f.subject, f.text) for f in findings]).splitlines()
    lines: list[str] = []
    for finding, line in zip(findings, width, strict=True):
        lines.append(line)
        if finding.cure and finding.verdict is not Verdict.GOOD:
            lines.append(f"        cure: {finding.cure}")
    return "\n".join(lines)
