"""What limits count of a call can be told: an amount that cannot be is never counted as nothing, nor as everything.

Rules have no part in it, so stage `observe` changes nothing of it.
"""

from rules.call import Call, Facts
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict
from rules.limits.claims import spend_claims
from rules.limits.demand import Demand
from rules.matching import allowing
from rules.meters.meter import Untold
from rules.observing import observing


def _check(call: Call, facts: Facts) -> Verdict:
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if policy is None or account is None or connection is None or not account.plan.untold(connection.name):
        return None
    if not observing(call, facts) and not allowing(call, facts, account):
        return None  # it does not leave, whatever it would use
    try:
        spend_claims(account.plan, Demand.of(call, facts, policy, connection))
    except Untold as error:
        return Denies((Reason(error.code, error.detail),))
    return None


GUARD = Guard("limits_told", _check)
