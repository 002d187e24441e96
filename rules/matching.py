"""Which rules of an account match a call: by connection, method and path, and by their conditions."""

from collections.abc import Iterator
from itertools import islice

from rules.call import Call, Facts
from rules.conditions.variables import Judged, values_of
from rules.policy.compile import Account
from rules.policy.matcher import TOLD, Matcher, Rule
from rules.policy.templates import normal_segments


def allowing(call: Call, facts: Facts, account: Account) -> tuple[Rule, ...]:
    """The allow rules that match, the deciding one first. One whose condition cannot be told does not match."""
    judged = _judged(call, facts, account, account.allow)
    return tuple(islice((rule for rule, told in judged if told is True), TOLD))


def denying(call: Call, facts: Facts, account: Account) -> tuple[tuple[Rule, bool], ...]:
    """The deny rules that match, each with whether that could be told: one whose condition cannot be matches.

    Where no allow rule matches by connection, method and path the call is denied anyway, perhaps unread; then only what
    is true is told.
    """
    certain: list[tuple[Rule, bool]] = []
    doubtful: list[tuple[Rule, bool]] = []
    for rule, told in _judged(call, facts, account, account.deny):
        if told is True:
            certain.append((rule, True))
            if len(certain) == TOLD:
                break
        elif told is None:
            doubtful.append((rule, False))
    if certain or not doubtful or not _reached(call, facts, account.allow):
        return tuple(certain)
    return tuple(doubtful[:TOLD])


def untold(call: Call, facts: Facts, account: Account) -> tuple[Rule, ...]:
    """The allow rules that would match, were their conditions to be told."""
    if not account.conditional:
        return ()
    judged = _judged(call, facts, account, account.allow)
    return tuple(islice((rule for rule, told in judged if told is None), TOLD))


def reads_body(call: Call, facts: Facts) -> bool:
    """Whether a rule of the account reads the body of this call: to judge it, or because the rule asks for it.

    Any rule that matches by connection, method and path counts: a more specific rule, or eight of them, must be no way
    around one that reads.
    """
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    return account is not None and _reached(call, facts, account.reading)


def judged_by_body(call: Call, facts: Facts) -> bool:
    """Whether the body has to be here before the call can be judged, and whether it may be asked for.

    Nothing is asked of an agent whose call no rule would allow whatever the body says.
    """
    account = None if facts.policy is None else facts.policy.accounts.get(call.principal.account)
    segments = normal_segments(call.path)
    if account is None or not account.conditional or facts.connection is None or segments is None:
        return False
    name, method = facts.connection.name, call.method
    if not account.allow.matching(name, method, segments, at_most=1):
        return False
    if any(rule.when is None for rule in account.deny.matching(name, method, segments, at_most=None)):
        return False
    return any(
        rule.when is not None and rule.reads_body
        for rule in account.reading.matching(name, method, segments, at_most=None)
    )


def _reached(call: Call, facts: Facts, matcher: Matcher) -> bool:
    segments = normal_segments(call.path)
    if facts.connection is None or segments is None:
        return False
    return bool(matcher.matching(facts.connection.name, call.method, segments, at_most=1))


def _judged(call: Call, facts: Facts, account: Account, matcher: Matcher) -> Iterator[tuple[Rule, bool | None]]:
    """The rules that match by place, the most specific first, and what the condition of each says; one at a time."""
    segments = normal_segments(call.path)
    if facts.connection is not None and segments is not None:
        at_most = None if account.conditional else TOLD
        for rule in matcher.matching(facts.connection.name, call.method, segments, at_most=at_most):
            yield rule, holds(rule, call, facts)


def holds(rule: Rule, call: Call, facts: Facts) -> bool | None:
    """What the rule's condition says of the call; True where it has none, None where it cannot be told."""
    if rule.when is None:
        return True
    return rule.when.holds(values_of(Judged(call, facts, rule.template), rule.when.reads))
