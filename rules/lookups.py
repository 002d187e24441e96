"""What the service itself is asked before a call is judged, where the request does not say what a rule asks for."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from rules.action import Action
from rules.call import Call, Facts
from rules.catalogue.tool import Lookup
from rules.conditions.asked import other_capitals
from rules.conditions.unknown import Unknown
from rules.conditions.variables import AMOUNT, CURRENCY, RECIPIENTS
from rules.content.content import Value
from rules.limits.limit import Metered
from rules.matching import asking, counting
from rules.policy.matcher import TOLD, Rule

LIMIT: Final = "limit:"
"""Begins the name of a limit where rules are named. No rule's name has a colon."""
_SAFE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.@-]{0,127}", re.ASCII)
"""What an argument may be to stand in a path: an id, never a way to another one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One read that the gate makes for its own judgement."""

    path: str
    query: str
    route: str
    rules: tuple[str, ...]
    """The rules that ask; `limit:` and its meter for a limit that does."""


def wanted(call: Call, facts: Facts) -> Wanted | None:
    """The read that would tell what the rules ask for; None where none is needed, or none would help. Pure."""
    if len(facts.actions) != 1:
        return None
    (action,) = facts.actions
    tool = action.known
    if tool is None or not tool.lookups or action.args is None:
        return None
    asked = [rule.id for rule in asking(call, facts) if not _told(rule, action)]
    asked += [_named(metered) for metered in counting(call, facts) if not _measured(metered, action)]
    rules = tuple(asked[:TOLD])
    if not rules:
        return None
    names = frozenset(lookup.given for lookup in tool.lookups)
    if other_capitals(dict.fromkeys(action.args), names, frozenset(map(str.casefold, names))):
        return None  # the service may be asked about one thing, and do another
    for lookup in tool.lookups:
        given = action.args.get(lookup.given)
        if isinstance(given, str) and _SAFE.fullmatch(given):
            return _wanted(lookup, given, rules)
    return None


def answered(facts: Facts, found: Value) -> Facts:
    """The facts with what the service said."""
    return replace(facts, asked=True, found=found, actions=tuple(replace(action, _told={}) for action in facts.actions))


def _wanted(lookup: Lookup, given: str, rules: tuple[str, ...]) -> Wanted:
    path, _, query = lookup.target.replace(f"{{{lookup.given}}}", quote(given, safe="")).partition("?")
    return Wanted(path, quote(query, safe="=&%[]"), lookup.route, rules)


def _told(rule: Rule, action: Action) -> bool:
    """Whether the request itself says all that the rule asks for."""
    reads = frozenset() if rule.when is None else rule.when.reads
    with suppress(Unknown):
        if not reads.isdisjoint({AMOUNT, CURRENCY}):
            action.money(None)
        if RECIPIENTS in reads:
            action.recipients(None)
        return True
    return False


def _named(metered: Metered) -> str:
    return f"{LIMIT}{metered.name}"[:128]


def _measured(metered: Metered, action: Action) -> bool:
    """Whether the request itself says what a limit counts."""
    with suppress(Unknown):
        if metered.meter.counts == "money":
            action.money(None)
        else:
            action.count(metered.name, None)
        return True
    return False
