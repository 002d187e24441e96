"""A state whose ledger has a past: made by the ledger itself, with a clock that was sent back."""

import shutil
import sqlite3
import time
from datetime import datetime
from pathlib import Path

from control.state import State
from control.state.folder import Folder
from control.stores.lock_store import SqliteLockStore, open_register
from credentials.actor import Actor
from ledger import Ledger
from tests.ledger.conftest import SteppedClock, decision, intent, outcome

HOUR_US = 3_600_000_000
POLICY = """\
exeat: 1
tenant: acme
accounts:
  {account}:
    owners: {{accountable: ana@acme.example, system: p@acme.example, risk: r@acme.example}}
"""


def with_a_past(folder: Path, account: str = "agent", hours: int = 30, dollars: int = 1) -> None:
    """Each of the last `hours` whole hours the account has spent so much; the state is closed."""
    with State.open(folder, create=True) as state:
        origin = state.ledger.origin
    for gone in ("ledger", "ledger-resume"):
        shutil.rmtree(folder / gone, ignore_errors=True)
    for file in (*folder.glob("register.sqlite*"), *folder.glob("keys/ledger-*"), folder / "trust.policy"):
        file.unlink(missing_ok=True)
    (folder / "ledger-resume").unlink(missing_ok=True)
    first = (int(time.time()) // 3600 - hours) * HOUR_US
    clock = SteppedClock(first)

    register = open_register(folder / "register.sqlite")

    def join(held: Folder) -> Ledger:
        store = SqliteLockStore(register)
        return Ledger.create(held.ledger, keys=held.keys, lock_store=store, origin=origin, clock=clock)

    with sqlite3.connect(folder / "exeat.sqlite") as database:
        database.execute("DELETE FROM limits_snapshot")  # of the ledger that is gone
    database.close()
    policy = folder.with_name("past.yaml")
    policy.write_text(POLICY.format(account=account))
    with State.open(folder, create=False, join=join) as state:
        digest = state.apply_policy(policy, Actor("uid", "1000", "ana")).digest
        for hour in range(hours):
            clock.advance(max(0, first + hour * HOUR_US + 60_000_000 - clock.wall))
            agent = {"id": account, "workflow": "w", "run": "r_past", "credential": "j", "auth": "jwt"}
            day = datetime.fromtimestamp(clock.wall / 1_000_000).astimezone().date()
            cost = {"micro": dollars * 1_000_000, "cur": "USD", "budget": [f"acme/{account}/USD/day/{day}"]}
            call = f"c_past{hour}"
            kind, tenant, content = intent(call, agent=agent, cost=cost, decision=decision(policy=digest))
            seq = state.ledger.submit(kind, tenant, content).result(10).seq
            state.ledger.submit(*outcome(call, seq, cost=cost)).result(10)
    register.close()
