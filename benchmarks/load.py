"""The client: many agents in one thread, on epoll by hand.

An asyncio client would cost more processor time a call than some of the proxies it measures. Every reply is compared
with the one expected, to the byte; anything else ends the run, so that no refusal is ever counted as a fast answer.
"""

import gc
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Final

from benchmarks import wire

_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_STALL_SECONDS: Final = 10.0


class LoadFailed(Exception):
    """A reply was not the expected one, or none came; the figure would mean nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how the client calls."""

    address: tuple[str, int]
    """What is dialled: the proxy, or the origin itself."""
    authority: str
    """`host:port` of the origin, as the client names it."""
    ca_file: str
    """The only issuer the client trusts."""
    tunnel: bool = True
    """False: straight to the origin."""
    connect_headers: bytes = b""
    """Whole header lines for CONNECT, such as `Proxy-Authorization`."""
    request_headers: bytes = wire.HEADER
    """Whole header lines for each request; empty where the proxy attaches the secret."""

    def context(self) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.ca_file)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        # Proxies make certificates without the extensions of RFC 5280 that Python 3.13 insists on.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return made


@dataclass(slots=True)
class Tally:
    """What one run of the client saw."""

    calls: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds from the request's first byte to the reply's last; for new tunnels from the dial on."""


class _Agent:
    """One connection: dial, CONNECT, handshake, then a request at a time."""

    __slots__ = ("began", "buffer", "plain", "step", "tls")

    def __init__(self) -> None:
        self.plain: socket.socket | None = None
        self.tls: ssl.SSLSocket | None = None
        self.step = "dial"
        self.buffer = b""
        self.began = 0.0


class Client:
    """`connections` agents against one target; used for one reading and closed."""

    def __init__(self, target: Target, connections: int, *, renew: bool = False) -> None:
        self._target = target
        self._renew = renew
        self._context = target.context()
        self._host = target.authority.rpartition(":")[0]
        self._request = wire.request(target.authority, target.request_headers)
        self._connect = wire.connect(target.authority, target.connect_headers)
        self._epoll = select.epoll()
        self._agents: dict[int, _Agent] = {}
        self._tally = Tally()
        self._running = True
        for _ in range(connections):
            self._dial()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self._agents.values():
            (agent.tls or agent.plain or socket.socket()).close()
        self._epoll.close()

    def run(self, seconds: float) -> Tally:
        """Each agent calls, waits for its reply and calls again, for so long."""
        self._tally = tally = Tally()
        gc.collect()
        gc.disable()
        try:
            began = time.perf_counter()
            deadline = began + seconds
            for agent in self._agents.values():
                if agent.step == "idle":
                    self._call(agent)
            while (now := time.perf_counter()) < deadline:
                self._turn(min(_STALL_SECONDS, deadline - now + 0.001))
            tally.seconds = time.perf_counter() - began
            self._tally = Tally()  # what is still in flight belongs to no reading
            if not self._renew:
                self._settle()
        finally:
            gc.enable()
        if not tally.calls:
            raise LoadFailed(f"no reply from {self._target.address} within {seconds} s")
        return tally

    def open_all(self) -> None:
        """Every agent has its tunnel, and one call has gone through each."""
        self._running = False
        deadline = time.perf_counter() + _STALL_SECONDS
        while any(agent.step != "idle" for agent in self._agents.values()):
            if time.perf_counter() > deadline:
                raise LoadFailed("tunnels could not be opened in time")
            self._turn(0.1)
        self._running = True

    def _settle(self) -> None:
        """What is in flight is answered, so that the next reading begins from rest."""
        self._running = False
        deadline = time.perf_counter() + _STALL_SECONDS
        while any(agent.step == "reply" for agent in self._agents.values()):
            if time.perf_counter() > deadline:
                raise LoadFailed("a call was never answered")
            self._turn(0.1)
        self._running = True

    def _turn(self, seconds: float) -> None:
        for number, _ in self._epoll.poll(seconds):
            agent = self._agents.get(number)
            if agent is not None:
                self._advance(number, agent)

    def _dial(self) -> None:
        agent = _Agent()
        agent.began = time.perf_counter()
        agent.plain = plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.connect_ex(self._target.address)
        self._agents[plain.fileno()] = agent
        self._epoll.register(plain.fileno(), select.EPOLLOUT)

    def _advance(self, number: int, agent: _Agent) -> None:
        try:
            if agent.step == "reply":
                self._read_reply(number, agent)
            elif agent.step == "handshake":
                self._shake_hands(agent)
            elif agent.step == "tunnel":
                self._read_tunnel(agent)
            elif agent.step == "dial":
                self._dialled(number, agent)
            elif agent.step == "idle" and agent.tls is not None:
                if not agent.tls.recv(1):
                    raise LoadFailed("an idle tunnel was closed")
                raise LoadFailed("bytes came without a request")
        except _WAITING:
            return

    def _dialled(self, number: int, agent: _Agent) -> None:
        assert agent.plain is not None
        if error := agent.plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise LoadFailed(f"cannot reach {self._target.address}: error {error}")
        self._epoll.modify(number, select.EPOLLIN)
        if self._target.tunnel:
            agent.plain.send(self._connect)
            agent.step = "tunnel"
        else:
            self._start_tls(agent)

    def _read_tunnel(self, agent: _Agent) -> None:
        assert agent.plain is not None
        agent.buffer += (data := agent.plain.recv(4096))
        if agent.buffer.endswith(b"\r\n\r\n") and agent.buffer[:12] in {b"HTTP/1.1 200", b"HTTP/1.0 200"}:
            agent.buffer = b""
            self._start_tls(agent)
        elif not data or not b"HTTP/1.1 200".startswith(agent.buffer[:12]):
            raise LoadFailed(f"CONNECT was answered with {agent.buffer[:300]!r}")

    def _start_tls(self, agent: _Agent) -> None:
        assert agent.plain is not None
        agent.tls = self._context.wrap_socket(agent.plain, do_handshake_on_connect=False, server_hostname=self._host)
        agent.step = "handshake"
        self._shake_hands(agent)

    def _shake_hands(self, agent: _Agent) -> None:
        assert agent.tls is not None
        agent.tls.do_handshake()
        self._call(agent)

    def _call(self, agent: _Agent) -> None:
        assert agent.tls is not None
        if not self._renew:
            agent.began = time.perf_counter()
        agent.tls.send(self._request)  # 600 bytes into an empty socket buffer: never partial
        agent.step = "reply"

    def _read_reply(self, number: int, agent: _Agent) -> None:
        assert agent.tls is not None
        data = agent.tls.recv(65536)
        agent.buffer += data
        if not agent.buffer.endswith((wire.REPLY_BODY, wire.REPLY_BODY + b"\r\n0\r\n\r\n")):
            if not data or len(agent.buffer) > 8192 or not b"HTTP/1.1 200".startswith(agent.buffer[:12]):
                raise LoadFailed(f"a call was answered with {agent.buffer[:600]!r}")
            return
        if not agent.buffer.startswith(b"HTTP/1.1 200"):
            raise LoadFailed(f"a call was answered with {agent.buffer[:600]!r}")
        agent.buffer = b""
        self._tally.calls += 1
        self._tally.latencies.append(time.perf_counter() - agent.began)
        if self._renew:
            self._epoll.unregister(number)
            del self._agents[number]
            agent.tls.close()
            if self._running:
                self._dial()
        elif self._running:
            self._call(agent)
        else:
            agent.step = "idle"
