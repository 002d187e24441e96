"""What operators see of an installation at one moment."""

from dataclasses import dataclass
from typing import Final, Self

from credentials.revocation import Revocation
from credentials.suspension import Suspension

_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class InFlightCall:
    """One call between its intent and its outcome."""

    call: str
    tenant: str
    account: str
    run: str
    operation: str
    """Connection, method and route."""
    phase: str
    seconds: float
    sent: bool
    """True when a byte may have reached the service."""
    amount_micros: int
    currency: str | None


@dataclass(frozen=True, slots=True)
class ActiveRevocation:
    """A stop order still in force for new credentials."""

    epoch: int
    target: str
    at: str
    reason: str

    @classmethod
    def of(cls, order: Revocation) -> Self:
        """As operators see it."""
        return cls(order.epoch, str(order.target), order.at.strftime(_SECOND), order.reason)


@dataclass(frozen=True, slots=True)
class SuspensionShown:
    """An account whose calls are refused until it is resumed, or a tenant's as a whole."""

    tenant: str
    account: str | None
    at: str
    reason: str

    @classmethod
    def of(cls, one: Suspension) -> Self:
        """As operators see it."""
        return cls(one.tenant, one.account, one.at.strftime(_SECOND), one.reason)


@dataclass(frozen=True, slots=True)
class LimitsUsed:
    """How much of the limits is used now, in numbers."""

    near: int
    """Budgets of which a share that the policy names (`alert:`) is used up or set aside, and that are not full."""
    full: int
    slots_taken: int


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """Where the ledger stands."""

    origin: str
    records: int
    lag_records: int
    lag_seconds: float
    halted: str | None


@dataclass(frozen=True, slots=True)
class FailureMode:
    """What a control does when what it depends on fails (`control.failure_modes`)."""

    control: str
    mode: str
    """`closed`, `bounded` or `open`."""
    codes: tuple[str, ...]
    """What agents get; none where calls go on, or nobody is there to answer."""
    watched: bool
    """Its episodes are on record, in health and in the metrics."""


@dataclass(frozen=True, slots=True)
class DegradedControl:
    """A control that cannot do its work now."""

    control: str
    since: str
    why: str
    nodes: tuple[str, ...]
    """Who says so: `control`, or names of workers."""


@dataclass(frozen=True, slots=True)
class Access:
    """What an agent needs besides its credential."""

    host: str | None
    """The door; None when no process listens."""
    port: int | None
    authority_pem: str
    """Everything to be trusted, several certificates while one authority follows another."""
    server_name: str | None = None
    """The door speaks TLS, and its certificate is for this name; None: it is plain, on loopback."""
    door_pem: str = ""
    """Certificates to verify a TLS door against."""
    remote: str | None = None
    """`NAME:PORT` of a TLS door as other machines reach it; None when there is none."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of an installation. Without a running process what stands from `pid` on is empty, `controls` aside."""

    version: str
    instance: str
    state: str
    policy: str | None
    tenants: tuple[str, ...]
    accounts: int
    connections: int
    secrets_missing: tuple[str, ...]
    warnings: tuple[str, ...]
    """What works, and will not for ever."""
    faults: tuple[str, ...]
    """What is stored and cannot be used; what needs it is denied."""
    epoch: int
    revocations: tuple[ActiveRevocation, ...]
    ledger: LedgerStatus
    running: bool
    pid: int | None
    listening: tuple[str, ...]
    health: str | None
    draining: bool
    unsafe: tuple[str, ...]
    in_flight: tuple[InFlightCall, ...]
    degraded: tuple[DegradedControl, ...] = ()
    controls: tuple[FailureMode, ...] = ()
    suspensions: tuple[SuspensionShown, ...] = ()
    limits: LimitsUsed | None = None
    """None: the store that decides does not answer."""
