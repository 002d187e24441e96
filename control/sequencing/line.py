"""One connection to the sequencer, as asyncio sees it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from control.sequencing.wire import FrameBad, Frames

logger = logging.getLogger("exeat.sequencer")


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, heard: "Callable[[Line, dict[str, Any]], None]") -> None:
        self._heard = heard
        self._frames = Frames()
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.taken: int | None = None
        self.full = False
        self.drained: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio says."""
        self.transport = cast("asyncio.Transport", transport)

    def write(self, data: bytes) -> None:
        """The bytes are on their way."""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """What was said is passed on; a sequencer that speaks otherwise is none."""
        try:
            for message in self._frames.feed(data):
                if "welcome" in message and not self.welcome.done():
                    self.welcome.set_result(message)
                else:
                    self._heard(self, message)
        except (FrameBad, KeyError, ValueError, TypeError, IndexError) as error:
            logger.error("the sequencer's answer is not understood: %s", error)
            self.transport.abort()

    def pause_writing(self) -> None:
        """The sequencer does not read as fast; the rest waits."""
        self.full = True

    def resume_writing(self) -> None:
        """As before."""
        self.full = False
        self.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Both who waits for the welcome and who waits for the end are told."""
        if not self.welcome.done():
            self.welcome.set_exception(exc or ConnectionResetError("the sequencer closed the connection"))
        if not self.over.done():
            self.over.set_result(None)
