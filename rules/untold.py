"""What is said of a rule that cannot be told."""

from contextlib import suppress

from rules.call import Call, Facts
from rules.codes import Code
from rules.conditions.unknown import Unknown
from rules.conditions.variables import AMOUNT
from rules.decision import Reason
from rules.policy.matcher import Rule


def untold_reason(rule: Rule, call: Call, facts: Facts, *, denies: bool) -> Reason:
    """Why the rule could not be told: the amount where that is missing, which is the most a program can mend."""
    so = ", so it denies" if denies else ""
    if rule.when is not None and AMOUNT in rule.when.reads and not _amount_known(facts):
        return Reason(
            Code.AMOUNT_UNKNOWN, f"The amount that rule {rule.id} asks for cannot be determined{so}.", rule.id
        )
    return Reason(Code.CONDITION_FAILED, f"The condition of rule {rule.id} cannot be told{so}.", rule.id)


def _amount_known(facts: Facts) -> bool:
    for action in facts.actions:
        with suppress(Unknown):
            action.money(facts.found)
            continue
        return False
    return bool(facts.actions)
