"""A product of several workers with its counters in a real server, and agents that call through it for a while."""

import contextlib
import http.client
import json
import ssl
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.worlds.origin import Peer, Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running
from tests.worlds.valkey import Valkey

HOST = "saas.test"
POLICY = """\
exeat: 1
tenant: acme
{whole}credentials: {{ttl: 10m, max_ttl: 30m}}
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab, price: 1 USD}}
  free: {{host: free.test, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab}}
accounts:
{accounts}
"""
ACCOUNT = """\
  {name}:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    limits: {limits}
    rules:
      - {{id: all, allow: {{connection: "*", path: /**}}}}
"""
SECRET = b"upstream-canary-5b1e"


async def script(request: Request, peer: Peer) -> None:
    """A stream at /stream, an answer everywhere else."""
    import asyncio

    if request.target == "/stream":
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(600):
            await peer.send(b"9\r\ndata: x\n\n\r\n")
            await asyncio.sleep(0.05)
        await peer.send(b"0\r\n\r\n")
        return
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")


@dataclass(frozen=True)
class Answer:
    """What an agent got."""

    status: int
    code: str | None


@dataclass
class Agent:
    """One connection of an agent, kept open and made anew when it has ended."""

    host: str
    port: int
    user: str
    context: ssl.SSLContext
    seconds: float = 30.0
    _wire: http.client.HTTPSConnection | None = None
    _host: str = ""

    def get(self, path: str, host: str = HOST) -> Answer:
        """One request; a connection that had ended while it was idle is made anew first, as clients do."""
        wire = self.wire(host)
        wire.request("GET", path)
        answer = wire.getresponse()
        answer.read()
        if answer.will_close:
            self.close()
        return Answer(answer.status, answer.headers.get("Exeat-Code"))

    def wire(self, host: str = HOST) -> http.client.HTTPSConnection:
        if self._wire is None or self._host != host:
            self.close()
            self._wire = http.client.HTTPSConnection(self.host, self.port, timeout=self.seconds, context=self.context)
            self._wire.set_tunnel(host, 443, {"Proxy-Authorization": f"Basic {self.user}"})
            self._host = host
        return self._wire

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def agent_of(product: Product, account: str | None = None, seconds: float = 30.0) -> Agent:
    """An agent with a credential of its own."""
    settings = product.run_env(account, "20m")
    door = urlsplit(settings["HTTPS_PROXY"])
    user = b64encode(f"{unquote(door.username or '')}:{unquote(door.password or '')}".encode()).decode()
    context = ssl.create_default_context(cafile=settings["SSL_CERT_FILE"])
    return Agent(str(door.hostname), int(door.port or 0), user, context, seconds)


@dataclass
class Fleet:
    """Everything of one installation."""

    product: Product
    origin: OriginThread
    server: Valkey
    agents: list[Agent] = field(default_factory=list)

    def leave(self) -> None:
        """No agent is connected any more."""
        while self.agents:
            self.agents.pop().close()

    def agent(self, account: str, seconds: float = 30.0) -> Agent:
        self.agents.append(agent_of(self.product, account, seconds))
        return self.agents[-1]

    def twin(self, agent: Agent) -> Agent:
        """Another connection of the same agent."""
        self.agents.append(Agent(agent.host, agent.port, agent.user, agent.context, agent.seconds))
        return self.agents[-1]

    def workers(self) -> list[dict[str, Any]]:
        return list(self.product.cli("workers", "show", "--json").json["workers"])

    def processes(self) -> dict[int, bytes]:
        """Those that the supervisor started, with the module that each runs."""
        assert self.product.process is not None
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                line = (entry / "cmdline").read_bytes().split(b"\0")
                if int(status[1]) == self.product.process.pid:
                    found[int(entry.name)] = line[line.index(b"-m") + 1]
        return found

    def pid_of(self, module: str) -> int:
        """Of the one that runs a module."""
        (pid,) = [pid for pid, runs in self.processes().items() if runs == module.encode()]
        return pid

    def verified(self) -> str:
        """The ledger holds; its report."""
        trust = self.product.state / "trust.policy"
        done = self.product.cli("ledger", "verify", str(self.product.state / "ledger"), "--trust", str(trust))
        assert done.code in (0, 4), done.out + done.err
        return done.out

    def wait(self, happened: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, "it did not happen\n" + self.product.log.read_text()[-4000:]
            time.sleep(0.02)

    def whole(self) -> bool:
        """All workers serve."""
        with contextlib.suppress(OSError, AssertionError, json.JSONDecodeError, KeyError):
            shown = self.product.cli("workers", "show", "--json").json
            return bool(sum(one["serves"] for one in shown["workers"]) == shown["wanted"])
        return False


@contextlib.contextmanager
def fleet(accounts: dict[str, str], workers: int = 2, home: Path | None = None, whole: str = "") -> Iterator[Fleet]:
    """A running fleet; `accounts` says the limits of each, `whole` those of all together, `home` where its state is, if
    it is to have one."""
    folder = Path(tempfile.mkdtemp(prefix="exeat-v-"))
    server = Valkey(folder)
    server.start()
    try:
        with OriginThread((HOST, "free.test"), script) as origin:
            written = "".join(ACCOUNT.format(name=name, limits=limits) for name, limits in accounts.items())
            limits = f"limits: {whole}\n" if whole else ""
            policy = POLICY.format(port=origin.port, accounts=written, whole=limits)
            files = {"lab-ca.pem": origin.authority.pem}
            options = ("--workers", str(workers), "--redis", server.url, "--drain", "5")
            with running(home, policy=policy, files=files, secrets={"lab": SECRET}, options=options) as product:
                here = Fleet(product, origin, server)
                here.wait(here.whole)
                yield here
    finally:
        server.kill()


@dataclass
class Load:
    """Agents that call one after the other until told to stop, each on a thread and a connection of its own."""

    agents: list[Agent]
    path: str = "/v1/items"
    host: str = HOST
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Requests without an answer."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._run, args=(agent,)) for agent in self.agents]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, agent: Agent) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(agent.get(self.path, self.host))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(f"{type(error).__name__}: {error}")
                agent.close()
                time.sleep(0.05)
