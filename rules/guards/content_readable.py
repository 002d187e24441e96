"""Where a rule has to know what the body says, the body says it in exactly one way."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    if facts.unreadable is not None:
        return Denies((Reason(Code.CONTENT_REFUSED, facts.unreadable),))
    return None


GUARD = Guard("content_readable", _check, by_rules=True)
