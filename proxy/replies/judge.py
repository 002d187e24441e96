"""A reply filter at work, on the proxy's event loop and beside it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy.live import LiveCall
from proxy.replies.reply_filter import ReplyFilter

_JUDGED_AT_ONCE: Final = 1024
"""Bytes of an answer that its filter reads on the loop itself; more would keep the others waiting. It is not the
reading: some dozens of tools fit in here, and the rules are asked about each."""


class Judge:
    """An answer's filter at work: what is large is judged beside the loop, and what it holds is counted."""

    def __init__(self, filter_: ReplyFilter, live: LiveCall, judges: ThreadPoolExecutor) -> None:
        self.filter = filter_
        self._live = live
        self._judges = judges
        self._before = live.held.count

    async def feed(self, data: bytes) -> bytes:
        """As the filter's. Raises `RequestRefused` where there is no room for what it holds."""
        waiting = self.filter.held + len(data)
        self._live.held.resize(self._before + waiting)
        if not self.filter.streams or waiting <= _JUDGED_AT_ONCE:
            given = self.filter.feed(data)
        else:
            given = await self._aside(self.filter.feed, data)
        self._live.held.resize(self._before + self.filter.held)
        return given

    async def end(self) -> bytes:
        """As the filter's."""
        return self.filter.end() if self.filter.held <= _JUDGED_AT_ONCE else await self._aside(self.filter.end)

    async def _aside[*Given](self, work: Callable[[*Given], bytes], *given: *Given) -> bytes:
        self._live.turn.give_back()
        done = await asyncio.get_running_loop().run_in_executor(self._judges, work, *given)
        await self._live.turn.take(first=True)
        return done
