"""A gate with an origin behind it and a policy between them: where the tests of calls take place."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.config import GateConfig, Timeouts
from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, GateWorld, running_gate, write_policy
from tests.worlds.origin import Origin

SECRET = "sk_live_canary_7f3c1f0e5b6d"

POLICY = """
exeat: 1
tenant: acme
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas, present: bearer, price: 0.25 USD}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    limits: {{{limits}}}
    rules:
      - {{id: things, allow: {{connection: saas, methods: [GET, POST, PUT, DELETE, HEAD], path: /things/**}}}}
      - {{id: no-secrets, deny: {{connection: saas, path: /things/secret/**}}}}
"""


@dataclass
class Town:
    """A gate, an origin behind it, and the path between them."""

    gate: GateWorld
    origin: Origin

    def agent(self, token: str | None = None, **options: object) -> Agent:
        return Agent(self.gate, token or self.gate.world.token(), **options)


@asynccontextmanager
async def town(
    folder: Path, script=None, *, limits: str = "", config: GateConfig | None = None, **options
) -> AsyncIterator[Town]:
    authority = Authority()
    async with Origin(authority.issue("saas.test"), script) as origin:
        policy = write_policy(
            folder / "policy", POLICY.format(port=origin.port, limits=limits), {"ca.pem": authority.pem}
        )
        async with running_gate(folder, policy, secrets={"saas": SECRET}, config=config, **options) as gate:
            yield Town(gate, origin)


def quick(**seconds: float) -> GateConfig:
    return GateConfig(listen=(("127.0.0.1", 0),), timeouts=Timeouts(**seconds))
