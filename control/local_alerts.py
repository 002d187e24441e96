"""Alerts, told from a state that this process holds."""

from typing import TYPE_CHECKING

from control.alerts.alert import INSTALLATION, Raise, Severity
from control.alerts.views import AlertShown, AlertsShown, DeliveryShown, DestinationShown
from control.operations import Refused, Unavailable
from control.state import StateUnavailable
from credentials.actor import Actor

if TYPE_CHECKING:
    from control.node import Node
    from control.state import State


class LocalAlerts:
    """`AlertOperations` on a state in this process, as done by one actor."""

    def __init__(self, state: "State", actor: Actor, node: "Node | None") -> None:
        self._state = state
        self._actor = actor
        self._node = node

    def show(self, limit: int) -> AlertsShown:
        """See `AlertOperations.show`."""
        read = self._state.alerts.read
        try:
            found = read.latest(limit)
            destinations = read.destinations()
        except StateUnavailable as error:
            raise Unavailable(error.message, error.fix) from error
        alerts = (
            AlertShown(
                one.id, one.tenant, one.kind, str(one.severity), one.at.strftime("%Y-%m-%dT%H:%M:%SZ"), one.text,
                tuple(DeliveryShown(*row) for row in deliveries),
            )
            for one, deliveries in found
        )  # fmt: skip
        shown = (
            DestinationShown(d.tenant, d.destination, d.waiting, d.delivered, d.given_up, d.dropped, d.last)
            for d in destinations
        )
        return AlertsShown(tuple(alerts), tuple(shown))

    def try_out(self, tenant: str | None, destination: str | None = None) -> str:
        """See `AlertOperations.try_out`."""
        policy = self._state.policy
        known = () if policy is None else tuple(policy.tenants)
        if tenant is not None and tenant not in known:
            raise Refused(f"there is no tenant {tenant}", f"Known: {', '.join(known) or 'none'}")
        if destination is not None:
            tenant = self._tenant_of(destination, tenant)
        if self._node is None:
            raise Refused("nothing runs that would deliver it", "Start it: exeat up")
        text = f"a trial by {self._actor.name}: nothing has happened"
        try:
            raised = self._state.alerts.raise_alert(
                Raise(tenant or INSTALLATION, "trial", Severity.NOTICE, text, {"by": self._actor.name}), destination
            )
        except StateUnavailable as error:
            raise Unavailable(error.message, error.fix) from error
        return "" if raised is None else raised.id

    def _tenant_of(self, destination: str, tenant: str | None) -> str:
        """Whose destination of that name is meant."""
        policy = self._state.policy
        asked = () if policy is None else [of for of in policy.tenants.values() if tenant in (None, of.tenant)]
        found = [of.tenant for of in asked if destination in of.alerts]
        if len(found) == 1:
            return found[0]
        if found:
            raise Refused(f"{len(found)} tenants have a destination {destination}", f"Name one: --tenant {found[0]}")
        known = ", ".join(f"{of.tenant}/{name}" for of in asked for name in of.alerts)
        raise Refused(f"there is no destination {destination}", f"Known: {known or 'none (alerts: in the policy)'}")
