"""A policy is active for the call's tenant, and it is that tenant's."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    if facts.policy is None:
        return Denies((Reason(Code.NO_POLICY, "No policy is active for this tenant."),))
    # The facts are gathered by other code: a mix-up there must not let one tenant's rules judge another's call.
    if facts.policy.tenant != call.principal.tenant:
        return Denies((Reason(Code.NO_POLICY, "No policy is active for this tenant."),))
    return None


GUARD = Guard("policy_active", _check)
