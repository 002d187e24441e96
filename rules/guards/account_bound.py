"""Where a connection is bound to one account at the service, each action is about that one."""

from contextlib import suppress

from rules.action import Action
from rules.call import Call, Facts
from rules.codes import Code
from rules.conditions.unknown import Unknown
from rules.decision import Reason
from rules.guards.verdict import Denies, Guard, Verdict


def _check(call: Call, facts: Facts) -> Verdict:
    connection = facts.connection
    if connection is None or connection.account is None:
        return None
    known = connection.known
    if known is not None and known.account_header is not None:
        return None  # the gate itself says which account, in a header that agents' own never replace
    if facts.actions and all(_about(action, connection.account) for action in facts.actions):
        return None
    detail = f"Connection {connection.name} is bound to one account, and this call is not known to be about that."
    return Denies((Reason(Code.ACCOUNT_MISMATCH, detail),))


def _about(action: Action, account: str) -> bool:
    """Services compare names of accounts without regard to capitals."""
    if action.handshake:
        return True
    with suppress(Unknown):
        return action.account().casefold() == account.casefold()
    return False


GUARD = Guard("account_bound", _check)
