"""A trial: a call judged as the gate judges it, by the same functions in the same order, and not sent.

What is tried is what the policy and the request alone decide. Limits are claims, taken when a call is really made, and
secrets are the state's; neither is looked at here.
"""

from dataclasses import dataclass, replace

from rules.call import Call, Facts
from rules.codes import Code
from rules.conditions.variables import NOW
from rules.content.content import Content, read_content
from rules.content.refused import ContentRefused
from rules.decide import decide
from rules.decision import Decision, Denied, Reason
from rules.guards import GUARDS
from rules.matching import holds, judged_by_body
from rules.policy.matcher import Rule
from rules.policy.templates import normal_segments


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a call that was tried."""

    call: Call | None
    """None: the request has no normal form, and was refused before it was one."""
    facts: Facts
    """As it was decided by, the body's content included where it was read."""
    decision: Decision
    decided: bool
    """False: it was refused before the guards were asked."""
    body_read: bool

    @property
    def rule(self) -> str | None:
        """The rule that decided."""
        return rule_of(self.decision)


@dataclass(frozen=True, slots=True)
class RuleHeard:
    """A rule that matches a call by connection, method and path, and what its condition says."""

    rule: Rule
    allows: bool
    holds: bool | None
    """None: it cannot be told."""


def rule_of(decision: Decision) -> str | None:
    """The rule that decided, where one did."""
    return decision.reasons[0].rule if isinstance(decision, Denied) else decision.rules[0]


def judge(call: Call, facts: Facts, content_types: tuple[bytes, ...], body: bytes) -> Trial:
    """Steps 3 and 4 on a call whose whole body is at hand. Pure, never raises."""
    reads = judged_by_body(call, facts)
    if reads:
        found = _read(content_types, body)
        if isinstance(found, Reason):
            policy = None if facts.policy is None else facts.policy.digest
            return Trial(call, facts, Denied((found,), policy), decided=False, body_read=True)
        facts = replace(facts, content=found)
    return Trial(call, facts, decide(call, facts), decided=True, body_read=reads)


def guards_heard(trial: Trial) -> tuple[tuple[str, Decision | None], ...]:
    """What each guard by itself would make of the call, in their order; None: no objection, no permission."""
    if trial.call is None or not trial.decided:
        return ()
    heard = ((guard.name, decide(trial.call, trial.facts, (guard,))) for guard in GUARDS)
    return tuple((name, None if _silent(alone) else alone) for name, alone in heard)


def _silent(alone: Decision) -> bool:
    """Whether a single guard said nothing: no guard denies with the code for what none allowed."""
    return isinstance(alone, Denied) and alone.reasons[0].code == Code.NOT_ALLOWED


def rules_heard(trial: Trial) -> tuple[RuleHeard, ...]:
    """Every rule of the account that matches by place, the denying ones first, each kind in the order of precedence."""
    call, policy, connection = trial.call, trial.facts.policy, trial.facts.connection
    if call is None or policy is None or connection is None:
        return ()
    account, segments = policy.accounts.get(call.principal.account), normal_segments(call.path)
    if account is None or segments is None:
        return ()
    return tuple(
        RuleHeard(rule, allows, holds(rule, call, trial.facts))
        for allows, matcher in ((False, account.deny), (True, account.allow))
        for rule in matcher.matching(connection.name, call.method, segments, at_most=None)
    )


def asking_the_time(trial: Trial) -> str | None:
    """A rule that matches by place and whose condition asks for the time; None when there is none."""
    rules = (heard.rule for heard in rules_heard(trial))
    return next((rule.id for rule in rules if rule.when is not None and _asks_the_time(rule.when.reads)), None)


def _asks_the_time(names: frozenset[str]) -> bool:
    return any(name == NOW or name.startswith(f"{NOW}.") for name in names)


def _read(content_types: tuple[bytes, ...], body: bytes) -> Content | Reason:
    try:
        return read_content(content_types, body)
    except ContentRefused as error:
        return Reason(Code.CONTENT_REFUSED, error.detail)
