"""The path has one meaning.

The HTTP layer refuses other paths before; no rule must be judged on one that slipped by.
"""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict
from rules.policy.templates import normal_segments


def _check(call: Call, facts: Facts) -> Verdict:
    del facts
    if normal_segments(call.path) is None:
        return Denies((Reason(Code.AMBIGUOUS_TARGET, "The path can be read in more than one way."),))
    return None


GUARD = Guard("target_normal", _check)
