"""What is valid in a policy and probably not meant, beyond what `checks` sees: each warning has a permanent name."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from rules.catalogue.effect import READING
from rules.conditions.condition import Values
from rules.policy.checks import compiled_rules
from rules.policy.effects import only_reads
from rules.policy.finding import (
    CONSTANT_CONDITION,
    NO_LIMITS,
    SHADOWED_RULE,
    UNKNOWN_SEGMENT,
    WILDCARD_WRITE,
    Finding,
)
from rules.policy.limit_models import LimitsDocument
from rules.policy.matcher import ANY, Matcher, Rule
from rules.policy.models import AccountDocument, TenantDocument
from rules.policy.reading import Location
from rules.policy.values import METHODS, suggest

_TEXTS: Final = re.compile(r"""r?(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")
_SEGMENT: Final = re.compile(r"(?<![\w.])path\.([a-z_][a-z0-9_]*)")


def warnings(document: TenantDocument) -> Iterator[Finding]:
    """The warnings about the accounts' rules and limits. A policy that is in force is not asked for them."""
    for name, account in document.accounts.items():
        yield from _account(name, account, document.limits)


def _account(name: str, account: AccountDocument, whole: LimitsDocument | None) -> Iterator[Finding]:
    allow = compiled_rules(account.rules, allow=True)
    deny = compiled_rules(account.rules, allow=False)
    at: Location = ("accounts", name)
    for allows, rule in (*((True, rule) for rule in allow), *((False, rule) for rule in deny)):
        yield from _condition((*at, "rules", rule.position, "when"), rule, allows=allows)
    always = Matcher(tuple(rule for rule in allow if rule.by_place))
    never = Matcher(tuple(rule for rule in deny if rule.by_place))
    for rule in allow:
        yield from _shadowed((*at, "rules", rule.position), rule, always)
        yield from _wildcard((*at, "rules", rule.position), rule, never)
    yield from _limits(at, name, (account.limits, whole), allow)


def _condition(at: Location, rule: Rule, *, allows: bool) -> Iterator[Finding]:
    """A condition that no call can make any difference to."""
    if rule.when is None:
        return
    # Without a value for any variable: what is told even so does not depend on one (`false && x` is false).
    constant = rule.when.holds(Values({}))
    if constant is False:
        message = f"the condition of {rule.id} is never true: it {'allows' if allows else 'denies'} nothing"
        yield Finding(at, message, f"mend the condition, or remove {rule.id}", False, name=CONSTANT_CONDITION)
        return
    if constant is True:
        message = f"the condition of {rule.id} is always true"
        yield Finding(at, message, "mend it, or remove when:", False, name=CONSTANT_CONDITION)
        return
    if not rule.when.reads and constant is None:
        message = f"the condition of {rule.id} can never be told: {_untold(allows)}"
        yield Finding(at, message, "mend the condition", False, name=CONSTANT_CONDITION)
    known = tuple(name for name, _ in rule.template.parameters)
    text = _TEXTS.sub("''", rule.when.text)
    for segment in dict.fromkeys(_SEGMENT.findall(text)):
        if segment not in known:
            message = f"the path of {rule.id} has no {{{segment}}}: where that is asked for, {_untold(allows)}"
            fix = suggest(segment, known) if known else f"write {{{segment}}} in its path, or remove the condition"
            yield Finding(at, message, fix, False, name=UNKNOWN_SEGMENT)


def _untold(allows: bool) -> str:
    """What becomes of calls when a condition cannot be told."""
    return "it allows nothing" if allows else "it denies every call that it matches"


def _shadowed(at: Location, rule: Rule, always: Matcher) -> Iterator[Finding]:
    """An allow rule without which the same calls were allowed, with their bodies treated alike."""
    over = always.broader(rule)
    if over is None or (rule.when is None and rule.body != over.body):
        return
    if rule.when is not None:
        message = f"the condition of {rule.id} keeps nothing out: {over.id} allows all of its calls"
        fix = f"narrow {over.id}, or remove the condition"
    else:
        message = f"{rule.id} allows nothing that {over.id} does not allow"
        fix = f"remove {rule.id}, or narrow {over.id}"
    yield Finding(at, message, fix, False, name=SHADOWED_RULE)


def _wildcard(at: Location, rule: Rule, never: Matcher) -> Iterator[Finding]:
    """Writes that are allowed everywhere: on any connection, or on any path of one."""
    if rule.when is not None or only_reads(rule):
        return
    if rule.tools is not None or rule.effects is not None:
        yield from _wildcard_tools(at, rule)
        return
    everywhere = rule.connection == ANY or (rule.template.rest and not rule.template.segments)
    if not everywhere:
        return
    writes = (frozenset(METHODS) if rule.methods is None else rule.methods) - READING
    if never.covering(replace(rule, methods=writes)) is not None:
        return
    where = "on every connection" if rule.connection == ANY else "on every path"
    methods = "with any method" if rule.methods is None else f"with {', '.join(sorted(writes))}"
    fix = "say methods: [GET, HEAD], name the paths that are written to, or add when:"
    yield Finding(at, f"{rule.id} allows writes {where}, {methods}", fix, False, name=WILDCARD_WRITE)


def _wildcard_tools(at: Location, rule: Rule) -> Iterator[Finding]:
    """Writes by every tool of a service, or of all of them."""
    wide = [name for name in rule.tools or (ANY,) if name == ANY or (name.endswith(".*") and name.count(".") == 1)]
    if not wide or (rule.template.segments and rule.tools is None):
        return
    fix = "say effects: [read], name the tools that are needed, or add when:"
    message = f"{rule.id} allows writes by every tool" + ("" if ANY in wide else f" of {wide[0].removesuffix('.*')}")
    yield Finding(at, message, fix, False, name=WILDCARD_WRITE)


def _limits(
    at: Location, name: str, levels: tuple[LimitsDocument | None, ...], allow: tuple[Rule, ...]
) -> Iterator[Finding]:
    """An account that changes things as fast as it can, until somebody looks."""
    limited = any(limits is not None and (limits.concurrency or limits.rate or limits.spend) for limits in levels)
    if limited or all(only_reads(rule) for rule in allow):
        return
    message = f"{name} may write, and has no limit of any kind"
    fix = 'add limits: {rate: [{connection: "*", max: 60, per: minute}]}'
    yield Finding(at, message, fix, False, True, NO_LIMITS)
