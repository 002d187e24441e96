"""One error for a value that a policy may not contain."""


class ValueInvalid(ValueError):
    """The value cannot be used; the loader turns it into a `PolicyError` at the value's place."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
