"""A product under load: agents on one side, an origin that notes what arrives on the other, a process to be killed."""

import asyncio
import contextlib
import random
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from control.state import State
from tests.campaigns.load import PAUSE_SECONDS, Access, Load
from tests.campaigns.raw_agent import RawAgent
from tests.worlds.origin import Peer, Request, reply
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

SECRET = b"campaign-secret-5d20"
PRICE_MICROS = 10_000
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """\
exeat: 1
tenant: acme
timezone: {timezone}
credentials: {{ttl: 1h, max_ttl: 2h}}
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab, price: 0.01 USD}}
accounts:
  busy:
    owners: {owners}
    limits: {{concurrency: {busy}, spend: [{{meter: price, max: 100000 USD, per: day}}]}}
    rules: [{{id: all, allow: {{connection: lab, path: "/busy/{{n}}"}}}}]
  capped:
    owners: {owners}
    limits: {{concurrency: 2, spend: [{{meter: price, max: {cap} USD, per: day}}]}}
    rules: [{{id: all, allow: {{connection: lab, path: "/capped/{{n}}"}}}}]
"""
LONG_PIECES = 20
"""Of `/busy/long`: two seconds."""
BUSY, CAPPED = 6, 2
"""Agents of each account."""


@dataclass
class Witness:
    """The origin: which targets arrived, and when."""

    arrived: list[tuple[str, float, str | None]] = field(default_factory=list)

    async def script(self, request: Request, peer: Peer) -> None:
        self.arrived.append((request.target, time.time(), request.header("authorization")))
        if request.target.endswith("/long"):
            await _stream(peer, LONG_PIECES, 0.1)
            return
        number = int(request.target.rpartition("/")[2])
        if number % 25 == 0:
            await _stream(peer, 10, 0.03)
            return
        if number % 4 == 0:
            await asyncio.sleep(0.03)
        await peer.send(reply())


async def _stream(peer: Peer, pieces: int, pause_seconds: float) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(pieces):
        await peer.send(b"9\r\ndata: x\n\n\r\n")
        await asyncio.sleep(pause_seconds)
    await peer.send(b"0\r\n\r\n")


class LongCall(threading.Thread):
    """An agent that reads one long answer."""

    def __init__(self, agent: RawAgent) -> None:
        super().__init__(daemon=True)
        self._agent = agent
        self._answer = b""
        self.start()

    def run(self) -> None:
        """The load of the same account may hold every lease when this call asks: then it asks again."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self._answer = self._agent.get("saas.test", "/busy/long")
            if not self._answer.startswith(b"HTTP/1.1 429 "):
                return
            time.sleep(0.01)

    def answer(self) -> bytes:
        """All that came, once nothing more does."""
        self.join(30)
        assert not self.is_alive()
        return self._answer

    def whole(self) -> bool:
        """True when every piece came, and the end."""
        answer = self.answer()
        return answer.count(b"data: x") == LONG_PIECES and answer.endswith(b"0\r\n\r\n")


@dataclass
class World:
    """A product that is about to be killed, its origin, its load."""

    product: Product
    witness: Witness
    load: Load
    interrupted_starts: int = 0

    def kill(self, how: random.Random) -> None:
        """The process is killed while calls are in flight, at an instant nobody chose."""
        self.wait_for_answers(how.randrange(10, 120))
        time.sleep(how.uniform(0.0, 0.15))
        self._kill()

    def kill_while_it_starts(self, how: random.Random) -> None:
        """Killed once under load, and once more before or just after the next start is complete."""
        self.kill(how)
        before = self._holder()
        killer = threading.Thread(target=self._kill_the_next_holder, args=(before, how.uniform(0.0, 0.3)))
        killer.start()
        with contextlib.suppress(AssertionError, OSError):
            self.product.start()
        killer.join()
        self._kill()
        self.interrupted_starts += 1

    def _holder(self) -> str:
        return (self.product.state / "LOCK").read_text()

    def _kill_the_next_holder(self, before: str, seconds: float) -> None:
        """The process that takes the state is killed so long after it did: while it recovers, or just after."""
        deadline = time.monotonic() + 30
        while self._holder() in (before, "") and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)
        if self.product.process is not None:
            self.product.process.kill()

    def _kill(self) -> None:
        assert self.product.stop(signal.SIGKILL) == -signal.SIGKILL

    def wait_for_answers(self, count: int) -> None:
        """So many further answers have been read."""
        wanted = len(self.load.told) + count
        self.wait_until(lambda: len(self.load.told) >= wanted)

    def long_call(self) -> "LongCall":
        """A streamed answer of seconds has begun for the busy account."""
        before = self._long_calls()
        token = self.product.cli("token", "issue", "busy").ok().out.strip()
        agent = RawAgent(self.product.door(), self.product.state / "keys" / "ca-cert.pem", token)
        call = LongCall(agent)
        self.wait_until(lambda: self._long_calls() > before)
        return call

    def _long_calls(self) -> int:
        return sum(target == "/busy/long" for target, _, _ in self.witness.arrived)

    def comes_to_rest(self) -> None:
        """The agents have ended; nothing is left in flight, held or open, and the log tells of no crash."""
        self.load.finish()
        wanted = {"exeat_live_calls 0", "exeat_ledger_open_intents 0", "exeat_ledger_halted 0"}
        self.wait_until(lambda: wanted <= set(self._metrics()))
        assert self.load.unasked == []
        said = self.product.log.read_text()
        for mark in ("Traceback", "never retrieved", "CRITICAL", "has crashed"):
            assert mark not in said, said

    def _metrics(self) -> list[str]:
        with urllib.request.urlopen(f"{self.product.health()}/metrics", timeout=10) as answer:
            return answer.read().decode().splitlines()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < deadline, "it did not happen under load"
            time.sleep(0.005)


@contextlib.contextmanager
def campaign(
    cap: int, options: tuple[str, ...] = (), hang_up_every: int = 0, pause_seconds: float = PAUSE_SECONDS
) -> Iterator[World]:
    """Everything is running and under load. `cap`: calls that the capped account may make."""
    witness = Witness()
    with OriginThread(("saas.test",), witness.script) as service:
        policy = POLICY.format(
            port=service.port,
            owners=OWNERS,
            timezone=_where_it_is_noon(),
            busy=BUSY,
            cap=cap * PRICE_MICROS / 1_000_000,
        )
        with running(
            policy=policy, files={"ca.pem": service.authority.pem}, secrets={"lab": SECRET}, options=options
        ) as product:
            assert product.stop() == 0
            product.listen = f"127.0.0.1:{_free_port()}"  # the same after every restart, as agents expect
            product.start()
            accounts = ("busy",) * BUSY + ("capped",) * CAPPED
            known = {account: Access.of(account, product.run_env(account)) for account in set(accounts)}
            agents = tuple(known[account] for account in accounts)
            with Load(agents, hang_up_every=hang_up_every, pause_seconds=pause_seconds) as load:
                yield World(product, witness, load)


def _where_it_is_noon() -> str:
    """A zone in which no day ends during the campaign. The sign of these names is the reverse of ISO 8601's."""
    east = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{'-' if east >= 0 else '+'}{abs(east)}"


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def what_only_the_state_knows(product: Product) -> tuple[bytes, dict[str, int]]:
    """The tenant's commitment key, and what a new start counts as spent."""
    with State.open(product.state, create=False) as state:
        uses = state.reservations.budgets()
        return state.commitment_key("acme"), {f"{use.key}/{use.window}": use.spent_micros for use in uses}
