"""Names to addresses, in threads of our own, remembered briefly.

`getaddrinfo` blocks and cannot be cancelled: it runs in a bounded pool, so a dead name server costs threads that
nobody else needs. One look-up a name is in flight, whoever asks; a waiter that gives up cancels nobody else's.
Nothing here judges an address: the pool vets every answer at every dial, because connections differ in what they may
reach.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy.egress.errors import UpstreamTimeout, UpstreamUnreachable

Lookup = Callable[[str, int], tuple[str, ...]]
"""A blocking look-up of a name and port: every address, in the system's order of preference. Raises OSError."""

MAX_ADDRESSES: Final = 32
"""Answers beyond this many are a fault or an attack; vetting has to see all of them. Big CDNs answer with 8 to 16."""


def system_lookup(host: str, port: int) -> tuple[str, ...]:
    """What this machine's resolver says: hosts file, DNS, in RFC 6724 order."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Resolver:
    """Resolves for one event loop. `close()` it when the loop ends."""

    def __init__(
        self,
        lookup: Lookup = system_lookup,
        *,
        timeout_seconds: float = 5.0,
        ttl_seconds: float = 15.0,
        max_names: int = 1024,
        threads: int = 8,
    ) -> None:
        """`timeout_seconds` 5 as glibc's own per-query time-out. `ttl_seconds`: getaddrinfo tells no TTL; SaaS names
        move at 30 to 60 s, and a stale answer is vetted and verified by TLS like a fresh one."""
        self._lookup = lookup
        self._timeout_seconds = timeout_seconds
        self._ttl_seconds = ttl_seconds
        self._max_names = max_names
        self._max_pending = threads * 4
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="exeat-resolve")
        self._known: OrderedDict[tuple[str, int], tuple[float, tuple[str, ...]]] = OrderedDict()
        self._pending: dict[tuple[str, int], asyncio.Future[tuple[str, ...]]] = {}

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """Every address of the name, at least one; not vetted. Raises UpstreamUnreachable or UpstreamTimeout."""
        loop = asyncio.get_running_loop()
        key = (host, port)
        known = self._known.get(key)
        if known is not None and known[0] > loop.time():
            return known[1]
        pending = self._pending.get(key)
        if pending is None:
            pending = self._start(loop, key)
        try:
            # Shielded: a waiter's time-out or cancellation must not take the answer from the others.
            async with asyncio.timeout(self._timeout_seconds):
                addresses = await asyncio.shield(pending)
        except TimeoutError:
            raise UpstreamTimeout("the name could not be resolved in time", f"{host}: no answer") from None
        except (OSError, UnicodeError) as error:
            raise UpstreamUnreachable("the name does not resolve", f"{host}: {error}") from None
        if not 0 < len(addresses) <= MAX_ADDRESSES:
            raise UpstreamUnreachable("the name does not resolve", f"{host}: {len(addresses)} addresses")
        return addresses

    def _start(self, loop: asyncio.AbstractEventLoop, key: tuple[str, int]) -> asyncio.Future[tuple[str, ...]]:
        if len(self._pending) >= self._max_pending:
            raise UpstreamUnreachable("too many names are being resolved", "every resolver thread is busy")
        future = loop.run_in_executor(self._executor, self._lookup, *key)
        self._pending[key] = future
        future.add_done_callback(lambda done: self._finish(loop, key, done))
        return future

    def _finish(
        self, loop: asyncio.AbstractEventLoop, key: tuple[str, int], done: asyncio.Future[tuple[str, ...]]
    ) -> None:
        del self._pending[key]
        if done.cancelled() or done.exception() is not None:
            return
        if 0 < len(done.result()) <= MAX_ADDRESSES:
            self._known[key] = (loop.time() + self._ttl_seconds, done.result())
            self._known.move_to_end(key)
            if len(self._known) > self._max_names:
                self._known.popitem(last=False)

    def forget(self, host: str, port: int) -> None:
        """The next dial asks again; called when no remembered address could be reached."""
        self._known.pop((host, port), None)

    def close(self) -> None:
        """No further look-up starts. Threads stuck in one are not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
