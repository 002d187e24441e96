"""What each process of a fleet is told at its start."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Plan:
    """How the installation was asked to run: the same for all of its processes."""

    state: str
    names: tuple[str, ...]
    """Under which agents reach the TLS listeners."""
    chain: str | None
    key: str | None
    """The operator's own certificate for them."""
    unsafe: tuple[str, ...]
    health: tuple[str, int] | None
    workers: int
    redis: str
    """URL without a password."""
    redis_auth: str | None
    """File that holds `user:password`, or the password."""
    redis_ca: str | None
    drain_seconds: float

    def as_line(self) -> dict[str, Any]:
        """To be sent as JSON."""
        return asdict(self)

    @classmethod
    def of_line(cls, line: dict[str, Any]) -> Self:
        """What `as_line` wrote, read back from JSON."""
        values: dict[str, Any] = {}
        for one in fields(cls):
            value = line[one.name]
            values[one.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)
