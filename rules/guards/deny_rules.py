"""No deny rule of the account matches. Deny overrides whatever allows."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict
from rules.matching import denying
from rules.policy.matcher import Rule
from rules.untold import untold_reason


def _check(call: Call, facts: Facts) -> Verdict:
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    if account is None:
        return None
    reasons = tuple(_reason(rule, call, facts, told=told) for rule, told in denying(call, facts, account))
    return Denies(reasons) if reasons else None


def _reason(rule: Rule, call: Call, facts: Facts, *, told: bool) -> Reason:
    if told:
        return Reason(Code.RULE_DENIED, f"Rule {rule.id} denies this call.", rule.id)
    return untold_reason(rule, call, facts, denies=True)


GUARD = Guard("deny_rules", _check, by_rules=True)
