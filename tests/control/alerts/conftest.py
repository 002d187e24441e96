"""A state with its deliverer, and what it delivers to."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.alerts.delivering import Deliverer
from control.state import State
from control.state.outbox import Patience
from credentials.actor import Actor
from credentials.secret import Secret

QUICK = Patience(first_seconds=0.05, longest_seconds=0.2)
POLICY = """\
exeat: 1
tenant: acme
alerts:
  {alerts}
accounts:
  agent:
    owners: {{accountable: ana@acme.example, system: p@acme.example, risk: r@acme.example}}
"""
ANA = Actor("uid", "1000", "ana")


class World:
    """One installation's alerts, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = State.open(folder / "state", create=True)
        self.deliverer: Deliverer | None = None
        self.patience = QUICK

    def apply(self, alerts: str, *, ca: str = "", **secrets: str) -> None:
        """The destinations, one a line, and what their secrets are."""
        policy = self.folder / "policy"
        policy.mkdir(exist_ok=True)
        (policy / "acme.yaml").write_text(POLICY.format(alerts=alerts.replace("\n", "\n  ")))
        (policy / "lab-ca.pem").write_text(ca)
        self.state.apply_policy(policy, ANA)
        for name, value in secrets.items():
            self.state.set_secret("acme", name, Secret(value), ANA)

    def deliver(self) -> None:
        """What waits is being delivered from now on."""
        self.state.alerts.patience = self.patience
        self.deliverer = Deliverer(self.state.alerts, self.state.secret, frozenset)
        self.deliverer.start()

    def states(self) -> dict[str, str]:
        """What became of the newest alert, by destination."""
        ((_, deliveries),) = self.state.alerts.read.latest(1)
        return {destination: state for _, destination, state, _, _ in deliveries}

    def told(self, destination: str) -> str:
        """What its last attempt came to."""
        return next(one.last for one in self.state.alerts.read.destinations() if one.destination == destination)

    def restart(self) -> None:
        """The process ended in order and came again."""
        self.stop()
        self.state = State.open(self.folder / "state", create=False)

    def stop(self) -> None:
        if self.deliverer is not None:
            self.deliverer.stop()
            self.deliverer = None
        self.state.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def records(world: World) -> Callable[[str], list[dict[str, str]]]:
    """The detail of every record of an act."""
    from ledger import read_records

    def of(act: str) -> list[dict[str, str]]:
        found = read_records(world.state.ledger.directory, types=frozenset({"operator.act"}))
        return [record.body["detail"] for record in found if record.body["act"] == act]

    return of
