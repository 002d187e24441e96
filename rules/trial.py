"""A trial: a call judged as the gate judges it, by the same functions in the same order, and not sent.

What is tried is what the policy and the request alone decide. Limits are claims, taken when a call is really made, and
secrets are the state's; neither is looked at here.
"""

from dataclasses import dataclass, replace

from rules.call import Call, Facts
from rules.classification import classified
from rules.codes import Code
from rules.conditions.variables import NOW
from rules.content.content import Value, read_content
from rules.content.refused import ContentRefused
from rules.decide import decide
from rules.decision import Decision, Denied
from rules.guards import GUARDS
from rules.matching import heard, judged_by_body, tool_matters
from rules.policy.matcher import Rule
from rules.policy.templates import normal_segments
from rules.policy.values import Money


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


def judge(
    call: Call,
    facts: Facts,
    content_types: tuple[bytes, ...],
    body: bytes,
    *,
    found: Value = None,
    amount: Money | None = None,
) -> Trial:
    """Steps 3 and 4 on a call whose whole body is at hand. Pure, never raises.

    `found` is what the service would answer to a lookup, `amount` what the call moves, where a test says so.
    """
    facts = understood(call, facts)
    reads = judged_by_body(call, facts)
    if reads:
        facts = read(call, facts, content_types, body)
    actions = tuple(replace(action, stated=amount, _told={}) for action in facts.actions) if amount else facts.actions
    facts = replace(facts, actions=actions, found=found)
    return Trial(call, facts, decide(call, facts), decided=True, body_read=reads)


def understood(call: Call, facts: Facts) -> Facts:
    """Classified by what is there; or with the reason why that cannot be understood. Never raises."""
    try:
        return classified(call, facts)
    except ContentRefused as error:
        return replace(facts, unreadable=error.detail) if tool_matters(call, facts) else facts


def read(call: Call, facts: Facts, content_types: tuple[bytes, ...], body: bytes) -> Facts:
    """The facts with what the body says. Never raises."""
    try:
        return understood(call, replace(facts, content=read_content(content_types, body)))
    except ContentRefused as error:
        return replace(facts, unreadable=error.detail)


def guards_heard(trial: Trial) -> tuple[tuple[str, Decision | None], ...]:
    """What each guard by itself would make of the call, in their order; None: no objection, no permission."""
    if trial.call is None or not trial.decided:
        return ()
    heard = ((guard.name, decide(trial.call, trial.facts, (guard,))) for guard in GUARDS)
    return tuple((name, None if _silent(alone) else alone) for name, alone in heard)


def _silent(alone: Decision) -> bool:
    """Whether a single guard said nothing: no guard denies with the code for what none allowed. In stage `observe` that
    lets the call out, too."""
    reasons = alone.reasons if isinstance(alone, Denied) else alone.observed
    return bool(reasons) and reasons[0].code == Code.NOT_ALLOWED


def rules_heard(trial: Trial) -> tuple[RuleHeard, ...]:
    """Every rule of the account that matches by place, the denying ones first, each kind in the order of precedence."""
    call, policy, connection = trial.call, trial.facts.policy, trial.facts.connection
    if call is None or policy is None or connection is None:
        return ()
    account, segments = policy.accounts.get(call.principal.account), normal_segments(call.path)
    if account is None or segments is None:
        return ()
    return tuple(
        RuleHeard(rule, allows, says)
        for allows in (False, True)
        for rule, says in heard(call, trial.facts, account, allows=allows)
    )


def asking_the_time(trial: Trial) -> str | None:
    """A rule that matches by place and whose condition asks for the time; None when there is none."""
    rules = (heard.rule for heard in rules_heard(trial))
    return next((rule.id for rule in rules if rule.when is not None and _asks_the_time(rule.when.reads)), None)


def _asks_the_time(names: frozenset[str]) -> bool:
    return any(name == NOW or name.startswith(f"{NOW}.") for name in names)
