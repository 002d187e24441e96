"""The enforcement point's configuration: read once, frozen, every limit with its reason."""

from dataclasses import dataclass, field

from proxy.http.limits import HttpLimits


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds each phase of a call may take; a phase that takes longer ends the call as a time-out."""

    handshake: float = 10.0
    """TLS with the agent. nginx gives 60; an agent sits nearby."""
    headers: float = 10.0
    """From a request's first byte to the end of its head (slowloris); nginx and Apache give 60 and 20-40."""
    body_idle: float = 30.0
    """Between two pieces of a request's or a response's body, other than an event stream."""
    stream_idle: float = 600.0
    """Between two pieces of an event stream; vendors send keep-alives every 15 to 60 s."""
    tunnel_idle: float = 120.0
    """Between two requests of a kept-alive tunnel."""
    connect: float = 10.0
    """TCP and TLS to the origin, name resolution included."""
    first_byte: float = 600.0
    """From the request's last byte to the answer's first; model calls take minutes (openai's SDK waits 600)."""
    lookup: float = 10.0
    """What the gate asks the service before it judges a call, all of it; a read of one object, and the agent waits."""
    total: float = 3600.0
    """The whole call."""
    commit: float = 5.0
    """A record's durability; a disk that hangs longer is a disk that fails."""
    turn: float = 10.0
    """For a turn at the processor. An agent that waits longer waits behind itself: `overloaded`."""
    reserve: float = 0.5
    """The limits' store."""


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What the gate is started with."""

    listen: tuple[tuple[str, int], ...] = (("127.0.0.1", 8080),)
    listen_tls: tuple[tuple[str, int], ...] = ()
    """Where agents connect through TLS."""
    http: HttpLimits = field(default_factory=HttpLimits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_held_body_bytes: int = 1024 * 1024
    """Request bodies up to this size are held and digested before the intent; longer ones only where a rule streams."""
    max_held_bytes: int = 256 * 1024 * 1024
    """Of request bodies in all; beyond it, calls with a body are refused at once, with 503."""
    max_held_bytes_per_account: int = 64 * 1024 * 1024
    """A quarter of all: three accounts at their bound leave room for everybody else."""
    max_held_reply_bytes: int = 64 * 1024
    """Replies up to this size are held whole until their outcome is durable; larger ones are streamed."""
    max_connections: int = 10_000
    """Agents' connections in all; more are refused at once, with 503. About 165 KB each (performance.md)."""
    max_connections_per_account: int = 1_000
    """A tenth of all, so that no account takes them all; squid and nginx think of 1,024 for a whole server."""
    max_unidentified_connections: int = 512
    """Connections that have shown no valid credential; the oldest makes room for the newest."""
    max_unknown_hosts: int = 64
    """First-seen hosts outside the policy that one account may have certificates minted for, an hour."""
    max_unknown_hosts_per_second: int = 20
    """Such certificates in all, after a burst of five times as many; each costs a signature, some 300 us."""
    names: tuple[str, ...] = ()
    """DNS names and addresses by which agents reach this gate: in its own certificate on TLS listeners, and what a
    base-URL request may name as its Host."""
    max_handshakes: int = 256
    """On TLS listeners, in progress at once; the oldest gives way. A thousand a second of 10 ms each are ten."""
    unsafe: tuple[str, ...] = ()
    """Names of the unsafe switches in force; shown in health and in every record."""
