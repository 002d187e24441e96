"""Which connections may be used for which calls, and how many and how long."""

from dataclasses import dataclass, field

from proxy.egress.addresses import Network


@dataclass(frozen=True, slots=True)
class Route:
    """The key of the pool: two calls share a connection only where every field is equal.

    Tenant and secret version are part of it: an origin may bind state to a connection, and what one tenant's or an
    older secret's connection has seen must not serve another. Make one a connection and keep it: hashing is done once.
    """

    tenant: str
    connection: str
    secret_version: int
    scheme: str
    """`https` or `http`."""
    host: str
    """Normalised; without brackets. The certificate is verified for it."""
    port: int
    dial: tuple[str, int] | None = None
    """An address and port that the operator wrote, dialled instead of the name."""
    networks: tuple[Network, ...] = ()
    """Private networks that the name's addresses may lie in."""
    ca_pem: str | None = field(default=None, repr=False)
    """Trusted instead of the public authorities, or beside them."""
    ca_added: bool = False
    """Whether `ca_pem` is trusted beside the public authorities."""
    denied_keys: frozenset[str] = field(default=frozenset(), repr=False)
    """SHA-256 of the keys, beside the table in code, that no certificate of the origin's chain may be over."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "_hash",
            hash((self.tenant, self.connection, self.secret_version, self.host, self.port, self.dial, self.ca_pem)),
        )

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of the pool; seconds and counts."""

    connect_timeout_seconds: float = 10.0
    """For all addresses of a name together. curl 300 (too long for a caller who waits), Go's dialer 30, squid 60."""
    handshake_timeout_seconds: float = 10.0
    """Go's net/http TLSHandshakeTimeout 10."""
    head_timeout_seconds: float = 300.0
    """From the last byte sent or received to the response's head. Model APIs answer minutes later; nginx 60, OpenAI's
    SDK 600."""
    body_timeout_seconds: float = 120.0
    """Between two pieces of a body. nginx proxy_read_timeout 60; event streams send comments every 15 to 30 s."""
    idle_seconds: float = 30.0
    """An unused connection is closed after this. Origins close after 5 (Node) to 75 s (nginx); Go's client 90."""
    max_age_seconds: float = 600.0
    """A connection older than this is not used again, so that moves of a name and expired certificates are noticed."""
    max_idle_per_route: int = 128
    """As many as calls run side by side: every call beyond it pays a handshake, ten times its own cost."""
    max_idle: int = 512
    max_open: int = 1024
    """File descriptors: default soft limits are 1024 and up, and the agents' side needs as many."""
    max_open_per_tenant: int = 512
    """So that one tenant cannot take every connection from the others."""
    max_addresses_tried: int = 4
    pause_bytes: int = 256 * 1024
    """Above this many unread body bytes nothing is read from the origin."""
