"""A state on a real folder, with a real ledger, and the policy these tests apply."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.state import State
from credentials.actor import Actor

POLICY = """\
exeat: 1
tenant: {tenant}
credentials: {{ttl: 5m, max_ttl: 1h}}
connections:
  tickets: {{host: acme.zendesk.com, secret: zendesk/prod, present: bearer, price: 1 USD}}
accounts:
  agent:
    owners: {{accountable: ana@acme.example, system: p@acme.example, risk: r@acme.example}}
    stage: autonomous
    limits:
      concurrency: 2
      rate: [{{connection: tickets, max: 10, per: second, burst: {burst}}}]
      spend: [{{meter: price, max: 5 USD, per: day}}]
    rules:
      - {{id: read, allow: {{connection: tickets, methods: [GET], path: /**}}}}
"""


@pytest.fixture
def ana() -> Actor:
    return Actor("uid", "1000", "ana")


@pytest.fixture
def policy_file(tmp_path: Path) -> Callable[..., Path]:
    def write(tenant: str = "acme", burst: int = 20) -> Path:
        path = tmp_path / f"policy-{tenant}-{burst}.yaml"
        path.write_text(POLICY.format(tenant=tenant, burst=burst))
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def state(folder: Path) -> Iterator[State]:
    opened = State.open(folder, create=True)
    yield opened
    opened.close()
