"""The allowlist that an account's calls would have needed, from what each of them was decided on.

What an account did is no reason that it may: this is a draft for people. It is as narrow as what was seen allows: tools
by their names; paths only where the catalogue knows no tool, and there only calls of no tool that it knows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from rules.action import UNKNOWN_TOOL, Action
from rules.call import Call, Facts
from rules.catalogue.effect import DELETE, READ, READING, WRITE, Effect
from rules.catalogue.known import KnownService
from rules.codes import Code
from rules.content.content import NOTHING
from rules.decision import Decision, Denied
from rules.inputs import Body, DecisionInputs, decide_again
from rules.lookups import answered
from rules.matching import denying
from rules.policy.compile import TenantPolicy
from rules.policy.matcher import Matcher, Rule
from rules.policy.seen_paths import SeenPaths
from rules.policy.templates import MAX_SEGMENTS, Parameter, normal_segments, parse_template
from rules.policy.tool_checks import nameable
from rules.policy.values import METHODS
from rules.trial import understood

MAX_TOOLS: Final = 256
"""In one rule, as the policy's schema has it."""
MAX_VALUES: Final = 5
"""Of an argument that has more, none is shown."""
_MAX_ARGUMENTS: Final = 32
_MAX_VALUE: Final = 64
_ARGUMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_OF_RULES: Final = frozenset({Code.NOT_ALLOWED, Code.CONDITION_FAILED, Code.AMOUNT_UNKNOWN})

type Observed = tuple[str, datetime, DecisionInputs, TenantPolicy]
"""A call's id, when it was decided, on what, and the policy that it is to be understood by."""


@dataclass(slots=True)
class Seen:
    """Calls of one kind."""

    first: tuple[datetime, str]
    """When, and the call's id."""
    last: tuple[datetime, str]
    calls: int = 1
    denied: int = 0
    """By the rules there are: no rule of theirs allows it."""
    untold: int = 0
    """They may or may not be: a rule reads what was not kept."""

    def merge(self, other: "Seen") -> None:
        """This counts also what the other did."""
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.calls += other.calls
        self.denied += other.denied
        self.untold += other.untold


@dataclass(frozen=True, slots=True)
class Suggested:
    """A rule that allows what was seen."""

    id: str
    connection: str
    effect: Effect
    tools: tuple[str, ...]
    methods: tuple[str, ...]
    """Empty beside tools of the catalogue: they say it."""
    path: str | None
    seen: Seen
    of_tools: Mapping[str, Seen]
    """The same for each tool, where there are several."""
    arguments: Mapping[str, Mapping[str, int]]
    """Arguments that had few values, and how often each was there: as JSON."""


@dataclass(frozen=True, slots=True)
class Left:
    """Calls that no rule is suggested for."""

    why: str
    what: str
    seen: Seen


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What there was, as rules, and what is left out of them."""

    calls: int
    rules: tuple[Suggested, ...]
    left: tuple[Left, ...]


def suggest(account: str, calls: Iterable[Observed]) -> Suggestion:
    """The rules that allow these calls of the account and are no wider than what was seen. Pure.

    Takes time in the number of calls, and memory in that of different tools and paths.
    """
    observing = _Observing(account)
    for call, at, inputs, policy in calls:
        observing.take(call, at, inputs, policy)
    return Suggestion(observing.calls, tuple(_named(observing.rules(), observing.taken)), observing.left_out())


@dataclass(slots=True)
class _Tool:
    effect: Effect
    handshake: bool
    seen: Seen | None = None
    arguments: dict[str, dict[str, int]] = field(default_factory=dict)
    """Empty for one that has too many values."""


class _Unsuggested(Exception):
    """No rule is suggested for it; why."""


class _Observing:
    """What was seen so far."""

    def __init__(self, account: str) -> None:
        self.calls = 0
        self.taken: frozenset[str] = frozenset()
        """Ids of the deny rules: they stay."""
        self._account = account
        self._obeyed: dict[str, TenantPolicy] = {}
        self._known: dict[str, KnownService | None] = {}
        self._tools: dict[str, dict[str, _Tool]] = {}
        self._paths: dict[str, SeenPaths[Seen]] = {}
        self._left: dict[tuple[str, str], Seen] = {}

    def take(self, id_: str, at: datetime, inputs: DecisionInputs, policy: TenantPolicy) -> None:
        """One call more."""
        self.calls += 1
        obeyed = self._obeyed.get(policy.digest) or self._obeying(policy)
        call, facts = inputs.call_and_facts(obeyed, id_)
        content = NOTHING if inputs.body is Body.ABSENT else inputs.content
        facts = understood(call, replace(facts, content=content))
        if inputs.asked:
            facts = answered(facts, inputs.found)
        decision = decide_again(inputs, obeyed)
        denied, untold = isinstance(decision, Denied), decision is None

        def seen() -> Seen:
            return Seen((at, id_), (at, id_), 1, int(denied), int(untold))

        try:
            self._judge(call, facts, decision)
            by_path = [_by_path(call, facts, action) for action in _actions(facts)]
        except _Unsuggested as left:
            _count(self._left, (str(left), _what(call, facts)), seen())
            return
        connection = facts.connection
        if connection is None:  # such a call is denied by no rule, and told above
            return
        self._known[connection.name] = connection.known
        if any(by_path):
            segments = normal_segments(call.path) or ()
            self._paths.setdefault(connection.name, SeenPaths(top=True)).add(segments, call.method, seen())
        tools = self._tools.setdefault(connection.name, {})
        told: set[str] = set()
        for action, is_path in zip(facts.actions, by_path, strict=True):
            name = str(action.tool)
            if is_path:
                continue
            tool = tools.setdefault(name, _Tool(action.effect or WRITE, action.handshake))
            _arguments(tool, action)
            if name not in told:
                told.add(name)
                tool.seen = seen() if tool.seen is None else _merged(tool.seen, seen())

    def _obeying(self, policy: TenantPolicy) -> TenantPolicy:
        """The policy as if the account's rules were in force."""
        account = policy.accounts.get(self._account)
        accounts = dict(policy.accounts)
        if account is not None:
            accounts[self._account] = replace(account, observed_until=None)
            self.taken |= {rule.id for rule in account.deny.rules}
        return self._obeyed.setdefault(policy.digest, replace(policy, accounts=MappingProxyType(accounts)))

    def _judge(self, call: Call, facts: Facts, decision: Decision | None) -> None:
        """A deny rule stays, and what is refused whatever rules say is refused also with another rule."""
        # Asked by itself: where nothing would allow a call yet, its body is not judged, and is known here.
        account = None if facts.policy is None else facts.policy.accounts.get(self._account)
        denies = () if account is None else denying(call, facts, account)
        if denies:
            raise _Unsuggested(f"deny rule {denies[0][0].id}")
        reason = decision.reasons[0] if isinstance(decision, Denied) else None
        if reason is not None and reason.code not in _OF_RULES:
            raise _Unsuggested(str(reason.code))

    def left_out(self) -> tuple[Left, ...]:
        """What no rule is suggested for, in order."""
        return tuple(Left(why, what, seen) for (why, what), seen in sorted(self._left.items()))

    def rules(self) -> Iterator[Suggested]:
        """The rules, in order, without ids."""
        for connection in sorted({*self._tools, *self._paths}):
            known = self._known[connection]
            yield from self._of_tools(connection, known, self._tools.get(connection, {}))
            if connection in self._paths:
                yield from _of_paths(connection, known, self._paths[connection])

    def _of_tools(self, connection: str, known: KnownService | None, tools: dict[str, _Tool]) -> Iterator[Suggested]:
        acting = {name: tool for name, tool in tools.items() if not tool.handshake}
        if not acting:
            # Whoever may call one tool of a server may keep a session with it; alone it has to be named.
            for name, tool in tools.items():
                if known is not None and nameable(name, known):
                    acting[name] = tool
                elif tool.seen is not None:
                    _count(self._left, ("a session is opened by a rule about any tool of its server", name), tool.seen)
        reads = sorted(name for name, tool in acting.items() if tool.effect == READ)
        for start in range(0, len(reads), MAX_TOOLS):
            yield _of_some(connection, READ, {name: acting[name] for name in reads[start : start + MAX_TOOLS]})
        for effect in (WRITE, DELETE):
            for name in sorted(name for name, tool in acting.items() if tool.effect == effect):
                yield _of_some(connection, effect, {name: acting[name]})


def _actions(facts: Facts) -> tuple[Action, ...]:
    if not facts.actions:
        raise _Unsuggested("it could not be understood")
    return facts.actions


def _by_path(call: Call, facts: Facts, action: Action) -> bool:
    """Whether only its path says what the action is. Raises `_Unsuggested` where no rule could say it alone."""
    known = None if facts.connection is None else facts.connection.known
    if action.tool is None:
        raise _Unsuggested("which tool it is stands in a body that was not read")
    if action.handshake:
        return False
    if action.tool != (UNKNOWN_TOOL if known is None else f"{known.name}.{UNKNOWN_TOOL}"):
        if known is not None and not nameable(action.tool, known):
            raise _Unsuggested("the catalogue does not list the tool")
        return False
    segments = normal_segments(call.path) or ()
    if known is not None and (
        known.speaks_mcp(segments) or known.takes_graphql(segments) or known.candidates(call.method, segments)
    ):
        # A rule about its path would open every tool that goes by it.
        raise _Unsuggested("what it carries does not tell which tool it is")
    if call.method not in METHODS or len(segments) > MAX_SEGMENTS or len(call.path) > 1024:
        raise _Unsuggested("no rule can name its method or its path")
    return True


def _what(call: Call, facts: Facts) -> str:
    """The call in words that hold nothing of its path, query and body."""
    tools = sorted({action.tool for action in facts.actions if action.tool is not None})
    if tools and not any(tool.rpartition(".")[2] == UNKNOWN_TOOL for tool in tools):
        return " + ".join(tools[:3]) + (f" + {len(tools) - 3} more" if len(tools) > 3 else "")
    method = call.method if call.method in METHODS else "another method"
    return f"{method} on {call.host if facts.connection is None else facts.connection.name}"


def _arguments(tool: _Tool, action: Action) -> None:
    for name, value in {**(action.args or {}), **action.place}.items():
        if not isinstance(value, str | int) or not _ARGUMENT.fullmatch(name):
            continue
        if name not in tool.arguments and len(tool.arguments) >= _MAX_ARGUMENTS:
            continue
        values = tool.arguments.setdefault(name, {"": 0})
        if not values:
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        values[text] = values.get(text, 0) + 1
        if len(values) > MAX_VALUES + 1 or len(text) > _MAX_VALUE:
            values.clear()


def _few(tool: _Tool) -> dict[str, dict[str, int]]:
    told = {name: {text: count for text, count in of.items() if count} for name, of in sorted(tool.arguments.items())}
    return {name: dict(sorted(of.items(), key=lambda one: (-one[1], one[0]))) for name, of in told.items() if of}


def _of_some(connection: str, effect: Effect, tools: Mapping[str, _Tool]) -> Suggested:
    of_tools = {name: tool.seen for name, tool in tools.items() if tool.seen is not None}
    total = _total(of_tools.values())
    several = len(tools) > 1
    arguments = {
        (f"{name}: {argument}" if several else argument): values
        for name, tool in tools.items()
        for argument, values in _few(tool).items()
    }
    return Suggested(
        "", connection, effect, tuple(tools), (), None, total, of_tools if several else {}, MappingProxyType(arguments)
    )


def _of_paths(connection: str, known: KnownService | None, paths: SeenPaths[Seen]) -> Iterator[Suggested]:
    tools = () if known is None else (f"{known.name}.{UNKNOWN_TOOL}",)
    found: dict[str, tuple[Rule, Seen]] = {}
    for segments, by_method in paths.templates():
        reads = tuple(sorted(READING & by_method.keys()))
        for methods in (reads, *((method,) for method in sorted(by_method.keys() - READING))):
            if methods:
                template = parse_template(_template(segments))
                name = f"{template.text} {methods}"
                rule = Rule(name, connection, frozenset(methods), template, len(found))
                found[name] = (rule, _total(by_method[method] for method in methods))
    # `/orders/{id}` allows `/orders/search` too, whether it is said or not.
    matcher = Matcher(tuple(rule for rule, _ in found.values()))
    for name, (rule, seen) in list(found.items()):
        over = rule
        while (broader := matcher.broader(over)) is not None:
            over = broader
        if over is not rule:
            found[over.id][1].merge(seen)
            del found[name]
    for rule, seen in found.values():
        methods = tuple(sorted(rule.methods or ()))
        effect: Effect = READ if set(methods) <= READING else DELETE if methods == ("DELETE",) else WRITE
        nothing: Mapping[str, Mapping[str, int]] = {}
        yield Suggested("", connection, effect, tools, methods, rule.template.text, seen, {}, nothing)


def _template(segments: tuple[str | Parameter, ...]) -> str:
    parts: list[str] = []
    names = 0
    for segment in segments:
        if isinstance(segment, Parameter):
            names += 1
            parts.append("{id}" if names == 1 else f"{{id{names}}}")
        else:
            parts.append(quote(segment.encode("latin-1"), safe="~!$&'()+,:@=;"))
    return "/" + "/".join(parts)


def _named(rules: Iterable[Suggested], taken: frozenset[str]) -> Iterator[Suggested]:
    used = set(taken)
    for rule in rules:
        name = slug = _slug(rule)
        number = 1
        while name in used:
            number += 1
            name = f"{slug}-{number}"
        used.add(name)
        yield replace(rule, id=name)


def _slug(rule: Suggested) -> str:
    if rule.path is not None:
        said = f"{'' if rule.effect == READ else rule.methods[0]} {rule.path.replace('{', ' ').replace('}', ' ')}"
        said = f"read {said}" if rule.effect == READ else said
    elif rule.effect == READ:
        said = "reads"
    else:
        said = rule.tools[0].partition(".")[2].removeprefix(f"{rule.connection}.")
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", said).lower())
    return "-".join((rule.connection, *words))[:56].strip("-_")


def _total(of: Iterable[Seen]) -> Seen:
    first, *others = of
    total = replace(first)
    for seen in others:
        total.merge(seen)
    return total


def _merged(into: Seen, seen: Seen) -> Seen:
    into.merge(seen)
    return into


def _count[K](counts: dict[K, Seen], key: K, seen: Seen) -> None:
    if key in counts:
        counts[key].merge(seen)
    else:
        counts[key] = seen
