"""Suspensions ended, in a state that this process holds."""

from typing import TYPE_CHECKING

from control.operations import Refused, Unavailable, WrongUse
from control.state import StateRefused, StateUnavailable
from control.suspension_views import Resumed
from credentials.actor import Actor
from credentials.revocation import RevocationRefused

if TYPE_CHECKING:
    from control.node import Node
    from control.state import State


class LocalSuspensions:
    """`SuspensionOperations` on a state in this process, as done by one actor."""

    def __init__(self, state: "State", actor: Actor, node: "Node | None") -> None:
        self._state = state
        self._actor = actor
        self._node = node

    def resume(self, tenant: str, account: str | None, reason: str) -> Resumed:
        """See `SuspensionOperations.resume`."""
        try:
            seq = self._state.suspended.resume(tenant, account, reason, self._actor)
        except StateRefused as refused:
            raise Refused(refused.message, refused.fix or "exeat status says who is.") from refused
        except RevocationRefused as refused:
            raise WrongUse(str(refused)) from refused
        except StateUnavailable as error:
            raise Unavailable(error.message, error.fix) from error
        return Resumed(seq, () if self._node is None else self._node.everywhere())
