"""What can go wrong with the state, by what the catcher must do."""


class StateError(Exception):
    """Base. `fix` is one sentence for the operator, or empty."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message if not fix else f"{message}. {fix}")
        self.message = message
        self.fix = fix


class StateLocked(StateError):
    """Another process holds the state. Ask that process, over its operators' socket."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class StateInvalid(StateError):
    """The folder must not be used as it is. Refuse to start; the operator follows `fix`."""


class StateRefused(StateError):
    """The answer is no, and nothing has changed. `code` says why, for programs."""

    def __init__(self, code: str, message: str, fix: str = "") -> None:
        super().__init__(message, fix)
        self.code = code


class StateUnavailable(StateError):
    """The change could not be made durable or recorded; it is not in force. Report it and look at disk and ledger."""


class RecordImpossible(StateUnavailable):
    """The ledger's format does not admit the record: a defect of this program. Report it."""


class RevocationIncomplete(StateUnavailable):
    """The revocation IS in force in this process, but is not stored or not recorded. Tell the operator both."""

    def __init__(self, epoch: int, *, stored: bool, recorded: bool, cause: str) -> None:
        missing = " and ".join(
            text for text, done in (("stored", stored), ("recorded in the ledger", recorded)) if not done
        )
        super().__init__(
            f"epoch {epoch} is in force in this process, but could not be {missing}: {cause}",
            "Do not restart before it is repaired, and revoke again afterwards.",
        )
        self.epoch = epoch
        self.stored = stored
        self.recorded = recorded
