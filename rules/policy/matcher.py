"""Which rules match a call: a trie per connection and method, a table of tools, flat in the number of rules.

A lookup walks at most four tries (this connection or any, this method or all), and in each only the nodes that agree
with the path. Rules that name tools are found by the tool's name and by each beginning of it that a `*` may stand
behind. What it costs depends on the path's length and on how many rules match, not on how many there are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Final

from rules.bodies import HELD, Handling
from rules.conditions.condition import Condition
from rules.conditions.variables import OF_BODY
from rules.policy.templates import PARAMETER, Parameter, Template

ANY: Final = "*"
"""Any connection of the tenant."""
TOLD: Final = 8
"""Rules that a decision names, where more of them match."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule."""

    id: str
    connection: str
    """A connection's name, or `ANY`."""
    methods: frozenset[str] | None
    """None: all methods."""
    template: Template
    position: int
    """In the account's list, from 0; the last word between rules that are equally specific."""
    body: Handling = HELD
    """What is done with the bodies of calls that this rule decides."""
    when: Condition | None = None
    """What else has to be true for the rule to match."""
    tools: tuple[str, ...] | None = None
    """Whole names of tools, or beginnings with `.*`; None: whatever tool it is."""
    effects: frozenset[str] | None = None
    """None: whatever it does."""
    rank: tuple[tuple[int, int], tuple[int, ...], bool, bool, int] = field(init=False, repr=False, compare=False)
    """The smaller, the more specific: by tool, then by path, by connection, by method, then as written."""

    @property
    def by_place(self) -> bool:
        """Whether connection, method and path alone say what it matches."""
        return self.when is None and self.tools is None and self.effects is None

    @property
    def reads_body(self) -> bool:
        """Whether the body is read before the rule can be judged, or because the rule asks for it."""
        return self.body.inspect or (self.when is not None and not OF_BODY.isdisjoint(self.when.reads))

    @property
    def reads_time(self) -> bool:
        """Whether what it says of a call depends on when it is asked."""
        return self.when is not None and self.when.clock is not None

    def __post_init__(self) -> None:
        tools = (1, 0) if self.tools is None else (0, min(map(_vagueness, self.tools)))
        rank = (tools, self.template.rank, self.connection == ANY, self.methods is None, self.position)
        object.__setattr__(self, "rank", rank)


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    ends: list[Rule] = field(default_factory=list)
    """Rules whose template ends here."""
    rests: list[Rule] = field(default_factory=list)
    """Rules whose template ends here in `/**`."""


type _Place = tuple[str, str, tuple[str, ...], str | int | None]


@dataclass(frozen=True, slots=True)
class Matcher:
    """The deny or the allow rules of one account."""

    rules: tuple[Rule, ...]
    """As written."""
    _tries: dict[tuple[str, str | None], _Node] = field(init=False, repr=False, compare=False)
    _tools: dict[tuple[str, str], list[Rule]] = field(init=False, repr=False, compare=False)
    _services: dict[tuple[str, str], list[Rule]] = field(init=False, repr=False, compare=False)
    _last: dict[str, tuple[_Place, tuple[Rule, ...]]] = field(init=False, repr=False, compare=False)
    """What was found last, by what was asked: the guards of one decision ask for the same place."""

    def __post_init__(self) -> None:
        tries: dict[tuple[str, str | None], _Node] = {}
        tools: dict[tuple[str, str], list[Rule]] = {}
        services: dict[tuple[str, str], list[Rule]] = {}
        # The most specific first, so that what a node holds is already in order.
        for rule in sorted(self.rules, key=_rank):
            if rule.tools is not None:
                for name in rule.tools:
                    tools.setdefault((rule.connection, name), []).append(rule)
                for service in {service for name in rule.tools for service in services_in(name)}:
                    services.setdefault((rule.connection, service), []).append(rule)
                continue
            for method in rule.methods if rule.methods is not None else (None,):
                _insert(tries.setdefault((rule.connection, method), _Node()), rule)
        object.__setattr__(self, "_tries", tries)
        object.__setattr__(self, "_tools", tools)
        object.__setattr__(self, "_services", services)
        object.__setattr__(self, "_last", {})

    def naming(self, connection: str, tool: str, method: str, segments: tuple[str, ...]) -> tuple[Rule, ...]:
        """The rules that name the tool, alone or with others, and agree with the place; the most specific first."""
        if not self._tools:
            return ()
        place = (connection, method, segments, tool)
        last = self._last.get("naming")
        if last is not None and last[0] == place:
            return last[1]
        found: dict[str, Rule] = {}
        for name in (tool, *wider(tool)):
            for where in (connection, ANY):
                for rule in self._tools.get((where, name), ()):
                    if _fits(rule, method, segments):
                        found[rule.id] = rule
        named = tuple(sorted(found.values(), key=_rank)) if len(found) > 1 else tuple(found.values())
        # One entry in one step: whatever other thread asks, a place and its rules stay together.
        self._last["naming"] = (place, named)
        return named

    def naming_any(self, connection: str, service: str, method: str, segments: tuple[str, ...]) -> tuple[Rule, ...]:
        """The first rules that name tools of a service, whichever they are, and agree with the place."""
        if not self._services:
            return ()
        keys = ((where, name) for where in (connection, ANY) for name in (service, ANY))
        fitting = ((rule for rule in self._services.get(key, ()) if _fits(rule, method, segments)) for key in keys)
        return tuple(rule for rules in fitting for rule in islice(rules, TOLD))

    def naming_each(self, connection: str, method: str, segments: tuple[str, ...]) -> tuple[Rule, ...]:
        """All rules that name tools, whichever, and agree with the connection and the place. It looks at each."""
        return tuple(
            rule
            for rule in self.rules
            if rule.tools is not None and rule.connection in (connection, ANY) and _fits(rule, method, segments)
        )

    def matching(
        self, connection: str, method: str, segments: tuple[str, ...], *, at_most: int | None = TOLD
    ) -> tuple[Rule, ...]:
        """The most specific rules that match by place, the deciding one first, at most so many; empty when none does.

        Rules that name tools are not among them. Conditions and effects are not looked at: whoever does must ask for
        all of them (None).
        """
        if not self._tries:
            return ()
        place = (connection, method, segments, at_most)
        last = self._last.get("matching")
        if last is not None and last[0] == place:
            return last[1]
        found: list[Rule] = []
        for key in ((connection, method), (connection, None), (ANY, method), (ANY, None)):
            trie = self._tries.get(key)
            if trie is not None:
                _walk(trie, segments, found, at_most)
        if len(found) > 1:
            found.sort(key=_rank)
        matched = tuple(found[:at_most])
        self._last["matching"] = (place, matched)
        return matched

    def covering(self, rule: Rule) -> Rule | None:
        """One of the rules here that together match every call that `rule` matches; None when some call is left.

        All rules here have to be `by_place`, or what covers has to be enough without what else they ask.
        """
        first: Rule | None = None
        for method in sorted(rule.methods) if rule.methods is not None else (None,):
            found: list[Rule] = []
            for connection in {rule.connection, ANY}:
                for key in {(connection, method), (connection, None)}:
                    trie = self._tries.get(key)
                    if trie is not None:
                        _walk(trie, rule.template.segments, found, 1, rest=rule.template.rest)
            if not found:
                return None
            first = first or min(found, key=_rank)
        return first

    def broader(self, rule: Rule) -> Rule | None:
        """A single rule here that matches by place every call that `rule` does, and others too; None: there is none.

        Whatever asks for more matches fewer than its place says; no rule here does. Of very many at one place, the
        first few are looked at.
        """
        found: list[Rule] = []
        method = None if rule.methods is None else min(rule.methods)
        for connection in {rule.connection, ANY}:
            for key in {(connection, method), (connection, None)}:
                trie = self._tries.get(key)
                if trie is not None:
                    _walk(trie, rule.template.segments, found, TOLD, rest=rule.template.rest)
        wider = (
            other
            for other in found
            if other.methods is None or (rule.methods is not None and rule.methods <= other.methods)
        )
        return min(
            (other for other in wider if not rule.by_place or _place(other) != _place(rule)),
            key=_rank,
            default=None,
        )


def _fits(rule: Rule, method: str, segments: tuple[str, ...]) -> bool:
    return (rule.methods is None or method in rule.methods) and rule.template.covers(segments)


def _place(rule: Rule) -> tuple[object, ...]:
    """Alike for rules whose templates differ only in their parameters' names."""
    return rule.connection, rule.methods, rule.template.segments, rule.template.rest


_rank: Final = attrgetter("rank")


def wider(tool: str) -> tuple[str, ...]:
    """The names with `*` that a tool goes by: `stripe.refund.*`, `stripe.*` and `*` for `stripe.refund.create`."""
    parts = tool.split(".")
    return (*(".".join((*parts[:end], ANY)) for end in range(len(parts) - 1, 0, -1)), ANY)


def _vagueness(name: str) -> int:
    """The smaller, the more specific."""
    return (1000 if name.endswith(ANY) else 0) - name.count(".")


def services_in(name: str) -> tuple[str, ...]:
    """The services whose tools a name may mean; `ANY` for all of them."""
    if name == ANY:
        return (ANY,)
    parts = re.split(r"[./]", name)
    if parts[0] != "mcp" or len(parts) == 1:
        return (parts[0],)
    return (ANY,) if parts[1] == ANY else (f"mcp.{parts[1]}",)


def names_tools_of(name: str, service: str) -> bool:
    """Whether a tool that the name means can be one of the service's."""
    return not {ANY, service}.isdisjoint(services_in(name))


def _insert(trie: _Node, rule: Rule) -> None:
    node = trie
    for segment in rule.template.segments:
        if isinstance(segment, Parameter):
            if node.parameter is None:
                node.parameter = _Node()
            node = node.parameter
        else:
            node = node.literals.setdefault(segment, _Node())
    (node.rests if rule.template.rest else node.ends).append(rule)


def _walk(
    trie: _Node, segments: Iterable[str | Parameter], found: list[Rule], at_most: int | None, *, rest: bool = False
) -> None:
    """Adds the rules that match every path the segments stand for: of each node the first `at_most`, which suffices."""
    nodes = [trie]
    for segment in segments:
        following: list[_Node] = []
        for node in nodes:
            if node.rests:
                found.extend(node.rests[:at_most])
            # A parameter is one segment with something in it: `/tickets/` is not `/tickets/{id}`.
            if node.parameter is not None and segment != "":
                following.append(node.parameter)
            if not isinstance(segment, Parameter):
                literal = node.literals.get(segment)
                if literal is not None:
                    following.append(literal)
        if not following:
            return
        nodes = following
    for node in nodes:
        if not rest:
            found.extend(node.ends[:at_most])
        found.extend(node.rests[:at_most])


__all__ = ["ANY", "PARAMETER", "Matcher", "Rule", "names_tools_of", "services_in", "wider"]
