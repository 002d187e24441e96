"""How a gate of this installation is set up, whichever process it runs in."""

import hashlib
from importlib.metadata import version

from proxy.config import GateConfig

type Addresses = tuple[tuple[str, int], ...]


def gate_config(
    listen: Addresses, listen_tls: Addresses, names: tuple[str, ...], unsafe: tuple[str, ...], max_connections: int
) -> GateConfig:
    """The gate's settings where it may have so many connections of agents."""
    return GateConfig(
        listen=listen,
        listen_tls=listen_tls,
        names=names,
        max_connections=max_connections,
        # Where few files may be open no one account, and no crowd of strangers, takes all connections either.
        max_connections_per_account=max(1, min(1_000, max_connections // 4)),
        max_unidentified_connections=max(1, min(512, max_connections // 4)),
        unsafe=unsafe,
    )


def environment_of(config: GateConfig, worker: str) -> dict[str, object]:
    """The `env` of a gate's records."""
    return {
        "proxy": version("exeat"),
        # Everything that decides how calls are handled, the policy aside, which has its own digest.
        "config": hashlib.sha256(repr(config).encode()).hexdigest()[:16],
        "worker": worker,
        "unsafe": list(config.unsafe),
    }
