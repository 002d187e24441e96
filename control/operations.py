"""What an operator can do and learn, as one protocol with two implementations.

`control.local.Local` does it to a state this process holds; `control.remote.Remote` asks the running process to do it
over its operators' socket. Both return these same types and raise these same exceptions, so a command does not know
which of the two it speaks to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from control.alerts.views import AlertOperations
from control.authority_views import AuthoritiesShown, RotationAsked
from control.fleet_views import FleetOperations
from control.input_views import InputOperations
from control.limit_views import LimitOperations
from control.policy_views import PolicyActivation
from control.spending.views import SpendOperations
from control.status_views import Access, InFlightCall, Status
from control.suspension_views import SuspensionOperations
from credentials.revocation import Target
from credentials.secret import Secret


class OperationError(Exception):
    """An operation was not done. `cure` is one sentence that says how to mend it."""

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message)
        self.cure = cure


class Refused(OperationError):
    """The answer is no: the request was understood and will not be done as asked. Exit code 1."""


class WrongUse(OperationError):
    """The request makes no sense: an unknown name, a value out of bounds. Exit code 2."""


class Unavailable(OperationError):
    """Nobody can tell or do it now: no process, no ledger, no disk. Exit code 3; nothing has been changed."""


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One thing wrong with a policy, where, and how to mend it. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    fix: str


class PolicyRefused(Refused):
    """The policy is not valid; the one that was active still is."""

    def __init__(self, faults: tuple[PolicyFault, ...]) -> None:
        super().__init__(f"the policy has {len(faults)} error{'' if len(faults) == 1 else 's'}; nothing was applied")
        self.faults = faults


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy's files as their author wrote them: what is sent is what was read, once."""

    files: tuple[tuple[str, bytes], ...]
    """Relative path and content; the order is the loader's business."""
    single: bool
    """True when the policy is one file and not a folder."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the operator declares about a policy's origin; recorded as declared."""

    commit: str | None = None
    author: str | None = None
    approver: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyApplied:
    """A policy is active, on every node."""

    digest: str
    previous: str | None
    tenants: tuple[str, ...]
    accounts: int
    connections: int
    warnings: tuple[str, ...]
    secrets_missing: tuple[str, ...]
    """`tenant/name` of every secret a connection wants and nobody has set."""
    seq: int
    tests: int = 0
    """How many tests the policy has, and has passed."""
    opens: tuple[str, ...] = ()
    """In lines for people, as `rules.policy.diff` has them; so the next two."""
    closes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy that is, or was, the active one."""

    digest: str
    seq: int
    """Of the record that says it was activated; 0 where that is not known."""
    since: str
    """When it was activated, as in the ledger."""
    bundle: str
    """Canonical JSON; compile it with `PolicySet.from_bundle`."""


@dataclass(frozen=True, slots=True)
class SecretSet:
    """A secret is sealed in the state; `thumbprint` is safe to log."""

    tenant: str
    name: str
    version: int
    thumbprint: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SecretListed:
    """One secret's metadata. Its value never leaves the state this way."""

    tenant: str
    name: str
    version: int
    thumbprint: str
    set_at: str


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Which credential is wanted. `ttl_seconds` None takes the policy's default."""

    tenant: str | None
    """None where the policy has exactly one tenant."""
    account: str | None
    """None where the tenant has exactly one account."""
    workflow: str
    run: str | None
    """None makes a new run."""
    ttl_seconds: int | None


@dataclass(frozen=True, slots=True)
class TokenIssued:
    """A live credential. `token` is a secret: it is shown to the agent or kept by a relay, never logged."""

    token: Secret
    tenant: str
    account: str
    workflow: str
    run: str
    credential: str
    epoch: int
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class TokenInspected:
    """What a credential says and whether it is good here and now. Without a valid signature it says nothing."""

    good: bool
    code: str | None
    """Of the refusal an agent would get."""
    detail: str | None
    tenant: str | None
    account: str | None
    workflow: str | None
    run: str | None
    credential: str | None
    epoch: int | None
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation is in force here: refused from now on, and cut."""

    epoch: int
    seq: int
    """Number of the record that proves it."""
    nodes: int
    nodes_answered: int
    cut: int
    micros: int
    """From the request's arrival to the last cut."""
    in_flight: tuple[InFlightCall, ...]
    """Calls whose outcome is now indeterminate or aborted."""


@dataclass(frozen=True, slots=True)
class WouldRevoke:
    """What a revocation would stop. Nothing has been done."""

    epoch: int
    """The epoch in force now; the revocation would take the next."""
    runs: int
    """Runs that hold a live credential of the target."""
    credentials: int
    """Live credentials of the target, by the records of their issue."""
    in_flight: tuple[InFlightCall, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A target may be issued credentials again; those issued before stay dead."""

    epoch: int
    seq: int


class Act(StrEnum):
    """What else an operator's command may have on record. Its detail is what that command declares."""

    RUN_ISOLATED = "run.isolated"
    EGRESS_PROBED = "egress.probed"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Something is on record."""

    seq: int


class Operations(Protocol):
    """Everything an operator can do to one installation.

    Every method raises `Refused`, `WrongUse` or `Unavailable`; none of them leaves a half-done change behind.
    """

    inputs: InputOperations
    """What calls were decided on."""
    fleet: FleetOperations
    """The processes that serve agents."""
    alerts: AlertOperations
    """What somebody should hear of."""
    limits: LimitOperations
    """What is used of the limits now."""
    spending: SpendOperations
    """What was spent and achieved."""
    suspensions: SuspensionOperations
    """Whose calls are refused for now."""

    def status(self) -> Status:
        """What is installed, active and in flight."""
        ...

    def access(self) -> Access:
        """Where the door is and whom to trust there."""
        ...

    def apply_policy(self, text: PolicyText, provenance: Provenance) -> PolicyApplied:
        """The policy is validated as a whole, recorded and active; or the last good one still is (`PolicyRefused`)."""
        ...

    def policy_in_force(self, moment: datetime | None) -> PolicyInForce:
        """The policy that was active at a moment, now when None. `Refused` when none was."""
        ...

    def policy_history(self, limit: int) -> tuple[PolicyActivation, ...]:
        """The newest activations, the newest first."""
        ...

    def roll_back_policy(self, to: str | None, provenance: Provenance) -> PolicyApplied:
        """A policy that was active before is again: by digest or number; None: the one before this one."""
        ...

    def set_secret(self, tenant: str, name: str, secret: Secret) -> SecretSet:
        """The secret is sealed, recorded and used from the next call on."""
        ...

    def list_secrets(self) -> tuple[SecretListed, ...]:
        """Metadata of all secrets, by tenant and name."""
        ...

    def remove_secret(self, tenant: str, name: str) -> SecretListed:
        """The secret is gone; calls that need it are denied from now on."""
        ...

    def issue_token(self, request: TokenRequest) -> TokenIssued:
        """A new credential, recorded before it is handed out."""
        ...

    def renew_token(self, token: Secret) -> TokenIssued:
        """The next credential of the same run."""
        ...

    def inspect_token(self, token: Secret) -> TokenInspected:
        """Whose the credential is and whether it is good."""
        ...

    def tenant_of_credential(self, credential: str) -> str | None:
        """Whose a credential is, by its id or that of a renewal; None when it is not known."""
        ...

    def would_revoke(self, target: Target) -> WouldRevoke:
        """What `revoke` would stop now."""
        ...

    def revoke(self, target: Target, reason: str) -> Revoked:
        """The target is refused everywhere and what it had in flight is cut."""
        ...

    def restore(self, target: Target, reason: str) -> Restored:
        """The target may be issued new credentials."""
        ...

    def record_act(self, tenant: str, act: Act, detail: Mapping[str, str]) -> Recorded:
        """What an operator's command did or found is on record, with who ran it."""
        ...

    def authorities(self) -> AuthoritiesShown:
        """What agents have to trust."""
        ...

    def rotate_authority(self, asked: RotationAsked) -> AuthoritiesShown:
        """One step in the authorities' life is on record, done and in force."""
        ...
