"""What was spent and achieved, told from a state that this process holds."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from control.operations import Refused, Unavailable, WrongUse
from control.spending.fold import KEPT_DAYS, OUTCOME_ACT, SpendingFold
from control.spending.report import rows_of, seen_of
from control.spending.views import OUTCOME, TOLD_APART, OutcomeDeclared, SpendShown, SpendWanted
from control.state import StateUnavailable
from control.stores.sqlite import StoreRefused, StoreUnavailable
from credentials.actor import Actor
from ledger import LedgerError
from rules.workflows import WorkflowOutcome

if TYPE_CHECKING:
    from control.state import State

DAYS: Final = "7d"


class LocalSpending:
    """`SpendOperations` on a state in this process, as done by one actor."""

    def __init__(self, state: "State", actor: Actor) -> None:
        self._state = state
        self._actor = actor

    def show(self, wanted: SpendWanted) -> SpendShown:
        """See `SpendOperations.show`."""
        if unknown := [name for name in wanted.by if name not in (*TOLD_APART, OUTCOME)]:
            raise WrongUse(f"rows cannot be told apart by {unknown[0]}", f"Known: {', '.join((*TOLD_APART, OUTCOME))}")
        policy = self._state.policy
        tenants = {} if policy is None else policy.tenants
        if wanted.tenant is not None and wanted.tenant not in tenants:
            raise Refused(f"there is no tenant {wanted.tenant}", f"Known: {', '.join(tenants) or 'none'}")
        zones = [tenant.timezone for name, tenant in tenants.items() if wanted.tenant in (None, name)]
        since = _first_day(wanted.since or DAYS, zones)

        def outcome_of(tenant: str, workflow: str) -> WorkflowOutcome | None:
            of = tenants.get(tenant)
            return None if of is None else of.workflows.get(workflow)

        accounts = [
            (name, account)
            for name, tenant in tenants.items()
            for account in tenant.accounts
            if wanted.tenant in (None, name) and wanted.account in (None, account)
        ]
        with _explained():
            database = self._state.following.caught_up(SpendingFold.name)
            return SpendShown(since, rows_of(database, wanted, since, outcome_of), seen_of(database, accounts))

    def declare(self, tenant: str | None, run: str, workflow: str | None, count: int, note: str) -> OutcomeDeclared:
        """See `SpendOperations.declare`."""
        with _explained():
            database = self._state.following.caught_up(SpendingFold.name)
            known = database.query(
                "SELECT DISTINCT tenant, account, workflow FROM calls WHERE run = ? AND ? IN ('', tenant)",
                (run, tenant or ""),
            )
        chosen = [row for row in known if workflow in (None, row[2])]
        if not chosen:
            where = "" if tenant is None else f" of {tenant}"
            raise Refused(
                f"no call of a run {run}{where} is on record"
                + ("" if not known else f" under the workflow {workflow}; it was {known[0][2]}"),
                f"exeat spend --by run lists runs of the last {KEPT_DAYS} days.",
            )
        if len(chosen) > 1:
            which = "; ".join(f"--tenant {of} --workflow {name}" for of, _, name in chosen)
            raise WrongUse(f"there are several runs {run}", f"Name one: {which}")
        of_tenant, account, of_workflow = chosen[0]
        detail = {"run": run, "workflow": of_workflow, "account": account, "count": str(count)}
        if note:
            detail["note"] = note
        try:
            record = self._state.record_act(self._actor, OUTCOME_ACT, detail, of_tenant)
        except StateUnavailable as error:
            raise Unavailable(error.message, error.fix) from error
        return OutcomeDeclared(of_tenant, account, of_workflow, run, count, record.seq)


def _first_day(since: str, zones: Iterable[ZoneInfo]) -> str:
    """A day as it is written; so many days back, by the clocks of the tenant whose day began last."""
    if not since.endswith("d"):
        return since
    now = datetime.now(UTC)
    today = min((now.astimezone(zone).date() for zone in zones), default=now.date())
    return (today - timedelta(days=int(since[:-1]) - 1)).isoformat()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (StoreUnavailable, StoreRefused) as error:
        cure = "Stop exeat up and remove followed.sqlite: all of it is counted again from the ledger."
        raise Unavailable(f"what was spent cannot be told: {error}", cure) from error
    except LedgerError as error:
        raise Unavailable(str(error), "exeat ledger verify says what is wrong.") from error
