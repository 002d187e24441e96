"""Definitions of tools that the catalogue pins: what their servers last said of them.

A tool whose definition changed is a new tool until somebody accepts it. The list of tools does not show it, and a
call of it is denied, from the moment in which the change passed through this gate.
"""

from rules.action import Action
from rules.policy.compile import Connection

type _Key = tuple[str, str, str]


class Definitions:
    """Knows which pinned tools are not what they were; begins empty. Large lists are judged beside the event loop: each
    change here is one of a dictionary."""

    def __init__(self) -> None:
        self._changed: dict[_Key, str] = {}

    def heard(self, connection: Connection, action: Action, digest: str) -> bool:
        """Whether a definition that a server has just sent is the pinned one, or none is pinned."""
        pinned = None if action.known is None else action.known.definition
        key = (connection.tenant, connection.name, action.tool or "")
        if pinned is None or pinned == digest:
            self._changed.pop(key, None)
            return True
        self._changed[key] = digest
        return False

    def changed(self, connection: Connection | None, actions: tuple[Action, ...]) -> frozenset[str]:
        """The tools among these whose definition is not the pinned one."""
        if connection is None or not self._changed:
            return frozenset()
        return frozenset(
            action.tool
            for action in actions
            if action.tool is not None and self._is_changed(connection, action, action.tool)
        )

    def _is_changed(self, connection: Connection, action: Action, tool: str) -> bool:
        seen = self._changed.get((connection.tenant, connection.name, tool))
        pinned = None if action.known is None else action.known.definition
        # A policy that has accepted the new definition since pins just that.
        return seen is not None and pinned is not None and seen != pinned
