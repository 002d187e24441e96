"""The destination is a connection of the call's tenant, and the connection in the facts is that one."""

from rules.call import Call, Facts
from rules.codes import Code
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    if facts.policy is None:
        return None
    known = facts.policy.connection_for(call.scheme, call.host, call.port)
    # The secret is chosen by `facts.connection`; it must be the one that the judged destination belongs to.
    if known is None or known is not facts.connection:
        detail = f"{call.scheme}://{call.host}:{call.port} is no connection of this tenant."
        return Denies((Reason(Code.DESTINATION_UNKNOWN, detail),))
    return None


GUARD = Guard("destination_known", _check)
