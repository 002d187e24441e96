"""Suspended accounts: their calls are refused, and their credentials stay good.

The lesser stop beside a revocation: nothing has to be issued or started anew once an operator resumes the account.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Self

from credentials.actor import Actor


@dataclass(frozen=True, slots=True)
class Suspension:
    """One that is in force."""

    tenant: str
    account: str | None
    """None: every account of the tenant."""
    at: datetime
    """Aware UTC."""
    reason: str
    """Safe for an agent to read."""
    actor: Actor

    def __str__(self) -> str:
        return f"tenant {self.tenant}" if self.account is None else f"account {self.tenant}/{self.account}"


@dataclass(frozen=True, slots=True)
class Suspensions:
    """Every one in force, as one immutable snapshot; its owner replaces it whole."""

    _by_place: Mapping[tuple[str, str | None], Suspension] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, suspensions: Iterable[Suspension]) -> Self:
        """These, and no others."""
        return cls(MappingProxyType({(one.tenant, one.account): one for one in suspensions}))

    def check(self, tenant: str, account: str) -> Suspension | None:
        """The one that refuses this account's calls, the tenant's first; None when they may go on."""
        places = self._by_place
        if not places:
            return None
        return places.get((tenant, None)) or places.get((tenant, account))

    def find(self, tenant: str, account: str | None) -> Suspension | None:
        """The one of exactly this account, or of the tenant as a whole."""
        return self._by_place.get((tenant, account))

    def all(self) -> tuple[Suspension, ...]:
        """Each, the oldest first."""
        return tuple(sorted(self._by_place.values(), key=lambda one: one.at))

    def plus(self, suspension: Suspension) -> Self:
        """With this one, too."""
        return self.of((*self._by_place.values(), suspension))

    def minus(self, suspension: Suspension) -> Self:
        """Without this one."""
        place = (suspension.tenant, suspension.account)
        return self.of(one for key, one in self._by_place.items() if key != place)
