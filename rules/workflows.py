"""What a workflow is for, and which calls achieve it. Nothing is decided by it: cost per outcome is."""

from dataclasses import dataclass

from rules.policy.matcher import wider

SUCCEEDED = range(200, 300)


@dataclass(frozen=True, slots=True)
class WorkflowOutcome:
    """What counts as an outcome of a workflow."""

    tools: tuple[str, ...] = ()
    """Whole names of tools, or beginnings with `.*`; none: only what operators declare counts."""
    status: frozenset[int] | None = None
    """HTTP status codes that count; None: every 2xx."""

    def counts(self, tool: str, status: int) -> bool:
        """Whether a call of this tool that was answered so is one."""
        if not self.tools or status not in (SUCCEEDED if self.status is None else self.status):
            return False
        return not {tool, *wider(tool)}.isdisjoint(self.tools)

    def __str__(self) -> str:
        if not self.tools:
            return "declared"
        codes = "" if self.status is None else f" ({', '.join(map(str, sorted(self.status)))})"
        return ", ".join(self.tools) + codes
