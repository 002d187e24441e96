"""What a worker's calls were decided on, on its way to control, which seals and keeps it. No call waits for that."""

from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

from control.fleet.frames import Message
from control.inputs.kept import MAX_WAITING, MAX_WAITING_BYTES
from proxy.deciding import Decided

KIND: Final = "inputs"
_BATCH: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024


class ForwardedInputs:
    """Implements `proxy.deciding.InputsSink`. `keep` is for the gate's thread, everything else for the channel's."""

    def __init__(self) -> None:
        self._waiting: deque[Decided] = deque()
        self._came_bytes = 0
        self._went_bytes = 0
        self._lost = 0
        self._told_lost = 0

    def keep(self, decided: Decided) -> None:
        """Taken over, or counted as lost."""
        size = len(decided.inputs)
        if len(self._waiting) >= MAX_WAITING or self._came_bytes - self._went_bytes + size > MAX_WAITING_BYTES:
            self._lost += 1
            return
        self._came_bytes += size
        self._waiting.append(decided)

    def next_message(self) -> Message | None:
        """The oldest that wait, as a message; None when none does."""
        rows: list[list[Any]] = []
        blobs: list[bytes] = []
        size = 0
        while self._waiting and len(rows) < _BATCH and size < _BATCH_BYTES:
            one = self._waiting.popleft()
            rows.append([one.call, one.tenant, one.account, one.at.isoformat(), one.policy, one.code, one.rule])
            blobs.append(one.inputs)
            size += len(one.inputs)
        self._went_bytes += size
        lost, self._told_lost = self._lost - self._told_lost, self._lost
        if not rows and not lost:
            return None
        return Message(KIND, {"rows": rows, "lost": lost}, tuple(blobs))


def decided_of(message: Message) -> list[Decided]:
    """What a message of `next_message` carries."""
    return [
        Decided(call, tenant, account, datetime.fromisoformat(at).astimezone(UTC), policy, code, rule, inputs)
        for (call, tenant, account, at, policy, code, rule), inputs in zip(
            message.body["rows"], message.blobs, strict=True
        )
    ]
