"""The lock store: the newest checkpoint, kept outside the ledger's directory.

It is what notices a restored backup, a cloned machine and a second sequencer: a checkpoint is signed for others to see
only after it has replaced, atomically, the one before it.
"""

from threading import Lock
from typing import Protocol


class LockStore(Protocol):
    """One register. Writes must be durable once `compare_and_swap` returns True. Methods may raise OSError."""

    def load(self) -> bytes | None:
        """The newest checkpoint note, or None when there has never been one."""
        ...

    def compare_and_swap(self, old: bytes | None, new: bytes) -> bool:
        """True when the register held `old` and now holds `new`, durably; False, unchanged, when it held another."""
        ...


class MemoryLockStore:
    """A register in memory: for tests and measurements. It notices nothing across a restart of the process."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = value
        self._lock = Lock()

    def load(self) -> bytes | None:
        """As the protocol says."""
        return self.value

    def compare_and_swap(self, old: bytes | None, new: bytes) -> bool:
        """As the protocol says."""
        with self._lock:
            if self.value != old:
                return False
            self.value = new
            return True
