"""No deny rule of the account matches. Deny overrides whatever allows."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict
from rules.policy.templates import normal_segments


def _check(call: Call, facts: Facts) -> Verdict:
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    segments = normal_segments(call.path)
    if account is None or facts.connection is None or segments is None:
        return None
    matching = account.deny.matching(facts.connection.name, call.method, segments)
    if not matching:
        return None
    return Denies(tuple(Reason(Code.RULE_DENIED, f"Rule {rule.id} denies this call.", rule.id) for rule in matching))


GUARD = Guard("deny_rules", _check)
