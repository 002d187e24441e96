"""Connections to origins, shared by the calls of one route and by no others."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from proxy.egress.dialling import Dialler
from proxy.egress.errors import UpstreamUnreachable
from proxy.egress.resolver import Resolver
from proxy.egress.route import PoolLimits, Route
from proxy.egress.tls import public_context
from proxy.egress.upstream import Upstream
from proxy.http.limits import HttpLimits


class Pool:
    """Opens, lends and keeps connections, on one event loop.

    What `acquire` returned belongs to the caller until `release` or `abort` of it; exactly one of them has to follow,
    also when the caller is cancelled. `release` keeps the connection only if it stands exactly between two exchanges.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        limits: PoolLimits | None = None,
        http_limits: HttpLimits | None = None,
        own_listeners: Iterable[tuple[str, int]] = (),
    ) -> None:
        """`own_listeners`: address and port of everything this process listens on."""
        self._limits = limits or PoolLimits()
        self._dialler = Dialler(resolver, self._limits, http_limits or HttpLimits(), frozenset(own_listeners))
        public_context()  # read now, so that no call's loop stands still for it
        self._idle: dict[Route, list[Upstream]] = {}
        self._resting: dict[Upstream, None] = {}
        """All idle connections, longest idle first."""
        self._open: set[Upstream] = set()
        self._taken: Counter[str] = Counter()
        """Connections open or being opened, by tenant."""
        self._total = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open_count(self) -> int:
        """Connections open or being opened."""
        return self._total

    @property
    def idle_count(self) -> int:
        """Connections waiting for another exchange."""
        return len(self._resting)

    def rested(self, route: Route) -> bool:
        """True where `acquire` need not dial, most likely."""
        return bool(self._idle.get(route))

    async def acquire(self, route: Route, *, fresh: bool = False) -> Upstream:
        """A connection for one exchange: a rested one that is still sound, else a new one. Raises UpstreamError.

        `fresh`: a new one in any case.
        """
        idle = None if fresh else self._idle.get(route)
        while idle:
            upstream = idle[-1]
            self._unrest(upstream)
            if upstream.healthy:
                upstream.reused = True
                return upstream
            upstream.abort()
        self._take(route.tenant)
        try:
            upstream = await self._dialler.open(route)
        except BaseException:  # also cancellation: the place must not be lost
            self._give_back(route.tenant)
            raise
        if upstream.lost or self._closed:
            upstream.abort()
            self._give_back(route.tenant)
            raise UpstreamUnreachable("the origin closed the connection at once")
        upstream.on_lost = self._on_lost
        self._open.add(upstream)
        return upstream

    def release(self, upstream: Upstream) -> None:
        """The caller is done with the connection: it is kept for the route's next call, or closed."""
        now = asyncio.get_running_loop().time()
        limits = self._limits
        idle = self._idle.setdefault(upstream.route, [])
        if (
            self._closed
            or not upstream.reusable
            or now - upstream.opened_at > limits.max_age_seconds
            or len(idle) >= limits.max_idle_per_route
            or limits.max_idle == 0
        ):
            if not idle:
                del self._idle[upstream.route]
            # An incomplete exchange is cut, so that the origin notices; a complete one is closed in order.
            if upstream.response_complete:
                upstream.close()
            else:
                upstream.abort()
            return
        if len(self._resting) >= limits.max_idle:
            self._evict(next(iter(self._resting)))
        upstream.rest()
        self._idle.setdefault(upstream.route, idle).append(upstream)
        self._resting[upstream] = None
        if self._reaper is None:
            self._reaper = asyncio.get_running_loop().call_later(limits.idle_seconds, self._reap)

    def close(self) -> None:
        """Cut every connection, in use or not, and open no more."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        for upstream in tuple(self._open):
            upstream.abort()

    def _take(self, tenant: str) -> None:
        limits = self._limits
        if self._closed:
            raise UpstreamUnreachable("shutting down")
        if self._taken[tenant] >= limits.max_open_per_tenant:
            self._make_room(next((known for known in self._resting if known.route.tenant == tenant), None), tenant)
        if self._total >= limits.max_open:
            self._make_room(next(iter(self._resting), None), tenant)
        self._taken[tenant] += 1
        self._total += 1

    def _make_room(self, victim: Upstream | None, tenant: str) -> None:
        if victim is None:
            raise UpstreamUnreachable(
                "too many connections to origins are open",
                f"{self._total} open, {self._taken[tenant]} of tenant {tenant}",
            )
        self._evict(victim)

    def _evict(self, upstream: Upstream) -> None:
        self._unrest(upstream)
        self._forget(upstream)
        upstream.close()

    def _give_back(self, tenant: str) -> None:
        self._total -= 1
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]

    def _forget(self, upstream: Upstream) -> None:
        if upstream in self._open:
            self._open.discard(upstream)
            self._give_back(upstream.route.tenant)

    def _unrest(self, upstream: Upstream) -> None:
        if upstream in self._resting:
            del self._resting[upstream]
            idle = self._idle[upstream.route]
            idle.remove(upstream)
            if not idle:
                del self._idle[upstream.route]

    def _on_lost(self, upstream: Upstream) -> None:
        self._unrest(upstream)
        self._forget(upstream)

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        self._reaper = None
        oldest_kept = loop.time() - self._limits.idle_seconds
        for upstream in tuple(self._resting):
            if upstream.idle_since > oldest_kept:
                due = upstream.idle_since + self._limits.idle_seconds
                self._reaper = loop.call_at(due, self._reap)
                return
            self._evict(upstream)
