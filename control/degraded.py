"""`Episodes`: when a control could not do its work, and when it could again, once on record for all that noticed.

A control is degraded while somebody says so: this process, asked twice a second, or a worker, which tells when it began
and ended. What follows each other closely is one episode:

- it begins with the first word of anybody, and is recorded at once, or as soon as anything can be recorded again;
- it ends when nobody has said so for `QUIET_SECONDS`; its end is the moment of the last good word, and says how many
  times it came and went. An episode that follows within a minute of another waits twice as long, a minute at most:
  a control that flaps for a day costs two records a minute.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import Final, Protocol

from control.failure_modes import MODES
from control.state import State, StateUnavailable
from control.status_views import DegradedControl
from credentials.actor import SYSTEM, Actor
from ledger import Receipt

logger = logging.getLogger("exeat.degraded")

BEGIN: Final = "degraded.begin"
END: Final = "degraded.end"
LOOK_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 5.0
MOST_QUIET_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 60.0
"""An episode that begins so soon after the last one of its control is of the same trouble."""
MAX_NOTE: Final = 500

type Source = Callable[[], str | None]
"""Why a control cannot do its work now; None when it can. Does not block."""


class Recording(Protocol):
    """`State` as far as it is needed here."""

    def record_act(self, actor: Actor, act: str, detail: Mapping[str, str], tenant: str = "-") -> Receipt:
        """See `State.record_act`."""
        ...


@dataclass(slots=True)
class _Episode:
    control: str
    since: datetime
    why: str
    quiet_seconds: float
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    now: dict[str, str] = field(default_factory=dict)
    """Who says so now, and why."""
    nodes: dict[str, None] = field(default_factory=dict)
    times: int = 0
    until: datetime | None = None
    quiet_from: float = 0.0
    begun: bool = False
    """Its beginning is on record."""


class Episodes:
    """Those of one installation. Any thread but for `keep`, which belongs to one loop."""

    def __init__(
        self,
        recording: Recording,
        sources: Mapping[str, Source],
        node: str = "control",
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._recording = recording
        self._sources = sources
        self._node = node
        self._quiet_seconds = quiet_seconds
        self._lock = Lock()
        self._open: dict[str, _Episode] = {}
        self._last: dict[str, tuple[float, float]] = {}
        """Control: when its last episode ended (`time.monotonic`), and how long that one had waited for quiet."""

    # what is said

    def begins(self, control: str, node: str, why: str, since: datetime | None = None) -> None:
        """The node says that the control cannot do its work, or says again why."""
        now = time.monotonic()
        with self._lock:
            episode = self._open.get(control)
            if episode is None:
                ended, waited = self._last.get(control, (-CLOSE_SECONDS, 0.0))
                again = now - ended < CLOSE_SECONDS
                quiet = min(MOST_QUIET_SECONDS, 2 * waited) if again else self._quiet_seconds
                episode = self._open[control] = _Episode(control, since or datetime.now(UTC), why, quiet)
            if since is not None and not episode.begun:
                episode.since = min(episode.since, since)
            if not episode.now and (episode.until is None or (since or datetime.now(UTC)) > episode.until):
                episode.times += 1  # else another node tells later of the same time
            episode.now[node] = why
            episode.nodes[node] = None

    def ends(self, control: str, node: str, at: datetime | None = None) -> None:
        """The node says that the control does its work. Nothing happens where it had not said anything else."""
        with self._lock:
            episode = self._open.get(control)
            if episode is not None and episode.now.pop(node, None) is not None:
                when = at or datetime.now(UTC)
                episode.until = when if episode.until is None else max(when, episode.until)
                episode.quiet_from = time.monotonic()

    def gone(self, node: str) -> None:
        """The node is no more: it says nothing from now on."""
        for control in tuple(self._open):
            self.ends(control, node)

    # what is known

    def now(self) -> tuple[DegradedControl, ...]:
        """The controls that cannot do their work now."""
        self._look()
        with self._lock:
            return tuple(
                DegradedControl(one.control, _stamp(one.since), next(iter(one.now.values())), tuple(sorted(one.now)))
                for one in sorted(self._open.values(), key=lambda one: one.control)
                if one.now
            )

    def gauges(self) -> dict[str, int]:
        """For the metrics: every control of the tuple, 1 for those that cannot do their work now."""
        degraded = {one.control for one in self.now()}
        return {mode.control: int(mode.control in degraded) for mode in MODES if mode.watched}

    # what is recorded

    async def keep(self) -> None:
        """Beginnings and ends reach the ledger."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
            try:
                await asyncio.to_thread(self.record)
            except StateUnavailable as error:
                logger.debug("an episode is recorded later: %s", error.message)

    def record(self) -> None:
        """What can be recorded is. Raises `StateUnavailable`; it is tried again at the next call."""
        now = time.monotonic()
        for episode in tuple(self._open.values()):
            if not episode.begun:
                self._recording.record_act(SYSTEM, BEGIN, self._beginning(episode))
                episode.begun = True
                logger.error("%s is degraded: %s", episode.control, episode.why)
            with self._lock:
                over = not episode.now and now - episode.quiet_from >= episode.quiet_seconds
                if over:
                    del self._open[episode.control]
                    self._last[episode.control] = (now, episode.quiet_seconds)
            if over:
                self._end(episode)

    def _end(self, episode: _Episode) -> None:
        try:
            self._recording.record_act(SYSTEM, END, _ending(episode))
        except StateUnavailable:
            with self._lock:  # it goes on in whatever began meanwhile
                newer = self._open.get(episode.control)
                if newer is not None:
                    episode.now, episode.times = newer.now, episode.times + newer.times
                    episode.nodes |= newer.nodes
                self._open[episode.control] = episode
            raise
        logger.warning("%s is whole again", episode.control)

    def _beginning(self, episode: _Episode) -> dict[str, str]:
        with self._lock:
            return {
                "control": episode.control,
                "episode": episode.id,
                "mode": _mode_of(episode.control),
                "nodes": _nodes(episode),
                "since": _stamp(episode.since),
                "why": _note(episode.why),
            }

    def _look(self) -> None:
        for control, source in self._sources.items():
            why = source()
            if why:
                self.begins(control, self._node, why)
            else:
                self.ends(control, self._node)


def sources_of(state: State, lost: Callable[[], int] = lambda: 0) -> dict[str, Source]:
    """What any process that has the state can tell of it. `lost`: inputs that were lost before they came here."""
    kept = state.inputs

    def all_lost() -> int:
        return lost() + kept.losses.queue + kept.losses.store

    return {
        "ledger": lambda: state.ledger.head().halted,
        "inputs": Losses(lambda: kept.losses.fault, all_lost, "decision inputs of calls"),
        "followed": lambda: state.following.fault,
        "stored": lambda: "; ".join(state.faults) or None,
    }


class Losses:
    """A `Source` of something that is lost now and then: degraded while a fault lasts, and when a count has risen."""

    def __init__(self, fault: Source, lost: Callable[[], int], what: str) -> None:
        """`lost` counts from 0."""
        self._fault = fault
        self._lost = lost
        self._what = what
        self._seen = 0
        self._until = 0.0

    def __call__(self) -> str | None:
        """Why, or None."""
        fault, lost, now = self._fault(), self._lost(), time.monotonic()
        if lost != self._seen:
            self._seen, self._until = lost, now + QUIET_SECONDS
        if fault is not None:
            return fault
        return f"{self._what} were lost, {lost} since the start" if now < self._until else None


def _mode_of(control: str) -> str:
    return next(mode.mode for mode in MODES if mode.control == control)


def _ending(episode: _Episode) -> dict[str, str]:
    return {
        "control": episode.control,
        "episode": episode.id,
        "nodes": _nodes(episode),
        "since": _stamp(episode.since),
        "times": str(episode.times),
        "until": _stamp(episode.until or datetime.now(UTC)),
    }


def _nodes(episode: _Episode) -> str:
    return _note(", ".join(sorted(episode.nodes)))


def _note(text: str) -> str:
    """On one printable line, as records want it."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_NOTE]


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
