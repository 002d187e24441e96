"""`exeat status` says how much of the limits is used: budgets beyond an alert threshold, full ones, slots in use."""

from datetime import UTC, datetime
from pathlib import Path

from control.cli.status import describe
from control.local import Local
from control.state import State
from control.status_views import LimitsUsed
from credentials.actor import Actor
from rules.claims import LeaseClaim, Reserved, SpendClaim

ANA = Actor("uid", "1000", "ana")
POLICY = """\
exeat: 1
tenant: acme
connections: {lab: {host: saas.test, price: 1 USD}}
limits: {spend: [{meter: price, max: 100 USD, per: day}]}
accounts:
  agent:
    owners: {accountable: a@x.example, system: s@x.example, risk: r@x.example}
    limits:
      concurrency: 3
      spend: [{meter: price, max: 10 USD, per: day, alert: [50%, 80%]}, {meter: calls, max: 4, per: run, alert: 75%}]
    rules: [{id: all, allow: {connection: lab, path: /**}}]
"""
SLOT = ("acme", "agent", "concurrency")


def dollars(amount: int) -> SpendClaim:
    day = datetime.now(UTC).date().isoformat()
    return SpendClaim(("acme", "agent", "USD", "day"), day, 10_000_000, amount * 1_000_000, "USD", 2_000_000_000)


def calls(run: str, amount: int) -> SpendClaim:
    key = ("acme", "agent", "calls", "run", f"run={run}")
    return SpendClaim(key, "run", 4_000_000, amount * 1_000_000, "calls", 0, "calls")


def test_what_is_spent_and_set_aside_counts_and_each_run_by_itself(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(POLICY)
    with State.open(tmp_path / "state", create=True) as state:
        on = Local(state, ANA)
        assert on.status().limits == LimitsUsed(0, 0, 0)
        assert "\nlimits" not in describe(on.status())
        state.apply_policy(tmp_path / "acme.yaml", ANA)
        assert on.status().limits == LimitsUsed(0, 0, 0)
        take = state.reservations.reserve_now
        held = take("c_1", (dollars(4), calls("r_1", 2), LeaseClaim(SLOT, 3)))
        assert isinstance(held, Reserved)
        assert on.status().limits == LimitsUsed(0, 0, 1)
        assert isinstance(take("c_2", (dollars(1), calls("r_1", 1), LeaseClaim(SLOT, 3))), Reserved)
        assert on.status().limits == LimitsUsed(2, 0, 2)
        state.reservations.settle(held, {"price": 4_000_000, "calls": 1_000_000})
        assert on.status().limits == LimitsUsed(1, 0, 1)
        assert isinstance(take("c_3", (dollars(5), calls("r_2", 4))), Reserved)
        assert on.status().limits == LimitsUsed(0, 2, 1)
        line = next(line for line in describe(on.status()).splitlines() if line.startswith("limits"))
        assert line.split(maxsplit=1)[1] == "0 budgets beyond an alert threshold, 2 full, 1 slot in use"
