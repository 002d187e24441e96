"""The control side's own thread and event loop: no agent can keep it from carrying out a revocation."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any


class ControlThread:
    """One event loop on one thread of its own."""

    def __init__(self, name: str = "exeat-control") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """The loop runs."""
        self._thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, for `call_soon_threadsafe`."""
        return self._loop

    def submit[T](self, make: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """The coroutine runs on the control loop; wait for the future from another thread only."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop)

    def stop(self, seconds: float = 5.0) -> bool:
        """The loop has ended and its tasks are cancelled; False when it did not within the time."""
        if not self._thread.is_alive():
            return True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
