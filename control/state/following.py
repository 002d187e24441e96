"""What a state makes of its ledger afterwards."""

from collections.abc import Callable
from zoneinfo import ZoneInfo

from control.alerts.fold import AlertsFold
from control.following import Follower
from control.spending.fold import SpendingFold
from control.spending.spikes import SpikesFold
from control.state.clock import Clock
from control.state.folder import Folder
from control.state.outbox import Outbox
from control.state.suspensions import SuspensionStore
from rules.policy.compile import PolicySet


def follower_of(
    folder: Folder,
    policy: Callable[[], PolicySet | None],
    alerts: Outbox,
    suspended: SuspensionStore,
    clock: Clock,
    size: Callable[[], int],
) -> Follower:
    """Spending, and what somebody should hear of, by the policy in force; not started. `size`: of durable records."""

    def zone_of(tenant: str) -> ZoneInfo:
        of_all = policy()
        of_tenant = None if of_all is None else of_all.tenants.get(tenant)
        return ZoneInfo("UTC") if of_tenant is None else of_tenant.timezone

    folds = (
        SpendingFold(zone_of),
        AlertsFold(policy, alerts.raise_alert, clock),
        SpikesFold(policy, zone_of, alerts.raise_alert, suspended.suspend, clock),
    )
    return Follower(folder.followed, folder.ledger, folds, size)
