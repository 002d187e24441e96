"""Steps 1 and 2: what a request asks for, as one destination that all its parts agree on, and who asks.

a tunnel's request     CONNECT host, TLS name and Host header agree; the credential is CONNECT's
an absolute target     plain http through the forward door; the credential is Proxy-Authorization
a base-URL request     /to/<connection>/...: which connection a name means depends on who asks, so that comes first
"""

from credentials.principal import Principal
from proxy.authorization import proxy_token
from proxy.base_url import check_own_host, find_credential, is_base_url, parse_base_target
from proxy.exchange import Exchange
from proxy.http.errors import RequestRefused
from proxy.http.target import Target, resolve_target
from proxy.verifying import Verifier
from proxy.world import World
from rules.codes import Code


class Admission:
    """Admits requests and identifies who sent them."""

    def __init__(self, world: World, names: tuple[str, ...], verifier: Verifier) -> None:
        """`names`: the DNS names by which agents reach this gate."""
        self._world = world
        self._names = names
        self._verifier = verifier

    def admit(self, exchange: Exchange) -> Target | None:
        """(1) The destination; None for a base-URL request, whose destination `identify` gives.

        Raises `RequestRefused`.
        """
        tunnel = exchange.tunnel
        if tunnel is None and is_base_url(exchange.head):
            return None
        target = resolve_target(exchange.head, tunnel=None if tunnel is None else (tunnel.host, tunnel.port))
        if tunnel is None and target.scheme != "http":
            raise RequestRefused(Code.PROTOCOL_REFUSED, "https goes through CONNECT, not through an absolute target")
        return target

    async def identify(self, exchange: Exchange, target: Target | None) -> tuple[Target, Principal]:
        """(2) Who asks, by the credential that this very request stands on.

        Raises `CredentialRejected`; `RequestRefused` for a base-URL request with no destination, and under overload.
        """
        if target is None:
            return await self._identify_base_url(exchange)
        token = exchange.tunnel.token if exchange.tunnel is not None else proxy_token(exchange.head.headers)
        return target, await self._verifier.verify(token)

    async def _identify_base_url(self, exchange: Exchange) -> tuple[Target, Principal]:
        exchange.presented = presented = find_credential(exchange.head)
        exchange.principal = principal = await self._verifier.verify(presented.token)
        check_own_host(exchange.head.host, self._names)
        wanted = parse_base_target(presented.target)
        policy_set = self._world.policy
        policy = None if policy_set is None else policy_set.tenants.get(principal.tenant)
        if policy is None:
            raise RequestRefused(Code.NO_POLICY, "no policy is active for this tenant")
        connection = policy.connections.get(wanted.connection)
        if connection is None:
            raise RequestRefused(Code.DESTINATION_UNKNOWN, "this tenant has no connection of that name")
        target = Target(connection.scheme, connection.host, connection.port, wanted.path, wanted.query)
        return target, principal
