"""The processes that serve agents, shown and replaced for one actor."""

from typing import TYPE_CHECKING

from control.fleet_views import FleetShown
from control.operations import Refused, Unavailable
from control.state import State, StateUnavailable
from credentials.actor import Actor

if TYPE_CHECKING:
    from control.node import Node


class LocalFleet:
    """`FleetOperations` on the node of this process."""

    def __init__(self, state: State, actor: Actor, node: "Node | None") -> None:
        self._state = state
        self._actor = actor
        self._node = node

    def show(self) -> FleetShown:
        """See `FleetOperations.show`."""
        return FleetShown(0, ()) if self._node is None else self._node.gates.fleet()

    def replace(self, *, everything: bool = False) -> FleetShown:
        """See `FleetOperations.replace`."""
        before = self.show()
        if self._node is None or not before.wanted:
            raise Refused("there are no workers to replace", "exeat up --workers N --redis URL has some.")
        try:
            detail = {"workers": str(len(before.workers))} | ({"also": "sequencer, control"} if everything else {})
            self._state.record_act(self._actor, "workers.replace", detail)
        except StateUnavailable as unavailable:
            raise Unavailable(unavailable.message, unavailable.fix) from unavailable
        self._node.gates.replace(everything=everything)
        return before
