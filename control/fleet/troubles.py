"""What a worker's controls could not do, and when, on its way to control, which puts it on record.

Told as soon as it begins where control is heard; else when it is heard again, with the times. What is kept meanwhile is
bounded: of one control, times that follow each other are told as one.
"""

from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

from control.degraded import Episodes
from control.fleet.frames import Message

KIND: Final = "troubles"
MAX_WAITING: Final = 64

type _Row = list[str | None]
"""Control, why, since, until (None: it goes on)."""


class Troubles:
    """Those of one worker. Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._now: dict[str, tuple[str, datetime]] = {}
        self._waiting: list[_Row] = []

    def begins(self, control: str, why: str) -> None:
        """The control cannot do its work from now on."""
        with self._lock:
            self._now[control] = why, datetime.now(UTC)
            self._wait([control, why, self._now[control][1].isoformat(), None])

    def ends(self, control: str) -> None:
        """It can."""
        with self._lock:
            if (known := self._now.pop(control, None)) is not None:
                why, since = known
                self._wait([control, why, since.isoformat(), datetime.now(UTC).isoformat()])

    def was(self, control: str, why: str, since: datetime) -> None:
        """It could not, from then to now."""
        with self._lock:
            self._wait([control, why, since.isoformat(), datetime.now(UTC).isoformat()])

    def again(self) -> None:
        """Whoever hears now has heard nothing yet: what goes on is told anew."""
        with self._lock:
            for control, (why, since) in self._now.items():
                self._wait([control, why, since.isoformat(), None])

    def next_message(self) -> Message | None:
        """Everything that waits, as a message; None when nothing does."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        return Message(KIND, {"rows": rows}) if rows else None

    def _wait(self, row: _Row) -> None:
        if len(self._waiting) >= MAX_WAITING:
            for before in self._waiting:
                if before[0] == row[0]:
                    before[3] = row[3]
                    return
            self._waiting.pop(0)
        self._waiting.append(row)


def tell(message: Message, node: str, episodes: Episodes) -> None:
    """What a message of `next_message` carries is known to `episodes`. Raises as a message of another shape does."""
    rows: list[list[Any]] = message.body["rows"]
    for control, why, since, until in rows:
        episodes.begins(str(control), node, str(why), datetime.fromisoformat(since))
        if until is not None:
            episodes.ends(str(control), node, datetime.fromisoformat(until))
