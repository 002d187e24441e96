"""What operators ask of the authority that agents trust, and what they are shown of it."""

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """One step in the life of an authority."""

    CREATE = "create"
    """The first one, before anything runs."""
    BEGIN = "begin"
    """A next one is made, and trusted from now on by whoever asks whom to trust. Nothing is signed with it yet."""
    SWITCH = "switch"
    """The next one signs; the key of the one before is destroyed, its certificate is still handed out."""
    FINISH = "finish"
    """The one before is handed out no more."""
    CANCEL = "cancel"
    """The next one is dropped; only possible while it has not signed."""


@dataclass(frozen=True, slots=True)
class RotationAsked:
    """Which step, and for CREATE and BEGIN what the new authority may vouch for."""

    step: Step
    constrain: bool = False
    """To the hosts of the active policy and the gate's own names."""
    permit: tuple[str, ...] = ()
    """To these domains as well; alone they constrain too."""
    overlap_seconds: int = 7 * 86_400
    """SWITCH is refused before the next one has been handed out for so long."""
    now: bool = False
    """SWITCH all the same."""


@dataclass(frozen=True, slots=True)
class AuthorityShown:
    """One authority. All of it may be published."""

    role: str
    """`signing`, `next` or `previous`."""
    subject: str
    sha256: str
    """Fingerprint of the certificate."""
    spki_sha256: str
    """Of its public key, in base64 as pins are written."""
    key: str
    not_before: str
    not_after: str
    seconds_left: int
    permitted: tuple[str, ...] | None
    """What it may vouch for; None: everything."""
    pem: str


@dataclass(frozen=True, slots=True)
class AuthoritiesShown:
    """Everything agents have to trust, the signing one first."""

    authorities: tuple[AuthorityShown, ...]
    outside: tuple[str, ...]
    """Hosts of the policy that the signing authority may not vouch for: calls to them are refused."""
    done: str
    """What this request did; empty for a question."""
