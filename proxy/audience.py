"""For whom a refusal is written: the service that the agent's program believes to talk to, as far as that is known.

a call's connection       what its policy says, or its host
a tunnel                  the tenant's connection to that host, or the host alone
a base URL                the tenant's connection of that name; where nobody knows whose tenant, the name alone

Decides about nothing but the form of an answer, so the agent's own words are good enough where there are no better.
"""

from dataclasses import dataclass
from typing import Final

from credentials.principal import Principal
from proxy.base_url import connection_name
from proxy.exchange import Exchange, Tunnel
from proxy.world import World
from rules.policy.compile import Connection, TenantPolicy
from rules.services import Service, named, of_host


@dataclass(frozen=True, slots=True)
class Audience:
    """Whose clients read it, and the host that they asked."""

    service: Service | None
    """None: problem details are for everybody."""
    host: str


EVERYBODY: Final = Audience(None, "")


def of_connection(connection: Connection) -> Audience:
    """The audience of a call that has its connection."""
    return Audience(connection.service, connection.host)


def of_tunnel(tunnel: Tunnel, world: World) -> Audience:
    """The audience of whatever is refused inside a tunnel."""
    policy = _policy(world, tunnel.principal)
    connection = None if policy is None else policy.connection_for("https", tunnel.host, tunnel.port)
    return Audience(of_host(tunnel.host), tunnel.host) if connection is None else of_connection(connection)


def of_exchange(exchange: Exchange, world: World, principal: Principal | None) -> Audience:
    """The audience of a request that has no call yet. `principal`: who asks, as far as that is known."""
    if exchange.tunnel is not None:
        return of_tunnel(exchange.tunnel, world)
    name = connection_name(exchange.head.target)
    if name is None:
        return EVERYBODY
    policy = _policy(world, principal or exchange.principal)
    connection = None if policy is None else policy.connections.get(name)
    return Audience(named(name), "") if connection is None else of_connection(connection)


def _policy(world: World, principal: Principal | None) -> TenantPolicy | None:
    policies = world.policy
    return None if policies is None or principal is None else policies.tenants.get(principal.tenant)
