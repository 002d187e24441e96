"""No action carries other requests inside: nobody has judged those."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    batch = next((action for action in facts.actions if action.batch), None)
    if batch is None:
        return None
    return Denies((Reason(Code.BATCH_REFUSED, f"{batch.tool} carries requests that no rule has judged."),))


GUARD = Guard("batch_opened", _check)
