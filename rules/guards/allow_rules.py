"""An allow rule of the account matches: the only guard that permits, on the claims that the limits ask for."""

from rules.bodies import INSPECTED
from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Permits, Verdict
from rules.limits.claims import claims_of, counts_price
from rules.policy.compile import Account
from rules.policy.templates import normal_segments


def _inspected(account: Account, connection: str, method: str, segments: tuple[str, ...]) -> bool:
    """Any matching rule that reads the body reads it, also one that is not named: a more specific rule, or eight of
    them, must be no way around it."""
    return bool(account.inspecting.matching(connection, method, segments, at_most=1))


def _check(call: Call, facts: Facts) -> Verdict:
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    segments = normal_segments(call.path)
    if policy is None or account is None or connection is None or segments is None:
        return None
    matching = account.allow.matching(connection.name, call.method, segments)
    if not matching:
        return None
    if not counts_price(account, connection):
        # Loading refuses such a policy. Were one to get here, a cap that counts nothing must not be taken for none.
        return Denies((Reason(Code.GUARD_FAILED, "A check could not be completed."),))
    return Permits(
        rules=tuple(rule.id for rule in matching),
        route=matching[0].template.text,
        claims=claims_of(account, connection, policy.timezone, facts.now),
        body=INSPECTED if _inspected(account, connection.name, call.method, segments) else matching[0].body,
    )


GUARD = Guard("allow_rules", _check)
