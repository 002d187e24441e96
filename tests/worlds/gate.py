"""A gate in this process: real sockets, real TLS, a real ledger and real limits; only control's state is in memory."""

import asyncio
import base64
import math
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from control.stores.limits import EmbeddedReservations
from credentials.identifier import Identifier
from credentials.revocation import Revocations
from credentials.secret import Secret
from credentials.signing import SigningKey
from credentials.suspension import Suspensions
from credentials.tokens import TokenIssuer, TokenVerifier
from ledger import Ledger, MemoryLockStore, Record, read_records
from proxy.config import GateConfig
from proxy.deciding import InputsSink
from proxy.engine.authority import Authority
from proxy.gate import Gate, GatePorts
from proxy.world import Clock, wall_clock
from rules.policy.compile import PolicySet, compile_policy
from rules.policy.load import load_policy

ENVIRONMENT = {"proxy": "test", "config": "test", "worker": "w0", "unsafe": []}


@dataclass
class MemoryWorld:
    """`proxy.world.World`, set by the test."""

    policy: PolicySet | None
    identifier: Identifier
    issuer: TokenIssuer
    revocations: Revocations = field(default_factory=Revocations)
    suspensions: Suspensions = field(default_factory=Suspensions)
    policy_epoch: int = 1
    heard_until: float = math.inf
    secrets: dict[tuple[str, str], tuple[Secret, int]] = field(default_factory=dict)

    def secret(self, tenant: str, name: str) -> tuple[Secret, int] | None:
        return self.secrets.get((tenant, name))

    def commitment_key(self, tenant: str) -> bytes:
        return b"k" * 32

    def token(self, account: str = "agent", *, tenant: str = "acme", ttl: int = 300, run: str = "r_1") -> str:
        issued = self.issuer.issue(
            tenant=tenant,
            account=account,
            workflow="tests",
            run=run,
            epoch=self.revocations.epoch,
            ttl_seconds=ttl,
            now=int(time.time()),
        )
        return issued.token.reveal().decode()


@dataclass
class GateWorld:
    """A running gate and everything around it."""

    gate: Gate
    world: MemoryWorld
    ledger: Ledger
    directory: Path
    reservations: EmbeddedReservations
    authority: Authority

    @property
    def port(self) -> int:
        return self.gate.addresses[0][1]

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.pem.decode())

    async def activate(self, policy: PolicySet) -> None:
        """This policy decides from now on."""
        digest = None if self.world.policy is None else self.world.policy.digest
        epoch = await asyncio.to_thread(_activated, self.ledger, policy, digest)
        self.world.policy, self.world.policy_epoch = policy, epoch

    async def records(self, *types: str) -> list[Record]:
        """The records so far, of these types; waits for calls that are still being settled."""
        await self.gate.settled()
        return [record for record in read_records(self.directory) if not types or record.type in types]


def _activated(ledger: Ledger, policy: PolicySet, previous: str | None = None) -> int:
    activation = {
        "policy": policy.digest,
        "previous": previous,
        "actor": {"kind": "system", "id": "test", "name": "test"},
        "files": [],
    }
    return ledger.submit("policy.activate", "-", activation).result(10).seq


def write_policy(folder: Path, text: str, files: Mapping[str, str] | None = None) -> PolicySet:
    """The policy of this text, loaded as users' files are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {}).items():
        (folder / name).write_text(content)
    (folder / "acme.yaml").write_text(text)
    return compile_policy(load_policy(folder))


@asynccontextmanager
async def running_gate(
    folder: Path,
    policy: PolicySet | None,
    *,
    secrets: Mapping[str, str] | None = None,
    config: GateConfig | None = None,
    wrap_ledger=lambda ledger: ledger,
    wrap_reservations=lambda reservations: reservations,
    inputs: InputsSink | None = None,
    clock: Clock = wall_clock,
) -> AsyncIterator[GateWorld]:
    """A gate on an ephemeral port. `secrets` are tenant acme's; `clock` is what rules are judged by."""
    key = SigningKey.load_or_create(folder / "token.pem")
    issuer = TokenIssuer(key, "exeat:test")
    identifier = Identifier(TokenVerifier({key.kid: key.public}, "exeat:test"))
    world = MemoryWorld(policy, identifier, issuer)
    for name, value in (secrets or {}).items():
        world.secrets["acme", name] = (Secret(value), 1)
    directory = folder / "ledger"
    keys = folder / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    ledger = Ledger.create(directory, keys=keys, lock_store=MemoryLockStore(), origin="exeat.test/log")
    if policy is not None:
        world.policy_epoch = _activated(ledger, policy)
    reservations = EmbeddedReservations()
    authority = Authority.create("Test interception")
    config = config or GateConfig(listen=(("127.0.0.1", 0),))
    ports = GatePorts(
        world, wrap_ledger(ledger), wrap_reservations(reservations), authority, (), ENVIRONMENT, inputs=inputs,
        clock=clock,
    )  # fmt: skip
    gate = Gate(ports, config)
    await gate.start()
    try:
        yield GateWorld(gate, world, ledger, directory, reservations, authority)
    finally:
        await gate.drain(1.0)
        await asyncio.to_thread(ledger.close)


@dataclass
class Answer:
    """One response, as an agent reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        return self.headers.get("exeat-code")


class Agent:
    """A raw agent: CONNECT, TLS, then bytes as the test wants them."""

    def __init__(self, world: GateWorld, token: str | None, host: str = "saas.test", port: int = 443) -> None:
        self._world = world
        self._token = token
        self.host, self.port = host, port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Agent":
        answer = await self.connect()
        if answer.status != 200:
            raise AssertionError(f"CONNECT was refused: {answer}")
        await self.start_tls()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    @property
    def token(self) -> str:
        return self._token or ""

    def authorization(self) -> str:
        return base64.b64encode(f"agent:{self._token}".encode()).decode()

    async def connect(self) -> Answer:
        """Sends the CONNECT and reads its answer."""
        await self.reach()
        lines = [f"CONNECT {self.host}:{self.port} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if self._token is not None:
            lines.append(f"Proxy-Authorization: Basic {self.authorization()}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        return await self.read_answer("CONNECT")

    async def reach(self) -> None:
        """There is a connection to the gate."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._world.port)

    async def start_tls(self, server_name: str | None = None) -> None:
        await self.writer.start_tls(self._world.client_context(), server_hostname=server_name or self.host)

    async def request(
        self, method: str = "GET", path: str = "/", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, and its whole answer."""
        await self.send(method, path, body, headers)
        return await self.read_answer(method)

    async def send(
        self, method: str = "GET", path: str = "/", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        authority = self.host if self.port == 443 else f"{self.host}:{self.port}"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        await self.writer.drain()

    async def read_head(self) -> Answer:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = raw.decode("latin-1").split("\r\n")[:-2]
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(status_line.split(" ")[1]), headers, b"")

    async def read_answer(self, method: str) -> Answer:
        answer = await self.read_head()
        if method in {"HEAD", "CONNECT"} and answer.status < 300:
            return answer
        if method == "HEAD" or answer.status in {204, 304}:
            return answer
        if "content-length" in answer.headers:
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        elif answer.headers.get("transfer-encoding") == "chunked":
            answer.body = b"".join([chunk async for chunk in self.chunks()])
        return answer

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a chunked answer whose head has been read."""
        while True:
            size = int((await self.reader.readline()).split(b";")[0], 16)
            data = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            if size == 0:
                return
            yield data
