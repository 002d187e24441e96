"""An allow rule of the account matches: the only guard that permits, on the claims that the limits ask for."""

from rules.bodies import INSPECTED
from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Permits, Verdict
from rules.limits.claims import claims_of, counts_price
from rules.matching import allowing, reads_body, untold


def _check(call: Call, facts: Facts) -> Verdict:
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if policy is None or account is None or connection is None:
        return None
    matching = allowing(call, facts, account)
    if not matching:
        # Without an objection the call would be denied too; this one says what stood in the way.
        failed = untold(call, facts, account)
        reasons = tuple(
            Reason(Code.CONDITION_FAILED, f"The condition of rule {r.id} cannot be told.", r.id) for r in failed
        )
        return Denies(reasons) if reasons else None
    if not counts_price(account, connection):
        # Loading refuses such a policy. Were one to get here, a cap that counts nothing must not be taken for none.
        return Denies((Reason(Code.GUARD_FAILED, "A check could not be completed."),))
    return Permits(
        rules=tuple(rule.id for rule in matching),
        route=matching[0].template.text,
        claims=claims_of(account, connection, policy.timezone, facts.now),
        body=INSPECTED if reads_body(call, facts) else matching[0].body,
    )


GUARD = Guard("allow_rules", _check)
