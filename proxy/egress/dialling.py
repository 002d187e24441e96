"""From a route to a verified connection: resolve, vet every answer, connect, check the peer, verify the certificate."""

import asyncio
import socket
from dataclasses import dataclass, field
from ipaddress import ip_address

from proxy.egress.addresses import AddressForbidden, vet_address
from proxy.egress.errors import UpstreamForbidden, UpstreamTimeout, UpstreamUnreachable
from proxy.egress.resolver import Resolver
from proxy.egress.route import PoolLimits, Route
from proxy.egress.tls import TlsContexts
from proxy.egress.upstream import Upstream
from proxy.http.limits import HttpLimits

_FORBIDDEN = "the name leads to an address that may not be dialled"


@dataclass(frozen=True, slots=True)
class Dialler:
    """Opens connections for one event loop. Cancelled or failed, it leaves no socket behind."""

    resolver: Resolver
    limits: PoolLimits
    http_limits: HttpLimits
    own_listeners: frozenset[tuple[str, int]] = frozenset()
    """Address and port of everything this process listens on; never dialled."""
    contexts: TlsContexts = field(default_factory=TlsContexts)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(65536)))

    async def open(self, route: Route) -> Upstream:
        """A connection ready for `begin`. Raises UpstreamError."""
        context = self.contexts.get(route.ca_pem, ca_added=route.ca_added) if route.scheme == "https" else None
        addresses, port = await self.vetted(route)
        sock = await self._connect(route, addresses, port)
        try:
            # The transport owns the socket from here on, also when this is cancelled.
            _, upstream = await asyncio.get_running_loop().create_connection(
                lambda: Upstream(route, sock, self.limits, self.http_limits, self.buffer), sock=sock
            )
        except BaseException:  # also cancellation: the socket must not outlive it
            sock.close()
            raise
        if context is None:
            return upstream
        try:
            async with asyncio.timeout(self.limits.handshake_timeout_seconds):
                await upstream.handshake(context, route.host)
        except TimeoutError:
            upstream.abort()
            raise UpstreamTimeout("the origin did not finish the TLS handshake in time") from None
        except BaseException:  # also cancellation
            upstream.abort()
            raise
        return upstream

    async def connect(self, route: Route) -> socket.socket:
        """A connected socket for who speaks no HTTP, and begins TLS itself. Raises UpstreamError."""
        addresses, port = await self.vetted(route)
        return await self._connect(route, addresses, port)

    async def vetted(self, route: Route) -> tuple[tuple[str, ...], int]:
        """The addresses to try, and the port. One forbidden answer forbids the name: rebinding mixes good with bad.

        Raises UpstreamError.
        """
        addresses: tuple[str, ...]
        if route.dial is not None:
            addresses, port, named = (route.dial[0],), route.dial[1], True
        else:
            port, named = route.port, False
            addresses = (route.host,) if _is_address(route.host) else await self.resolver.resolve(route.host, port)
        for address in addresses:
            try:
                vet_address(address, networks=route.networks, named=named)
            except AddressForbidden as error:
                raise UpstreamForbidden(_FORBIDDEN, f"{route.host}: {error}") from None
            if self._is_own(address, port):
                raise UpstreamForbidden(_FORBIDDEN, f"{route.host}: {address} port {port} is our own listener")
        return addresses, port

    def _is_own(self, address: str, port: int) -> bool:
        loopback = ip_address(address).is_loopback
        return any(port == own_port and (loopback or address == own) for own, own_port in self.own_listeners)

    async def _connect(self, route: Route, addresses: tuple[str, ...], port: int) -> socket.socket:
        """A connected socket whose peer is one of the vetted addresses."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.connect_timeout_seconds
        tried = addresses[: self.limits.max_addresses_tried]
        timed_out, errors = False, []
        for index, address in enumerate(tried):
            # An address that swallows packets must leave time for the others.
            share = (deadline - loop.time()) / (len(tried) - index)
            try:
                async with asyncio.timeout(share):
                    return await self._connect_one(address, port)
            except TimeoutError:
                timed_out = True
                errors.append(f"{address}: time-out")
            except OSError as error:
                errors.append(f"{address}: {error.strerror or error}")
        self.resolver.forget(route.host, port)
        operator_detail = f"{route.host} port {port}: {'; '.join(errors)}"
        if timed_out:
            raise UpstreamTimeout("the origin did not accept a connection in time", operator_detail)
        raise UpstreamUnreachable("the origin does not accept connections", operator_detail)

    async def _connect_one(self, address: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            peer, own = sock.getpeername()[0], sock.getsockname()[0]
            if ip_address(peer) != ip_address(address):
                raise UpstreamForbidden(_FORBIDDEN, f"dialled {address}, connected to {peer}")
            # Listening on a wildcard, our listener has every address of this machine: then both ends have the same one.
            if own == peer and any(port == own_port for _, own_port in self.own_listeners):
                raise UpstreamForbidden(_FORBIDDEN, f"{address} port {port} is our own listener")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except BaseException:  # also cancellation: the socket must not outlive it
            sock.close()
            raise
        return sock


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
