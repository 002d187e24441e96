"""A call as limits see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rules.content.content import Value
from rules.limits.keys import digest_of
from rules.policy.templates import normal_segments
from rules.swift import swift

if TYPE_CHECKING:
    from rules.action import Action
    from rules.call import Call, Facts
    from rules.policy.compile import Connection, TenantPolicy


@swift
@dataclass(frozen=True, slots=True)
class Demand:
    """Who asks for what, as far as limits go."""

    account: str
    workflow: str
    run: str
    connection: "Connection"
    now: datetime
    """Aware; it only picks windows."""
    zone: ZoneInfo
    actions: "tuple[Action, ...]"
    found: Value = None
    path: str = "/"

    @classmethod
    def of(cls, call: "Call", facts: "Facts", policy: "TenantPolicy", connection: "Connection") -> "Demand":
        """What a call and its facts say."""
        who = call.principal
        return cls(
            who.account, who.workflow, who.run, connection, facts.now, policy.timezone, facts.actions, facts.found,
            call.path,
        )  # fmt: skip

    @property
    def several(self) -> bool:
        """Whether its actions are things that it asks for side by side, and not what it may be taken for."""
        known = self.connection.known
        if known is None:
            return False
        if known.protocol == "mcp":
            return True
        segments = normal_segments(self.path) if known.graphql else None
        return segments is not None and known.takes_graphql(segments)

    def values(self, by: tuple[str, ...], action: "Action | None" = None) -> dict[str, str]:
        """What a limit is counted by, for one action of the call."""
        return {name: self._value(name, action) for name in by}

    def _value(self, name: str, action: "Action | None") -> str:
        match name:
            case "account":
                return self.account
            case "workflow":
                return self.workflow
            case "run":
                return self.run
            case "connection":
                return self.connection.name
            case "tool":
                return "" if action is None or action.tool is None else action.tool
            case _:
                return self._object(action)

    def _object(self, action: "Action | None") -> str:
        """Told by its path. What else a call says an agent can vary, and would have a counter for each of it."""
        known = self.connection.known
        if action is None or not action.place or known is None or known.protocol == "mcp":
            return ""
        return digest_of("\0".join(f"{name}\0{value}" for name, value in sorted(action.place.items())))
