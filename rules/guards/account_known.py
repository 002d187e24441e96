"""The active policy declares the calling service account."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    if facts.policy is not None and call.principal.account not in facts.policy.accounts:
        return Denies((Reason(Code.ACCOUNT_UNKNOWN, "The active policy does not declare this service account."),))
    return None


GUARD = Guard("account_known", _check)
