"""The connection that is up, and the breaker: closed (asked), open (nobody asks), half-open (one probe asks).

One task dials; callers never do. A connection that was lost is dialled again at once, and callers wait for that one
attempt; after it has failed they are refused without waiting, until a probe succeeds.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Final, Literal

import hiredis

from control.stores.redis.place import Place, RedisRefused
from control.stores.redis.scripts import ALL
from control.stores.redis.wire import Crowded, Lost, Wire

logger = logging.getLogger("exeat.limits")

type BreakerState = Literal["closed", "open", "half-open"]

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
UNFIT_PAUSE_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 1.0
"""A connection that lasted less is not dialled again at once."""


class Down(Exception):
    """There is no connection; nothing was sent."""


class Link:
    """Keeps one wire to the server. Belongs to the loop it was started on."""

    def __init__(
        self,
        place: Place,
        on_change: Callable[[], None],
        *,
        connect_seconds: float,
        answer_seconds: float,
    ) -> None:
        self._place = place
        self._on_change = on_change
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn: asyncio.Future[None] | None = None
        """The attempt that callers wait for."""
        self.state: BreakerState = "half-open"
        self.last_error = ""
        self.refused: RedisRefused | None = None
        """The server was reached and is not fit for use."""

    def start(self) -> None:
        """Dials until `stop`."""
        self._turn = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """The connection is closed and nobody dials."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._end_turn()
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.abort("closed by us")
            await asyncio.wait((wire.lost,))
        self.state = "open"

    @property
    def up(self) -> Wire | None:
        """The wire, if there is one."""
        return self._wire

    async def wire(self) -> Wire:
        """The wire, or `Down`: at once when the server is known to be down, else after one attempt to dial."""
        if self._wire is None and self._turn is not None:
            await asyncio.wait((self._turn,))
        if self._wire is None:
            raise Down(self.last_error or "not connected")
        return self._wire

    async def _run(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(self._connect_seconds):
                    wire = await self._dial()
            except RedisRefused as refused:
                failures += 1
                self._failed(str(refused), refused)
                await asyncio.sleep(UNFIT_PAUSE_SECONDS * random.uniform(0.5, 1))  # noqa: S311 - no secret
                self._set("half-open")
                continue
            except (OSError, TimeoutError, UnicodeError, Lost, Crowded) as error:
                failures += 1
                self._failed(f"{self._place}: {_reason(error, self._connect_seconds)}", None)
                # Each process waits for another while, so that a server that comes back is not met by all at once.
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
                self._set("half-open")
                continue
            self._wire, self.refused = wire, None
            up_since = loop.time()
            self._end_turn()
            self._set("closed")
            why = await wire.lost
            self._wire = None
            self.last_error = f"{self._place}: {why}"
            failures = 0 if loop.time() - up_since >= STEADY_SECONDS else failures + 1
            if failures < 2:
                self._turn = loop.create_future()
                self._set("half-open")
            else:
                self._failed(self.last_error, None)
                await asyncio.sleep(LONGEST_PAUSE_SECONDS * random.uniform(0.05, 0.2))  # noqa: S311 - no secret
                self._set("half-open")

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Nobody dials any more: callers are refused, never left waiting."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("nobody dials the shared limits any more: a defect", exc_info=error)
            self._failed(f"a defect: {type(error).__name__}", None)

    def _failed(self, why: str, refused: RedisRefused | None) -> None:
        self.last_error, self.refused = why, refused
        self._end_turn()
        self._set("open")

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _set(self, state: BreakerState) -> None:
        self.state = state
        self._on_change()

    async def _dial(self) -> Wire:
        loop, place = asyncio.get_running_loop(), self._place
        wire = Wire(self._answer_seconds)
        try:
            if place.path:
                await loop.create_unix_connection(lambda: wire, place.path)
            else:
                name = place.host if place.tls is not None else None
                await loop.create_connection(lambda: wire, place.host, place.port, ssl=place.tls, server_hostname=name)
            await self._greet(wire)
        except BaseException:
            wire.abort("not greeted")
            raise
        return wire

    async def _greet(self, wire: Wire) -> None:
        """Lets us in and looks at what is there. Raises `RedisRefused` for a server that must not be used."""
        place = self._place
        asked: list[asyncio.Future[Any]] = []
        if place.password is not None:
            user = (place.user,) if place.user else ()
            asked.append(wire.ask("AUTH", *user, place.password.reveal()))
        if place.database:
            asked.append(wire.ask("SELECT", place.database))
        info = wire.ask("INFO")
        asked.extend(wire.ask("SCRIPT", "LOAD", script.text) for script in ALL)
        for answer in asked:
            _accepted(await answer, place)
        facts = _facts(_accepted(await info, place))
        if facts.get("loading") == "1":
            raise Lost("the server is loading its data")
        if facts.get("role") not in ("master", "primary"):
            raise Lost("the server is a replica")
        if (policy := facts.get("maxmemory_policy")) != "noeviction":
            raise RedisRefused(
                f"{place} may forget counters when memory is short (maxmemory-policy {policy})",
                "Set maxmemory-policy noeviction there.",
            )
        wire.run_id = facts.get("run_id", "").encode()
        if not wire.run_id:
            raise RedisRefused(f"{place} does not say which process it is (run_id)", "Allow the INFO command.")


def _accepted(reply: object, place: Place) -> object:
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        if text.startswith(("LOADING", "BUSY", "MASTERDOWN", "READONLY", "ERR max number of clients")):
            raise Lost(text)
        raise RedisRefused(f"{place} refuses us: {text}", "See docs/how-to/redis.md for what a user needs.")
    return reply


def _facts(info: object) -> dict[str, str]:
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _reason(error: BaseException, seconds: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"not reached within {seconds * 1000:.0f} ms"
    return str(error) or type(error).__name__
