"""The scripted origin on a thread of its own, for tests that run the product's commands and wait for them.

with OriginThread(("saas.test", "git.test"), script) as service:
    service.origin.requests ...                       # read freely: appended to by one thread only
"""

import asyncio
import threading
from types import TracebackType
from typing import Self

from tests.worlds.authority import Authority
from tests.worlds.origin import Origin, Request, Script


class OriginThread:
    """One TLS origin for some names (none: plain HTTP), and the authority that vouches for them."""

    def __init__(self, names: tuple[str, ...], script: Script | None = None) -> None:
        self.authority = Authority()
        leaf = self.authority.issue(*names) if names else None
        self.origin = Origin(leaf, script)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.origin.__aenter__(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.origin.__aexit__(None, None, None), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def port(self) -> int:
        return self.origin.port

    def seen(self, prefix: str = "/") -> list[Request]:
        """The requests so far whose target begins so."""
        return [request for request in self.origin.requests if request.target.startswith(prefix)]
