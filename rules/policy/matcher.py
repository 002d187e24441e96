"""Which rules match a call: a trie per connection and method, flat in the number of rules.

A lookup walks at most four tries (this connection or any, this method or all), and in each only the nodes that agree
with the path. What it costs depends on the path's length and on how many rules match, not on how many there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from rules.bodies import HELD, Handling
from rules.conditions.condition import Condition
from rules.conditions.variables import BODY
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
    rank: tuple[tuple[int, ...], bool, bool, int] = field(init=False, repr=False, compare=False)
    """The smaller, the more specific: by path, then by connection, then by method, then as written."""

    @property
    def reads_body(self) -> bool:
        """Whether the body is read before the rule can be judged, or because the rule asks for it."""
        return self.body.inspect or (self.when is not None and BODY in self.when.reads)

    def __post_init__(self) -> None:
        rank = (self.template.rank, self.connection == ANY, self.methods is None, self.position)
        object.__setattr__(self, "rank", rank)


@dataclass(slots=True)
class _Node:
    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    ends: list[Rule] = field(default_factory=list)
    """Rules whose template ends here."""
    rests: list[Rule] = field(default_factory=list)
    """Rules whose template ends here in `/**`."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """The deny or the allow rules of one account."""

    rules: tuple[Rule, ...]
    """As written."""
    _tries: dict[tuple[str, str | None], _Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tries: dict[tuple[str, str | None], _Node] = {}
        # The most specific first, so that what a node holds is already in order.
        for rule in sorted(self.rules, key=_rank):
            for method in rule.methods if rule.methods is not None else (None,):
                _insert(tries.setdefault((rule.connection, method), _Node()), rule)
        object.__setattr__(self, "_tries", tries)

    def matching(
        self, connection: str, method: str, segments: tuple[str, ...], *, at_most: int | None = TOLD
    ) -> tuple[Rule, ...]:
        """The most specific rules that match, the deciding one first, at most so many; empty when none does.

        Conditions are not looked at: whoever does must ask for all of them (None).
        """
        found: list[Rule] = []
        for key in ((connection, method), (connection, None), (ANY, method), (ANY, None)):
            trie = self._tries.get(key)
            if trie is not None:
                _walk(trie, segments, found, at_most)
        if len(found) > 1:
            found.sort(key=_rank)
        return tuple(found[:at_most])

    def covering(self, rule: Rule) -> Rule | None:
        """One of the rules here that together match every call that `rule` matches; None when some call is left."""
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


_rank: Final = attrgetter("rank")


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


__all__ = ["ANY", "PARAMETER", "Matcher", "Rule"]
