"""The enforcement point, assembled: listeners, sessions, the pipeline, and the orders that reach into it.

Lives on one event loop, the proxy's. `cut`, `in_flight` and `metrics` may be used from any thread; everything else
belongs to the loop.
"""

import asyncio
import concurrent.futures
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from credentials.principal import Principal
from credentials.revocation import Target
from proxy.accepting import Acceptor, Listeners
from proxy.attempt import Books
from proxy.config import GateConfig
from proxy.connections import Connections
from proxy.deciding import InputsSink
from proxy.egress.pool import Pool
from proxy.egress.resolver import Resolver
from proxy.egress.route import PoolLimits
from proxy.endings import Endings
from proxy.engine.authority import Authority
from proxy.engine.certificates import Certificates
from proxy.engine.connection import AgentConnection
from proxy.engine.outer import Handshakes, OuterTls
from proxy.fulfil import Fulfilment
from proxy.held import HeldBytes
from proxy.live import CutReport, InFlight, LiveCalls, Stop
from proxy.metrics import Metrics
from proxy.pipeline import Pipeline
from proxy.records import Content, Recorder
from proxy.rejections import Rejections
from proxy.session import Doorman, Session
from proxy.turns import STRANGERS, Turns
from proxy.verifying import Verifier
from proxy.world import Clock, World, wall_clock
from rules.claims import Reservations
from rules.codes import Code

logger = logging.getLogger("exeat.gate")

_SWEEP_SECONDS: Final = 0.1
"""How often deadlines are looked at and the loop's lag is measured: one timer for all calls, not one for each."""
_IDLE_LOOK_SECONDS: Final = 0.5
"""How often idle connections are looked at: ten thousand cost about a millisecond."""
_CUT_SECONDS: Final = 1.0
"""A revocation waits this long for the loop; the promise is that a stream is cut within a second."""


@dataclass(frozen=True, slots=True)
class GatePorts:
    """Everything the gate needs from outside."""

    world: World
    ledger: Recorder
    reservations: Reservations
    authority: Authority
    own_listeners: tuple[tuple[str, int], ...]
    """What else this installation listens on (health, operators); never dialled for an agent."""
    environment: Content
    """The records' `env`: version, configuration digest, worker, unsafe switches."""
    own_certificate: Callable[[], SSL.Context] | None = None
    """The TLS listeners' context for the next handshake; None: with a certificate of `authority`."""
    inputs: InputsSink | None = None
    """Where what calls were decided on is kept; None: nowhere."""
    listeners: Listeners | None = None
    """Sockets that somebody else has bound, in place of `GateConfig.listen` and `listen_tls`."""
    clock: Clock = wall_clock
    """By which rules that ask for the time are judged."""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a graceful stop went."""

    finished: int
    """Calls that ended by themselves."""
    cut: int
    """Calls that had to be stopped; their outcomes are recorded."""


class CutUnconfirmed(Exception):
    """The proxy's loop did not answer in time: the order stands, but nobody knows yet what was cut."""


class Gate:
    """Agents' calls go through here or nowhere."""

    def __init__(self, ports: GatePorts, config: GateConfig) -> None:
        self._config = config
        self.metrics = Metrics()
        self._live = LiveCalls()
        self._books = Books(ports.ledger, ports.reservations, self.metrics)
        self._rejections = Rejections(ports.ledger)
        self._ports = ports
        self._certificates = Certificates(ports.authority)
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[Acceptor] = []
        self._sessions: dict[asyncio.Task[None], tuple[Session, AgentConnection]] = {}
        self._chores: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.addresses: tuple[tuple[str, int], ...] = ()
        """Where agents connect, the TLS listeners behind the plain ones; known once started."""
        self.tls_addresses: tuple[tuple[str, int], ...] = ()
        """Those of them that speak TLS."""
        self._handshakes = Handshakes(
            ports.own_certificate or self._issued_context,
            seconds=config.timeouts.handshake,
            # Each has a file open beside those of the connections that are counted.
            at_most=min(config.max_handshakes, max(4, config.max_connections // 4)),
        )
        self._reports: set[asyncio.Task[bool]] = set()

    async def start(self) -> None:
        """Agents are served when this returns. Raises `OSError` when an address cannot be bound."""
        self._loop = loop = asyncio.get_running_loop()
        plain = await self._bind(loop)
        self.tls_addresses = _bound(self._servers[plain:])
        self.addresses = _bound(self._servers[:plain]) + self.tls_addresses
        self._assemble()
        for number, server in enumerate(self._servers):
            protocol = self._new_connection if number < plain else self._new_tls
            # They bind, as asyncio does it; who takes the newcomers is ours.
            self._acceptors += [Acceptor(bound, protocol, self._turns.rest) for bound in server.sockets]
        self._chores = [loop.create_task(self._sweep()), loop.create_task(self._rejections.run())]
        self.metrics.gauges["live_calls"] = lambda: float(len(self._live))
        self.metrics.gauges["open_connections"] = lambda: float(len(self._sessions))
        self.metrics.gauges["unidentified_connections"] = lambda: float(self._connections.unidentified)
        self.metrics.gauges["evicted_connections"] = lambda: float(self._connections.evicted)
        self.metrics.gauges["held_body_bytes"] = lambda: float(self._held.total)
        self.metrics.gauges["turns_held"] = lambda: float(self._turns.held)
        self.metrics.gauges["turns_waiting"] = lambda: float(self._turns.waiting)
        # performance.md: everything loaded so far lives for ever; not looking at it again halves p99.
        gc.collect()
        gc.freeze()

    async def _bind(self, loop: asyncio.AbstractEventLoop) -> int:
        """The servers' sockets, of which so many are plain."""
        given = self._ports.listeners
        if given is not None:
            for protocol, sockets in ((self._new_connection, given.plain), (self._new_tls, given.tls)):
                for bound in sockets:
                    # A duplicate: closed with its server, it takes nothing from the others that accept from it.
                    server = await loop.create_server(protocol, sock=bound.dup(), start_serving=False)
                    self._servers.append(server)
            return len(given.plain)
        for host, port in self._config.listen:
            self._servers.append(await loop.create_server(self._new_connection, host, port, start_serving=False))
        for host, port in self._config.listen_tls:
            self._servers.append(await loop.create_server(self._new_tls, host, port, start_serving=False))
        return len(self._config.listen)

    def _assemble(self) -> None:
        """Everything behind the listeners; after binding, because the pool must know which addresses are our own."""
        ports, config, timeouts = self._ports, self._config, self._config.timeouts
        self._pool = Pool(
            Resolver(),
            limits=PoolLimits(
                connect_timeout_seconds=timeouts.connect,
                handshake_timeout_seconds=timeouts.connect,
                head_timeout_seconds=timeouts.first_byte,
                body_timeout_seconds=timeouts.stream_idle,
            ),
            http_limits=config.http,
            own_listeners=(*self.addresses, *ports.own_listeners),
        )
        self._turns = turns = Turns()
        verifier = Verifier(ports.world, turns, timeouts.turn)
        self._connections = Connections(
            in_all=config.max_connections,
            per_account=config.max_connections_per_account,
            unidentified=config.max_unidentified_connections,
        )
        self._held = HeldBytes(in_all=config.max_held_bytes, per_account=config.max_held_bytes_per_account)
        endings = Endings(
            ports.world,
            self._books,
            self._live,
            self._rejections,
            self.metrics,
            ports.environment,
            timeouts.commit,
            ports.inputs,
        )
        self._pipeline = Pipeline(
            ports.world,
            self._books,
            Fulfilment(self._pool, config),
            endings,
            self._live,
            self.metrics,
            config,
            ports.environment,
            turns,
            self._connections,
            self._held,
            verifier,
            ports.inputs,
            ports.clock,
        )
        self._doorman = Doorman(
            self._pipeline,
            endings,
            ports.world,
            self._certificates,
            self.metrics,
            config,
            turns,
            self._connections,
            verifier,
        )

    def _new_connection(self) -> AgentConnection:
        return AgentConnection(self._certificates.context, self._accept)

    def _new_tls(self) -> OuterTls:
        return OuterTls(self._handshakes, self._new_connection, self._handshake_failed)

    def _issued_context(self) -> SSL.Context:
        """The gate's own certificate: for its names, and the addresses it listens on."""
        return self._certificates.own_context(own_names(self._config.names, self.tls_addresses))

    def _handshake_failed(self, peer: str, detail: str) -> None:
        """It is on record, as every refusal is; beyond a rate as a count."""
        rejecting = self._doorman.endings.reject(None, Code.PROTOCOL_REFUSED, detail, peer)
        task = asyncio.get_running_loop().create_task(rejecting)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    def _accept(self, wire: AgentConnection) -> None:
        loop = asyncio.get_running_loop()
        if self._pipeline.draining:
            self.metrics.connections_refused += 1
            wire.abort()
            return
        if not self._connections.enter(wire, loop.time()):
            self.metrics.connections_refused += 1
            return
        self.metrics.connections += 1
        wire.defer = self._turns.reader(STRANGERS)
        session = Session(self._doorman, wire)
        self._connections.register(wire, session)
        task = loop.create_task(session.run())
        self._sessions[task] = (session, wire)
        task.add_done_callback(self._session_over)

    def _session_over(self, task: "asyncio.Task[None]") -> None:
        _, wire = self._sessions.pop(task)
        self._connections.leave(wire)

    async def _sweep(self) -> None:
        """Ends what is past its deadline and measures how late the loop runs."""
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while True:
            due = loop.time() + _SWEEP_SECONDS
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            self.metrics.loop_lag.observe(int(max(0.0, now - due) * 1e9))
            self._live.expire(now)
            if len(self._live) and time.monotonic() > self._ports.world.heard_until:
                self._live.cut(lambda _: True, Stop.UNHEARD)
            self._connections.sweep(now)
            if now >= next_look:
                next_look = now + _IDLE_LOOK_SECONDS
                self._close_idle(now)

    def _close_idle(self, now: float) -> None:
        for session, wire in tuple(self._sessions.values()):
            if session.idle_until < now:
                wire.close()

    def live_calls(self) -> frozenset[str]:
        """Ids of the calls in flight. On the proxy's loop only."""
        return frozenset(call.id for call in self._live)

    async def settled(self) -> None:
        """Every call that is over has been settled."""
        await self._books.settled()

    # orders from other threads

    def cut(self, target: Target | None) -> CutReport:
        """Every live call of the target (None: every call) is stopped when this returns. Call from any other thread.

        The caller has swapped the revocations before, so whatever arrives meanwhile is refused by itself. Raises
        `CutUnconfirmed` when the loop does not get to it within a second; the order is carried out all the same.
        """
        return self._on_loop(lambda: self._live.cut(_matcher(target), Stop.REVOKED))

    def sign_with(self, authority: Authority) -> None:
        """Certificates are another authority's from now on. Call from any other thread. Raises `CutUnconfirmed`."""
        self._on_loop(lambda: self._certificates.sign_with(authority))

    def in_flight(self) -> tuple[InFlight, ...]:
        """The calls in flight. Call from any other thread."""
        return self._on_loop(self._live.describe)

    def _on_loop[T](self, work: Callable[[], T]) -> T:
        if self._loop is None:
            raise RuntimeError("the gate has not been started")
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def carry_out() -> None:
            try:
                answer.set_result(work())
            except Exception as error:  # noqa: BLE001 - handed to the thread that gave the order, which raises it
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(carry_out)
        try:
            return answer.result(_CUT_SECONDS)
        except TimeoutError as error:
            raise CutUnconfirmed(
                "the proxy did not answer in time; the order stands and is being carried out"
            ) from error

    # the end

    async def retire(self, seconds: float) -> None:
        """No newcomer is taken; agents that are here have had one more answer each, which told them to come anew.

        For a worker whose place another one has taken: no request that is on its way meets a closed door. Ends when
        nobody is here any more, after `seconds` at the latest; `drain` it then.
        """
        self._pipeline.retiring = True
        for acceptor in self._acceptors:
            await acceptor.close()
        deadline = asyncio.get_running_loop().time() + seconds
        while self._sessions and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - once a stop
            await asyncio.sleep(0.02)

    async def drain(self, seconds: float) -> DrainReport:
        """No new call is taken, those in flight have ended or been stopped, and everything is recorded."""
        self._pipeline.draining = True
        for acceptor in self._acceptors:
            await acceptor.close()
        for server in self._servers:
            server.close()
        self._handshakes.abort()
        waiting = len(self._live)
        for session, wire in tuple(self._sessions.values()):
            if session.idle:
                wire.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while len(self._live) and loop.time() < deadline:  # noqa: ASYNC110 - once a stop, and simpler than an event
            await asyncio.sleep(0.02)
        report = self._live.cut(lambda _: True, Stop.DRAINED)
        tasks = tuple(self._sessions)
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=self._config.timeouts.commit + 3)
            for task in pending:
                task.cancel()
        try:
            async with asyncio.timeout(self._config.timeouts.commit):
                await self._books.settled()
        except TimeoutError:
            # A stop that never ends helps nobody: what is open now is closed by the ledger's recovery.
            logger.error("the ledger did not take the last outcomes in time; the next start closes their intents")
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await asyncio.gather(*self._reports, return_exceptions=True)
        await self._rejections.flush()
        self._pool.close()
        self._pipeline.close()
        return DrainReport(finished=max(0, waiting - report.cut), cut=report.cut)


def own_names(names: tuple[str, ...], addresses: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    """What a certificate of a gate with these names and TLS listeners is for: a wildcard is loopback, by itself."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return tuple(dict.fromkeys((*names, *(loopback.get(host, host) for host, _ in addresses))))


def _bound(servers: list[asyncio.Server]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (str(sock.getsockname()[0]), int(sock.getsockname()[1])) for server in servers for sock in server.sockets
    )


def _matcher(target: Target | None) -> Callable[[Principal], bool]:
    if target is None:
        return lambda _: True
    return target.matches
