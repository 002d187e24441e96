"""The pool's key for each connection of the policy; made once, because hashing it is not free."""

from typing import Final

from proxy.egress.route import Route
from rules.policy.compile import Connection

_MAX_ROUTES: Final = 4096


class Routes:
    """Knows the routes of the connections in use."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Connection, Route]] = {}

    def route_for(self, connection: Connection, secret_version: int) -> Route:
        """The route to a connection's destination with this version of its secret."""
        known = self._known.get(id(connection))
        if known is not None and known[0] is connection and known[1].secret_version == secret_version:
            return known[1]
        route = Route(
            tenant=connection.tenant,
            connection=connection.name,
            secret_version=secret_version,
            scheme=connection.scheme,
            host=connection.host,
            port=connection.port,
            dial=connection.dial,
            networks=connection.networks,
            ca_pem=connection.ca_pem,
            ca_added=connection.ca_added,
            denied_keys=connection.denied_keys,
        )
        if len(self._known) >= _MAX_ROUTES:
            self._known.clear()
        self._known[id(connection)] = (connection, route)
        return route
