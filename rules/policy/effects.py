"""What a rule's calls do: read, write or delete."""

from typing import Final

from rules.catalogue.catalogue import NOTHING_ADDED
from rules.policy.matcher import ANY, Rule

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110 section 9.2.1: safe, as far as the service keeps to it. Any other method may write."""
DELETING: Final = frozenset({"DELETE"})
EFFECTS: Final = ("read", "write", "delete")


def effects_of(rule: Rule) -> frozenset[str]:
    """Every effect that a call which the rule matches may have. All that asks a rule for its effects asks here."""
    if rule.effects is not None:
        return rule.effects
    if rule.tools is not None:
        return frozenset(effect for name in rule.tools for effect in _of_tool(name))
    if rule.methods is None:
        return frozenset(EFFECTS)
    return frozenset(effect_of(method) for method in rule.methods)


def _of_tool(name: str) -> frozenset[str]:
    """What the tools that a name means do, as far as what comes with Exeat says; what is not known may do anything."""
    known = NOTHING_ADDED.named(name.partition(".")[0])
    if known is None:
        return frozenset(EFFECTS)
    if not name.endswith(ANY):
        return frozenset({known.tools[name].effect}) if name in known.tools else frozenset(EFFECTS)
    beginning = name.removesuffix(ANY)
    found = frozenset(tool.effect for whole, tool in known.tools.items() if whole.startswith(beginning))
    return found if found and beginning != f"{known.name}." else frozenset(EFFECTS)


def effect_of(method: str) -> str:
    """What a method does; an unknown one is a write."""
    if method in READING:
        return "read"
    return "delete" if method in DELETING else "write"


def only_reads(rule: Rule) -> bool:
    """Whether no call that the rule matches changes anything."""
    return effects_of(rule) <= {"read"}
