"""A tool is what it was when its definition was accepted."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    if not facts.changed:
        return None
    changed = next((a.tool for a in facts.actions if a.tool is not None and a.tool in facts.changed), None)
    if changed is None:
        return None
    return Denies((Reason(Code.DEFINITION_CHANGED, f"{changed} is not defined as it was when it was accepted."),))


GUARD = Guard("definition_pinned", _check)
