"""A service that the catalogue knows: which tool a request is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

from credentials.presentation import Presentation
from rules.catalogue.loose import loose, loosely, loosened
from rules.catalogue.tool import Field, HttpCall, Tool
from rules.conditions.condition import Expression
from rules.policy.matcher import ANY, Matcher, Rule
from rules.policy.templates import Parameter, Template, parse_template

ENDPOINT: Final = "/mcp"
"""Where a server of MCP speaks it, if nobody says otherwise."""


@dataclass(frozen=True)
class KnownService:
    """One service. What it does not know, it does not guess: an unknown tool is nobody's."""

    name: str
    hosts: tuple[str, ...]
    protocol: Literal["rest", "mcp"]
    graphql: tuple[str, ...]
    """Paths that take GraphQL."""
    tools: Mapping[str, Tool]
    """By their whole names."""
    about: str | None = None
    idempotency: str | None = None
    """Header by which it knows a repeated call."""
    present: Presentation | None = None
    account_header: str | None = None
    """Header by which a call is bound to one account at the vendor."""
    account_also: tuple[str, ...] = ()
    """Other headers by which a call says an account: of a bound one, an agent's own never leave."""
    account_arg: Expression | None = None
    """Where an action says which account at the vendor it is about."""
    query: frozenset[str] = frozenset()
    """Parameters that it takes from the query beside a body."""
    modes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What secrets of each mode begin with."""
    decimals: Mapping[str, int] = field(default_factory=dict)
    """Currencies whose smallest unit is another than ISO 4217 says."""
    endpoint: str = ENDPOINT
    """Of a server of MCP: the path at which it speaks it. What else its host has is plain HTTP."""
    _calls: Matcher = field(init=False, repr=False, compare=False)
    _fields: Mapping[tuple[str, str], Tool] = field(init=False, repr=False, compare=False)
    _graphql: frozenset[tuple[str | Parameter, ...]] = field(init=False, repr=False, compare=False)
    _endpoint: tuple[str | Parameter, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The rules' own matcher: a tool is found in a time that does not grow with their number, and a path is read
        # as rules read it. Tools with a discriminator stand before the one without.
        ordered = sorted(self.tools.values(), key=lambda tool: tool.where_text is None)
        calls = tuple(
            Rule(tool.name, ANY, frozenset({call.method}), call.template, position)
            for position, tool in enumerate(ordered)
            for call in tool.calls
            if isinstance(call, HttpCall)
        )
        fields = {(c.operation, c.name): tool for tool in ordered for c in tool.calls if isinstance(c, Field)}
        object.__setattr__(self, "_calls", Matcher(calls))
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_graphql", frozenset(parse_template(path).segments for path in self.graphql))
        object.__setattr__(self, "_endpoint", parse_template(self.endpoint).segments)

    @property
    def pinned(self) -> bool:
        """Whether a definition of one of its tools is pinned."""
        return any(tool.definition is not None for tool in self.tools.values())

    def has(self, host: str) -> bool:
        """True if a normalised host name is one of the service's."""
        return any(host.endswith(known[1:]) if known.startswith("*.") else host == known for known in self.hosts)

    def candidates(self, method: str, segments: tuple[str, ...]) -> tuple[tuple[Tool, Template], ...]:
        """The tools that a request line can be, the ones with a discriminator first; all of one most specific path."""
        found = self._calls.matching(ANY, method, segments, at_most=None)
        if not found:
            return ()
        first = found[0].template
        same = {
            rule.id: (self.tools[rule.id], rule.template)
            for rule in found
            if rule.template.segments == first.segments and rule.template.rest == first.rest
        }
        return tuple(same.values())

    def resembling(
        self, method: str, segments: tuple[str, ...], than: tuple[tuple[Tool, Template], ...]
    ) -> tuple[Tool, ...]:
        """The tools that a server may take a request line for if it reads paths less strictly than rules do, and closer
        to it than these, if any."""
        exact = than[0][1] if than else None
        # Closer is what has a literal where this has a parameter.
        asked = () if exact is None or exact.rest else tuple(segments[at] for _, at in exact.parameters)
        if asked and all(loosened(segment) not in self._literals for segment in asked):
            return ()
        rank = None if exact is None else exact.rank
        found = self._loose.matching(ANY, method, loosely(segments), at_most=None)
        have = {tool.name for tool, _ in than}
        return tuple(
            self.tools[name]
            for name in dict.fromkeys(rule.id for rule in found if rank is None or rule.template.rank < rank)
            if name not in have
        )

    @cached_property
    def _literals(self) -> frozenset[str]:
        return frozenset(s for rule in self._loose.rules for s in rule.template.segments if isinstance(s, str))

    @cached_property
    def _loose(self) -> Matcher:
        return Matcher(
            tuple(
                Rule(tool.name, ANY, frozenset({call.method}), loose(call.template), position)
                for position, tool in enumerate(self.tools.values())
                for call in tool.calls
                if isinstance(call, HttpCall)
            )
        )

    def takes_graphql(self, segments: tuple[str, ...]) -> bool:
        """Whether a path takes GraphQL."""
        return segments in self._graphql

    def speaks_mcp(self, segments: tuple[str, ...]) -> bool:
        """Whether MCP is spoken at a path."""
        return self.protocol == "mcp" and segments == self._endpoint

    def field(self, operation: str, name: str) -> Tool | None:
        """The tool that a root field of GraphQL is, where it is listed."""
        return self._fields.get((operation, name))
