"""What loading a policy gives: documents with their warnings, or every error at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rules.catalogue.document import ServiceDocument
    from rules.policy.models import TenantDocument
    from rules.prices.document import BookDocument


@dataclass(frozen=True, slots=True, order=True)
class PolicyError:
    """One thing an operator has to change before the policy can be applied."""

    file: str
    """As the operator named it, relative to the folder that was loaded."""
    line: int
    """From 1."""
    column: int
    """From 1."""
    message: str
    """What is wrong. Never quotes a value that could be a secret pasted into the wrong place."""
    fix: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}; {self.fix}"


@dataclass(frozen=True, slots=True, order=True)
class PolicyWarning:
    """Something that is valid and probably not meant."""

    file: str
    line: int
    column: int
    message: str
    fix: str
    name: str = ""
    """Which warning this is; permanent."""

    def __str__(self) -> str:
        named = f" [{self.name}]" if self.name else ""
        return f"{self.file}:{self.line}:{self.column}: warning: {self.message}; {self.fix}{named}"


class PolicyInvalid(Exception):
    """The policy cannot be used; the caller must keep the one it has and show `errors` to the operator."""

    def __init__(self, errors: tuple[PolicyError, ...]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file that was read, for the record of an activation."""

    name: str
    digest: str
    """`sha256:` and 64 hex digits over the file's bytes."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where something stands in a policy's files."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicySource:
    """A policy that was read whole and found valid."""

    documents: tuple["TenantDocument", ...]
    """One a tenant, ordered by tenant."""
    authorities: Mapping[str, Mapping[str, str]]
    """Tenant, and connection or `alerts/` and destination, to the PEM of the authority it is verified against."""
    files: tuple[PolicyFile, ...]
    """Every file read, policies and authorities, ordered by name."""
    warnings: tuple[PolicyWarning, ...]
    services: tuple["ServiceDocument", ...] = ()
    """What the policy adds to the catalogue, ordered by name."""
    books: tuple["BookDocument", ...] = ()
    """Price books that the policy brings, ordered by name."""
    cases: Mapping[str, tuple[Written, ...]] = field(default_factory=dict)
    """Tenant to where each of its tests stands, in their order."""
