"""An allow rule of the account matches: the only guard that permits, on the claims that the limits ask for."""

from typing import Final

from rules.bodies import INSPECTED
from rules.call import Call, Facts
from rules.classification import route_of
from rules.guards.verdict import Denies, Guard, Permits, Verdict
from rules.limits.claims import claims_of
from rules.limits.demand import Demand
from rules.matching import allowing, reads_body, untold
from rules.policy.compile import Account, Connection, TenantPolicy
from rules.policy.matcher import Rule
from rules.untold import untold_reason

OBSERVED: Final = "stage:observe"
"""In place of a rule, where none allowed the call. No rule has such a name."""


def _check(call: Call, facts: Facts) -> Verdict:
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if policy is None or account is None or connection is None:
        return None
    matching = allowing(call, facts, account)
    if not matching:
        # Without an objection the call would be denied too; this one says what stood in the way.
        reasons = tuple(untold_reason(rule, call, facts, denies=False) for rule in untold(call, facts, account))
        return Denies(reasons) if reasons else None
    return _permits(call, facts, policy, account, connection, matching)


def observed_permits(call: Call, facts: Facts) -> Permits:
    """The terms of a call that stage `observe` lets out: as if a rule about all paths allowed it."""
    policy, connection = facts.policy, facts.connection
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if policy is None or account is None or connection is None:
        raise ValueError("a call without a connection is never observed")
    return _permits(call, facts, policy, account, connection, allowing(call, facts, account))


def _permits(
    call: Call, facts: Facts, policy: TenantPolicy, account: Account, connection: Connection, matching: tuple[Rule, ...]
) -> Permits:
    # Where it cannot be told what the call uses this raises, and so denies: another guard says why.
    claims = claims_of(account.plan, Demand.of(call, facts, policy, connection))
    route = matching[0].template.text if matching else "/**"
    return Permits(
        rules=tuple(rule.id for rule in matching) or (OBSERVED,),
        # A rule that names tools says nothing of paths; the catalogue does.
        route=route_of(call, facts) or route if route == "/**" else route,
        claims=claims,
        body=INSPECTED if reads_body(call, facts) or not matching else matching[0].body,
    )


GUARD = Guard("allow_rules", _check, by_rules=True)
