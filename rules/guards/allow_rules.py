"""An allow rule of the account matches: the only guard that permits, on the claims that the limits ask for."""

from rules.call import Call, Facts
from rules.guards.verdict import Guard, Permits, Verdict
from rules.limits.claims import claims_of
from rules.policy.templates import normal_segments


def _check(call: Call, facts: Facts) -> Verdict:
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    segments = normal_segments(call.path)
    if policy is None or account is None or connection is None or segments is None:
        return None
    matching = account.allow.matching(connection.name, call.method, segments)
    if not matching:
        return None
    return Permits(
        rules=tuple(rule.id for rule in matching),
        route=matching[0].template.text,
        claims=claims_of(account, connection, policy.timezone, facts.now),
    )


GUARD = Guard("allow_rules", _check)
