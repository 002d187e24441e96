"""No action carries other requests inside: nobody has judged those."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    for action in facts.actions:
        if action.batch:
            return Denies((Reason(Code.BATCH_REFUSED, f"{action.tool} carries requests that no rule has judged."),))
    return None


GUARD = Guard("batch_opened", _check)
