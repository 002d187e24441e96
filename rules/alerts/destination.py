"""A place that a tenant's alerts are sent to."""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

WEBHOOK: Final = "webhook"
SLACK: Final = "slack"
SYSLOG: Final = "syslog"
LOG: Final = "log"
"""Has every alert of every tenant; no destination of a policy has its name."""
DEFAULT_PORTS: Final = {"https": 443, "http": 80, "udp": 514, "tcp": 601, "tls": 6514}
"""RFC 5426 section 3.3, RFC 6587 section 3.4.1 (601 is what IANA gave syslog-conn), RFC 5425 section 4.1."""


@dataclass(frozen=True, slots=True)
class AlertDestination:
    """Compiled. Its address is not vetted: the egress does that at every dial."""

    tenant: str
    name: str
    kind: str
    """`webhook`, `slack` or `syslog`."""
    transport: str
    """`https` or `http` of a hook; `udp`, `tcp` or `tls` of a syslog receiver."""
    host: str
    """Empty where the secret is the whole address."""
    port: int
    path: str
    secrets: tuple[str, ...]
    """Names: what a webhook is signed with, each of them; the address of a Slack hook."""
    dial: tuple[str, int] | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    ca_pem: str | None = field(default=None, repr=False)
    ca_added: bool = False
    denied_keys: frozenset[str] = field(default=frozenset(), repr=False)
    installation: bool = False
    """Whether it hears what concerns the whole installation too."""

    @property
    def described(self) -> str:
        """For people; without a secret."""
        if self.kind == SLACK:
            return f"slack, its address in the secret {self.secrets[0]}"
        shown = f"[{self.host}]" if ":" in self.host else self.host
        signed = f", signed with {' and '.join(self.secrets)}" if self.secrets else ""
        return f"{self.kind} {self.transport}://{shown}:{self.port}{self.path}{signed}"
