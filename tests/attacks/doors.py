"""The doors by which agents reach the gate, and how a vector's bytes go through each: a new one is a line in DOORS."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.worlds.authority import Authority
from tests.worlds.gate import Agent, Answer, GateWorld, running_gate, write_policy
from tests.worlds.origin import Origin
from tests.worlds.towns import SECRET

HOST = "api.example.com"
"""The host that the vectors name."""

POLICY = """
exeat: 1
tenant: acme
connections:
  api: {{host: api.example.com, dial: "127.0.0.1:{tls}", ca: ca.pem, secret: saas}}
  plain: {{host: api.example.com, scheme: http, unsafe_plaintext: true, dial: "127.0.0.1:{plain}", secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@acme.example, system: s@acme.example, risk: r@acme.example}}
    rules:
      - {{id: everything, allow: {{connection: "*", path: /**}}}}
"""
"""Everything is allowed: what is refused is refused for its form alone."""


@dataclass
class Square:
    """A gate with every door open, and origins that should hear nothing."""

    gate: GateWorld
    origins: tuple[Origin, ...]

    @property
    def bytes_at_origins(self) -> int:
        return sum(len(connection.received) for origin in self.origins for connection in origin.connections)


@asynccontextmanager
async def square(folder: Path) -> AsyncIterator[Square]:
    authority = Authority()
    async with Origin(authority.issue(HOST)) as tls, Origin(None) as plain:
        text = POLICY.format(tls=tls.port, plain=plain.port)
        policy = write_policy(folder / "policy", text, {"ca.pem": authority.pem})
        async with running_gate(folder, policy, secrets={"saas": SECRET}) as gate:
            yield Square(gate, (tls, plain))


class Visitor(Agent):
    """An agent that says a vector's bytes and reads the one answer."""

    async def arrive(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._world.port)

    async def arrive_in_a_tunnel(self) -> None:
        await self.connect()
        await self.start_tls()

    async def say(self, data: bytes) -> Answer:
        self.writer.write(data)
        async with asyncio.timeout(10):
            return await self.read_head()


_LINE = re.compile(rb"\A([!-~]+) (/[^ \r\n]*)( HTTP/1\.[01]\r\n)")


def _as_it_stands(data: bytes, agent: Visitor) -> bytes:
    return data


def _absolute(data: bytes, agent: Visitor) -> bytes:
    """A path becomes a URL of the plain connection; the credential comes with the request."""
    credential = f"Proxy-Authorization: Basic {agent.authorization()}\r\n".encode()
    return _LINE.sub(rb"\1 http://api.example.com\2\3" + credential, data, count=1)


def _base_url(data: bytes, agent: Visitor) -> bytes:
    """A path stands below the connection's; Host is the gate's own; the credential stands in the API key's place."""
    key = f"X-Api-Key: {agent.token}\r\n".encode()
    return _LINE.sub(rb"\1 /to/api\2\3" + key, data, count=1).replace(b"Host: api.example.com", b"Host: localhost")


@dataclass(frozen=True)
class Door:
    """One way in."""

    name: str
    arrive: Callable[[Visitor], object]
    dress: Callable[[bytes, Visitor], bytes]
    """The vector's bytes as this door wants a request."""
    connect: bool
    """Whether a CONNECT is a request here."""


DOORS = (
    Door("tunnel", Visitor.arrive_in_a_tunnel, _as_it_stands, connect=False),
    Door("absolute", Visitor.arrive, _absolute, connect=True),
    Door("base-url", Visitor.arrive, _base_url, connect=True),
)
