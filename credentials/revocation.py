"""Stop orders and their order.

Invariants, each with a property test:

1. The epoch of a `Revocations` never falls; each order, stop or restore, takes the next one.
2. A credential is dead if and only if a revocation of one of its targets has an epoch greater than the credential's.
   Credentials carry the epoch in force when they were issued.
3. `restore` reopens a target for issuing. It never revives what was issued before the revocation.
4. A snapshot never changes. Whoever holds one judges by it; the owner replaces it whole.
5. A check costs at most four dictionary look-ups, however many orders there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self

from credentials.actor import Actor
from credentials.names import is_name, is_tenant
from credentials.principal import Principal

MAX_REASON_CHARS: Final = 500


class TargetKind(StrEnum):
    """What a stop order stops, the narrowest first."""

    CREDENTIAL = "credential"
    ACCOUNT = "account"
    TENANT = "tenant"
    ALL = "all"


class RevocationRefused(ValueError):
    """The order makes no sense (nothing to restore, a name missing). The operator has to give another one."""


def lineage(credential: str) -> str:
    """The id that a credential shares with every renewal of it: `k_1.r2` and `k_1.r3` both descend from `k_1`."""
    return credential.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Target:
    """What an order is about. Raises `RevocationRefused` when a part is missing or superfluous."""

    kind: TargetKind
    tenant: str | None = None
    name: str | None = None
    """Of the account, or of the credential; the credential's renewals are meant as well."""

    def __post_init__(self) -> None:
        needs_tenant = self.kind is not TargetKind.ALL
        needs_name = self.kind in (TargetKind.ACCOUNT, TargetKind.CREDENTIAL)
        if (self.tenant is not None) != needs_tenant or (needs_tenant and not is_tenant(self.tenant)):
            raise RevocationRefused(
                f"a revocation of kind {self.kind} {'needs a' if needs_tenant else 'has no'} tenant"
            )
        if (self.name is not None) != needs_name or (needs_name and not is_name(self.name)):
            raise RevocationRefused(f"a revocation of kind {self.kind} {'needs a' if needs_name else 'has no'} name")
        if self.kind is TargetKind.CREDENTIAL and self.name is not None:
            # The holder of a revoked credential may have renewed it a second ago: the whole lineage is meant.
            object.__setattr__(self, "name", lineage(self.name))

    def matches(self, principal: Principal) -> bool:
        """True when an order about this target concerns the principal's credential."""
        if self.kind is TargetKind.ALL:
            return True
        if self.tenant != principal.tenant:
            return False
        if self.kind is TargetKind.TENANT:
            return True
        if self.kind is TargetKind.ACCOUNT:
            return self.name == principal.account
        return self.name == lineage(principal.credential)

    def as_record(self) -> dict[str, str | None]:
        """The form in which the ledger and the store keep it."""
        return {"kind": self.kind.value, "tenant": self.tenant, "name": self.name}

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind.value, self.tenant, self.name) if part is not None)


@dataclass(frozen=True, slots=True)
class Revocation:
    """The newest stop order of one target."""

    epoch: int
    target: Target
    at: datetime
    """Aware UTC."""
    reason: str
    actor: Actor
    active: bool = True
    """False once restored: credentials may be issued again. The epoch keeps killing the older ones."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """Every order up to `epoch`, as one immutable snapshot."""

    epoch: int = 0
    _by_target: Mapping[Target, Revocation] = field(default_factory=lambda: MappingProxyType({}))
    # Derived, for the hot path: keyed by plain strings and tuples, which hash faster than a dataclass.
    _all: Revocation | None = None
    _tenants: Mapping[str, Revocation] = field(default_factory=lambda: MappingProxyType({}))
    _accounts: Mapping[tuple[str, str], Revocation] = field(default_factory=lambda: MappingProxyType({}))
    _credentials: Mapping[tuple[str, str], Revocation] = field(default_factory=lambda: MappingProxyType({}))

    def check(self, principal: Principal) -> Revocation | None:
        """The order that kills the principal's credential, the widest first; None when it lives."""
        issued = principal.epoch
        if issued >= self.epoch:  # issued under the newest order: nothing can be newer than it
            return None
        order = self._all
        if order is not None and order.epoch > issued:
            return order
        tenant = principal.tenant
        order = self._tenants.get(tenant)
        if order is not None and order.epoch > issued:
            return order
        order = self._accounts.get((tenant, principal.account))
        if order is not None and order.epoch > issued:
            return order
        order = self._credentials.get((tenant, lineage(principal.credential)))
        if order is not None and order.epoch > issued:
            return order
        return None

    def closed(self, tenant: str, account: str) -> Revocation | None:
        """The order in force that forbids issuing to this account, the widest first; None when it may be issued."""
        for order in (self._all, self._tenants.get(tenant), self._accounts.get((tenant, account))):
            if order is not None and order.active:
                return order
        return None

    def active(self) -> tuple[Revocation, ...]:
        """Every order that is not restored, oldest first."""
        return tuple(sorted((r for r in self._by_target.values() if r.active), key=lambda r: r.epoch))

    def orders(self) -> Mapping[Target, Revocation]:
        """The newest order of each target."""
        return self._by_target

    def with_orders(self, orders: Iterable[Revocation]) -> Self:
        """These orders in place of those about the same targets; none is newer than the epoch. Raises ValueError."""
        merged = dict(self._by_target)
        for order in orders:
            if order.epoch > self.epoch:
                raise ValueError("an order is newer than the epoch")
            merged[order.target] = order
        return self._of(self.epoch, merged)

    def find(self, target: Target) -> Revocation | None:
        """The newest order about exactly this target, restored or not."""
        return self._by_target.get(target)

    def revoke(self, target: Target, at: datetime, reason: str, actor: Actor) -> Self:
        """The next snapshot, in which every credential of the target that exists now is dead and none may be issued."""
        _check_order(at, reason)
        epoch = self.epoch + 1
        return self._with(epoch, Revocation(epoch, target, at, reason, actor))

    def restore(self, target: Target, at: datetime, reason: str, actor: Actor) -> Self:
        """The next snapshot, in which credentials may be issued to the target again; the older ones stay dead.

        Raises `RevocationRefused` when the target is not revoked, and for a credential, which never lives again.
        """
        _check_order(at, reason)
        return self.skip_to(self.epoch + 1).reopen(self.restorable(target))

    def restorable(self, target: Target) -> Revocation:
        """The order in force that a restore of this target would reopen; raises `RevocationRefused` as `restore`."""
        if target.kind is TargetKind.CREDENTIAL:
            raise RevocationRefused("a revoked credential stays dead; issue a new one")
        order = self._by_target.get(target)
        if order is None or not order.active:
            raise RevocationRefused(f"{target} is not revoked")
        return order

    def reopen(self, order: Revocation) -> Self:
        """The same epoch, in which `order` forbids no issuing; unchanged if its target has been revoked anew since."""
        if self._by_target.get(order.target) != order:
            return self
        return self._with(self.epoch, replace(order, active=False))

    def skip_to(self, epoch: int) -> Self:
        """The same orders at a later epoch: the ones between were restores, or are being written."""
        if epoch < self.epoch:
            raise ValueError("an epoch never falls")
        return replace(self, epoch=epoch)

    def _with(self, epoch: int, order: Revocation) -> Self:
        return self._of(epoch, {**self._by_target, order.target: order})

    @classmethod
    def _of(cls, epoch: int, orders: dict[Target, Revocation]) -> Self:
        tenants: dict[str, Revocation] = {}
        accounts: dict[tuple[str, str], Revocation] = {}
        credentials: dict[tuple[str, str], Revocation] = {}
        everything: Revocation | None = None
        for target, entry in orders.items():
            if target.tenant is None:
                everything = entry
            elif target.name is None:
                tenants[target.tenant] = entry
            elif target.kind is TargetKind.ACCOUNT:
                accounts[target.tenant, target.name] = entry
            else:
                credentials[target.tenant, target.name] = entry
        freeze = MappingProxyType
        return cls(epoch, freeze(orders), everything, freeze(tenants), freeze(accounts), freeze(credentials))


def _check_order(at: datetime, reason: str) -> None:
    if at.utcoffset() != timedelta(0):
        raise ValueError("the time of an order is aware UTC")
    check_reason(reason)


def check_reason(reason: str) -> None:
    """Raises `RevocationRefused` for what is no reason of an order."""
    if not reason.strip() or len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise RevocationRefused(f"a reason is one printable line of 1 to {MAX_REASON_CHARS} characters")
