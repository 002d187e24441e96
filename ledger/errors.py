"""What can go wrong, grouped by what the catcher must do."""


class LedgerError(Exception):
    """Base of everything this package raises on purpose."""


class LedgerUnavailable(LedgerError):
    """The record cannot be made durable now: halted, disk below its reserve, overloaded or closed.

    The caller must deny (503). Nothing that was submitted may be assumed recorded.
    """


class NoDescriptor(LedgerUnavailable):
    """No file could be opened just now: too many are open. Nothing was changed; the next attempt may succeed."""


class LedgerRefused(LedgerError):
    """The directory must not be used as it is: corrupt, held by another process, or older than its lock store.

    An operator has to look; starting anyway would hide it.
    """


class LedgerHeld(LedgerRefused):
    """Another process writes the log now."""


class RecordRefused(LedgerError):
    """The record breaks the format or the life-cycle; nothing was written.

    A defect of the caller, never of the agent: the caller must deny and report it.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
