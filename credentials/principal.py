"""Who is calling: the identity that a verified credential proves."""

from dataclasses import dataclass
from typing import Final

NO_TENANT: Final = "-"
"""The reserved tenant of callers that have proven none."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A service account acting in one run, as proven by one verified credential.

    Every field comes from signed claims; nothing an agent says about itself is in here.
    """

    tenant: str
    account: str
    workflow: str
    run: str
    credential: str
    """The credential's unique id (`jti`)."""
    epoch: int
    """The revocation epoch in force when the credential was issued; a later one of any of its targets kills it."""
    issued_at: int
    """Seconds since the Unix epoch, UTC."""
    expires_at: int
    """Seconds since the Unix epoch, UTC; the credential is dead from this second on."""
