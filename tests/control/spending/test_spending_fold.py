"""The rows of spending against a straightforward count of the same records, however they are read."""

import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.following import Follower
from control.local_spending import _first_day
from control.spending.fold import DENIED, OUTCOME_ACT, SpendingFold
from control.spending.report import rows_of, seen_of
from control.spending.views import TOLD_APART, SpendWanted
from control.stores.sqlite import StoreUnavailable
from ledger import Ledger, Limits, MemoryLockStore
from rules.workflows import WorkflowOutcome
from tests.ledger.conftest import ACTOR, activate, denied, intent, outcome

QUICK = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600, seal_idle_seconds=3600)
REFUNDS = WorkflowOutcome(("stripe.refund.*",))


class Log:
    """A ledger, and a follower of it that can be given up at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger.create(
            folder / "ledger", keys=folder / "keys", lock_store=MemoryLockStore(), origin="exeat.test/log", limits=QUICK
        )
        self.write(*activate())
        self.follower = self.following()

    def following(self) -> Follower:
        self.fold = SpendingFold(lambda _: ZoneInfo("UTC"))
        return Follower(
            self.folder / "followed.sqlite", self.folder / "ledger", (self.fold,), lambda: self.ledger.head().size
        )

    def write(self, type_, tenant, content):
        return self.ledger.submit(type_, tenant, content).result(10).seq

    def rows(self, wanted=None, outcome_of=lambda tenant, workflow: None):
        asked = wanted or SpendWanted(by=TOLD_APART)
        return rows_of(self.follower.caught_up(), asked, "2000-01-01", outcome_of)


@pytest.fixture
def log(tmp_path):
    made = Log(tmp_path)
    yield made
    made.follower.stop()
    made.ledger.close()


def agent(account="agent", workflow="refunds", run="r_1"):
    return {"id": account, "workflow": workflow, "run": run, "credential": "j", "auth": "jwt"}


def op(tool="stripe.refund.create"):
    return {
        "connector": "stripe", "tool": tool, "method": "POST", "host": "api.stripe.com", "port": 443,
        "scheme": "https", "route": "/v1/refunds", "effect": "write",
    }  # fmt: skip


def cost(micro, units=None):
    budgets = ["acme/agent/USD/day/2026-11-20"]
    budgets += [
        f"acme/agent/{meter}{':USD' if meter.endswith('amount') else ''}/day/2026-11-20" for meter in units or {}
    ]
    return {"micro": micro, "cur": "USD", "budget": budgets, **({"units": units} if units else {})}


def answered(http=200, status="confirmed"):
    err = None if http else "cut"
    return {"status": status, "http": http, "err": err, "code": None, "sent": True, "started_us": 1, "ended_us": 2}


def call(log, name, *, http=200, micro=1000, units=None, attempt=1, most=None, status="confirmed", **who):
    of = {"agent": agent(**who), "op": op()}
    seq = log.write(*intent(name, attempt=attempt, cost=cost(micro if most is None else most, units), **of))
    ended = {"attempt": attempt, "result": answered(http, status), "resp": None, "cost": cost(micro, units)}
    log.write(*outcome(name, seq, **ended))


def test_what_was_spent_failed_and_was_retried(log):
    call(log, "c_1")
    call(log, "c_2", http=500, micro=700)
    call(log, "c_3", http=None, micro=300, status="indeterminate")
    call(log, "c_3", attempt=2, micro=300)
    log.write(*denied("c_4", agent=agent(), op=op()))
    (row,) = log.rows(SpendWanted(by=("workflow",)), lambda tenant, workflow: REFUNDS)
    assert (row.calls, row.denied, row.failed, row.retries, row.runs, row.outcomes) == (4, 1, 2, 1, 1, 2)
    (amount,) = row.amounts
    assert (amount.meter, amount.unit, amount.micros, amount.failed, amount.retried) == (
        "price",
        "USD",
        2300,
        1000,
        300,
    )
    assert amount.per_outcome == 1150


def test_meters_and_currencies_are_never_added(log):
    call(log, "c_1", units={"recipients": 3_000_000, "stripe.refund.create.amount": 80_000_000})
    (row,) = log.rows(SpendWanted(by=("tool",)))
    assert [(a.meter, a.unit, a.micros) for a in row.amounts] == [
        ("price", "USD", 1000),
        ("recipients", "recipients", 3_000_000),
        ("stripe.refund.create.amount", "USD", 80_000_000),
    ]
    assert row.outcomes is None
    assert row.amounts[0].per_outcome is None


def test_a_call_repeated_under_its_key_is_one_outcome(log):
    """Its second attempt was charged nothing, because the first was charged all."""
    call(log, "c_1", micro=1000)
    call(log, "c_2", micro=0, most=0)
    (row,) = log.rows(SpendWanted(by=("run",)), lambda tenant, workflow: REFUNDS)
    assert (row.calls, row.outcomes) == (2, 1)


def test_what_an_operator_declares_counts_beside_the_calls(log):
    call(log, "c_1", workflow="triage")
    for count in ("2", "1"):
        detail = {"run": "r_1", "workflow": "triage", "account": "agent", "count": count}
        log.write("operator.act", "acme", {"act": OUTCOME_ACT, "actor": ACTOR, "detail": detail})
    (row,) = log.rows(SpendWanted(by=("workflow",)), lambda tenant, workflow: WorkflowOutcome())
    assert row.outcomes == 3
    assert log.rows(SpendWanted(by=("workflow",)))[0].outcomes == 3
    assert log.rows(SpendWanted(workflow="other", by=("workflow",))) == ()


def test_runs_that_came_to_nothing_are_told_from_those_that_did_not(log):
    call(log, "c_1", micro=100, run="r_1")
    call(log, "c_2", micro=20, run="r_1", http=500)
    call(log, "c_3", micro=3, run="r_2", http=500)
    call(log, "c_4", micro=4, run="r_3", workflow="triage")
    call(log, "c_5", micro=5, run="r_4", workflow="unsaid")
    detail = {"run": "r_3", "workflow": "triage", "account": "agent", "count": "1"}
    log.write("operator.act", "acme", {"act": OUTCOME_ACT, "actor": ACTOR, "detail": detail})
    flows = {"refunds": REFUNDS, "triage": WorkflowOutcome()}

    def told(**asked):
        rows = log.rows(SpendWanted(**asked), lambda tenant, workflow: flows.get(workflow))
        return [(row.workflow, row.outcome, row.amounts[0].micros, row.outcomes) for row in rows if row.amounts]

    assert told(by=("outcome",)) == [("", "", 5, None), ("", "nothing", 3, 0), ("", "reached", 124, 2)]
    assert told(by=("workflow", "outcome")) == [
        ("refunds", "nothing", 3, 0),
        ("refunds", "reached", 120, 1),
        ("triage", "reached", 4, 1),
        ("unsaid", "", 5, None),
    ]
    assert told(by=("outcome",), tool="stripe.refund.create") == [
        ("", "", 5, None),
        ("", "nothing", 3, 0),
        ("", "reached", 124, 1),
    ], "what a run became does not depend on which of its calls are looked at"


def test_an_account_was_last_seen_when_it_last_called_let_out_or_not(log):
    call(log, "c_1")
    log.write(*denied("c_2", agent=agent("other"), op=op(None)))
    seen = seen_of(log.follower.caught_up(), [("acme", "agent"), ("acme", "other"), ("acme", "never")])
    assert [(one.account, one.call, one.last_seen is None) for one in seen] == [
        ("agent", "c_1", False),
        ("never", "", True),
        ("other", "c_2", False),
    ]


def test_a_follower_that_is_given_up_counts_each_record_once(log):
    """An intent before, its outcome after; a chunk that failed as a whole; a file that was removed."""
    of = {"agent": agent(), "op": op()}
    seq = log.write(*intent("c_1", cost=cost(900), **of))
    assert log.rows() == ()
    log.follower.stop()
    log.write(*outcome("c_1", seq, cost=cost(500)))
    log.follower = log.following()
    feed, log.fold.feed = log.fold.feed, None

    def failing(rows, records):
        feed(rows, records)
        raise StoreUnavailable("the disk is full")

    log.fold.feed = failing
    with pytest.raises(StoreUnavailable):
        log.rows()
    log.fold.feed = feed
    before = log.rows()
    assert [(row.calls, row.amounts[0].micros) for row in before] == [(1, 500)]
    log.follower.stop()
    (log.folder / "followed.sqlite").unlink()
    log.follower = log.following()
    assert log.rows() == before


def test_nothing_is_counted_before_it_is_durable(log):
    """What a power failure can take back is read, and waits."""
    log.follower.stop()
    durable = log.ledger.head().size
    log.follower = Follower(log.folder / "followed.sqlite", log.folder / "ledger", (log.fold,), lambda: durable)
    call(log, "c_1")
    assert log.rows() == ()
    durable = log.ledger.head().size
    assert [row.calls for row in log.rows()] == [1]


@pytest.mark.parametrize(
    ("zone", "days", "first"), [("Pacific/Honolulu", "1d", 0), ("Pacific/Kiritimati", "1d", 0), ("UTC", "7d", 6)]
)
def test_days_back_are_those_of_the_tenants_clocks(zone, days, first):
    zoned = ZoneInfo(zone)
    today = datetime.now(UTC).astimezone(zoned).date()
    assert _first_day(days, [zoned]) == (today - timedelta(days=first)).isoformat()
    assert _first_day("2026-11-19", [zoned]) == "2026-11-19"


def test_another_ledger_is_counted_from_its_beginning(log, tmp_path):
    """The file of an older or another ledger says nothing of this one."""
    for number in range(30):
        call(log, f"c_{number}")
    assert log.rows()[0].calls == 30
    log.follower.stop()
    log.ledger.close()
    (tmp_path / "two").mkdir()
    other = Log(tmp_path / "two")
    other.follower.stop()
    (tmp_path / "followed.sqlite").rename(tmp_path / "two" / "followed.sqlite")
    other.follower = other.following()
    call(other, "c_1")
    assert other.rows()[0].calls == 1
    other.follower.stop()
    other.ledger.close()


def test_runs_of_long_ago_are_told_by_workflow_alone(log):
    call(log, "c_1", run="r_1")
    call(log, "c_2", run="r_2")
    rows = log.follower.caught_up()
    with rows.transaction() as connection:
        for table in ("calls", "spent"):
            connection.execute(f"UPDATE {table} SET day = '2020-01-01'")
        log.fold._pruned = ""
    call(log, "c_3", run="r_3")
    found = log.rows(SpendWanted(by=("day", "run")))
    assert [(row.day, row.run, row.calls, row.amounts[0].micros) for row in found if row.day == "2020-01-01"] == [
        ("2020-01-01", "", 2, 2000)
    ]
    assert [row.run for row in found if row.day != "2020-01-01"] == ["r_3"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_the_rows_are_what_counting_says(tmp_path_factory, seed):
    chance = random.Random(seed)
    log = Log(tmp_path_factory.mktemp("log"))
    calls, micros = Counter(), defaultdict(int)
    open_intents = []
    for number in range(chance.randrange(1, 60)):
        who = agent(chance.choice("ab"), chance.choice(("refunds", "triage")), f"r_{chance.randrange(3)}")
        tool = chance.choice(("stripe.refund.create", "stripe.charge.capture", None))
        key = (who["id"], who["workflow"], who["run"], tool or "stripe POST")
        if chance.random() < 0.2:
            log.write(*denied(f"c_{number}", agent=who, op=op(tool)))
            calls[*key, DENIED] += 1
        else:
            seq = log.write(*intent(f"c_{number}", agent=who, op=op(tool), cost=cost(900)))
            open_intents.append((seq, f"c_{number}", key))
        while open_intents and chance.random() < 0.6:
            seq, name, key = open_intents.pop(chance.randrange(len(open_intents)))
            http, spent = chance.choice((200, 404, 500)), chance.randrange(1, 900)
            result = {
                "status": "confirmed",
                "http": http,
                "err": None,
                "code": None,
                "sent": True,
                "started_us": 1,
                "ended_us": 2,
            }
            log.write(*outcome(name, seq, result=result, cost=cost(spent)))
            calls[*key, http] += 1
            micros[key] += spent
        if chance.random() < 0.1:
            log.rows()
        if chance.random() < 0.1:
            log.follower.stop()
            log.follower = log.following()
    told, spent = Counter(), defaultdict(int)
    for *who, status, count in log.follower.caught_up().query(
        "SELECT account, workflow, run, tool, status, calls FROM calls"
    ):
        told[*who, status] += count
    for row in log.rows():
        for amount in row.amounts:
            spent[row.account, row.workflow, row.run, row.tool] += amount.micros
    assert told == calls
    assert spent == micros
    log.follower.stop()
    log.ledger.close()
