"""What there is to say of an installation, from a state that this process holds."""

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from control.failure_modes import MODES
from control.local_limits import limits_used
from control.observed import observed_warnings
from control.status_views import ActiveRevocation, LedgerStatus, Status, SuspensionShown

if TYPE_CHECKING:
    from control.node import Node
    from control.state import State


def status_of(state: "State", node: "Node | None") -> Status:
    """See `Operations.status`."""
    policy, head = state.policy, state.ledger.head()
    tenants = tuple(policy.tenants.values()) if policy is not None else ()
    return Status(
        version=version("exeat"),
        instance=state.instance,
        state=str(state.directory),
        policy=None if policy is None else policy.digest,
        tenants=tuple(tenant.tenant for tenant in tenants),
        accounts=sum(len(tenant.accounts) for tenant in tenants),
        connections=sum(len(tenant.connections) for tenant in tenants),
        secrets_missing=state.missing_secrets(),
        warnings=(
            *(() if node is None else node.warnings()),
            *state.inputs.warnings(),
            *state.following.warnings(),
            *observed_warnings(tenants, datetime.now(UTC)),
        ),
        faults=state.faults,
        epoch=state.revocations.epoch,
        revocations=tuple(map(ActiveRevocation.of, state.revocations.active())),
        suspensions=tuple(map(SuspensionShown.of, state.suspensions.all())),
        ledger=LedgerStatus(head.log, head.size, head.lag_records, head.lag_seconds, head.halted),
        running=node is not None,
        pid=None if node is None else node.pid,
        listening=() if node is None else node.listening,
        health=None if node is None else node.health,
        draining=node is not None and node.draining,
        unsafe=() if node is None else node.unsafe,
        in_flight=() if node is None else node.in_flight(),
        degraded=() if node is None else node.episodes.now(),
        controls=MODES,
        limits=limits_used(state, node),
    )
