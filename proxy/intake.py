"""Request bodies as they come in: held, decoded and read, or begun as an upload, as the rules of their call say."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from proxy.config import GateConfig
from proxy.http.decoding import decode_content
from proxy.journey import Journey
from proxy.live import LiveCall
from proxy.upload import begin_upload
from rules.bodies import Handling
from rules.call import Call, Facts
from rules.trial import read

_READERS: Final = 1
"""Threads that decode and read bodies: Python runs one at a time, and a second would only keep the ledger's waiting."""
_READ_AT_ONCE: Final = 16 * 1024
"""Bytes of a body that are read on the loop itself; a longer one would keep the others waiting."""


class Intake:
    """Takes bodies in. All methods belong to the proxy's event loop."""

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="body")

    def close(self) -> None:
        """No body is read any more; threads that still read one end by themselves."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def take(self, journey: Journey, live: LiveCall, handling: Handling) -> None:
        """The body is here, as it will be sent; or it is one that is streamed later. Raises `RequestRefused`."""
        if journey.inspected:
            return
        exchange, most = journey.exchange, self._config.max_held_body_bytes
        journey.upload = begin_upload(exchange, handling, most)
        if journey.upload is not None:
            return
        journey.body = await exchange.hold_body(most, live.turn, live.held)
        if handling.inspect:
            await self._decode(journey, live)

    async def read(self, journey: Journey, live: LiveCall, call: Call, facts: Facts) -> Facts:
        """The body is here, as it will be sent, and these are the facts with what it says. Raises `RequestRefused`."""
        live.enter_phase("body", self._config.timeouts.body_idle)
        journey.body = await journey.exchange.hold_body(self._config.max_held_body_bytes, live.turn, live.held)
        await self._decode(journey, live)
        body = journey.body
        types = tuple(value for name, value in journey.exchange.head.headers if name == b"content-type")
        if len(body) <= _READ_AT_ONCE:
            return read(call, facts, types, body)
        return await self.aside(read, call, facts, types, body)

    async def _decode(self, journey: Journey, live: LiveCall) -> None:
        """The body is what its one Content-Encoding stands for, and will be sent so."""
        journey.inspected = True
        coding = journey.exchange.head.get(b"content-encoding")
        if coding is None or not journey.body:
            return
        # A second of it was refused with the head; a thread, because a bomb takes its time.
        most = self._config.max_held_body_bytes
        live.held.resize(len(journey.body) + most)  # what it may become
        journey.body = await self.aside(decode_content, coding, journey.body, most)
        live.held.resize(len(journey.body))

    async def aside[*Given, Found](self, work: Callable[[*Given], Found], *given: *Given) -> Found:
        """Done on the thread that reads bodies: not on the loop, and not on those that the ledger waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *given)
