"""What the conditions of one decision are asked about: each value of a call is found once, for all of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rules.call import Call, Facts
from rules.conditions.condition import Condition, Values
from rules.conditions.variables import PATH, Judged, values_of
from rules.policy.templates import Template

if TYPE_CHECKING:
    from rules.action import Action

type _Parameters = tuple[tuple[str, int], ...]


class Together:
    """One action of a call, and what of it was asked for so far."""

    __slots__ = ("_action", "_call", "_values")

    def __init__(self, call: Call, action: "Action | None") -> None:
        self._call = call
        self._action = action
        # By what the path's variables are to the rule: nothing, to a condition that does not ask for them.
        self._values: dict[_Parameters | None, tuple[set[str], Values]] = {}

    def is_of(self, call: Call, action: "Action | None") -> bool:
        """Whether it is about these, and not about others that are equal."""
        return self._call is call and self._action is action

    def says(self, condition: Condition, facts: Facts, template: Template) -> bool | None:
        """What a condition says of the action; `template` is its rule's. The facts are always the same."""
        reads = condition.reads
        path = template.parameters if PATH in reads else None
        if path not in self._values:
            self._values[path] = (set(reads), Values(self._told(reads, facts, template)))
        known, values = self._values[path]
        missing = reads - known
        if missing:
            values.add(self._told(missing, facts, template))
            known |= missing
        return condition.holds(values)

    def _told(self, names: Iterable[str], facts: Facts, template: Template) -> dict[str, object]:
        return values_of(Judged(self._call, facts, template, self._action), names)


def says(condition: Condition, call: Call, facts: Facts, template: Template, action: "Action | None") -> bool | None:
    """What a condition of a rule with this template says of an action of the call; None where it cannot be told."""
    of = facts.together
    if of is None or not of.is_of(call, action):
        # One at a time, for rules are asked action by action: of thousands of actions only one is in memory.
        of = Together(call, action)
        facts.remember(of)
    return of.says(condition, facts, template)
