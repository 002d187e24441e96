"""Certificates for hosts outside the policy, bounded for each account.

Every first-seen name costs a signature and memory, and an agent can invent names as fast as it can type.
"""

import time
from collections import OrderedDict
from typing import Final

from proxy.engine.certificates import Certificates

_WINDOW_SECONDS: Final = 3600.0
_MAX_ACCOUNTS: Final = 10_000


class Strangers:
    """Counts the unknown hosts each account has had certificates minted for."""

    def __init__(self, certificates: Certificates, per_hour: int) -> None:
        self._certificates = certificates
        self._per_hour = per_hour
        self._minted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def may_vouch(self, host: str) -> bool:
        """False where no certificate can be made: agents would refuse it."""
        return self._certificates.may_vouch(host)

    def admit(self, tenant: str, name: str, host: str) -> bool:
        """True if a certificate for `host` may be used; counts the ones that have to be minted first."""
        if self._certificates.knows(tenant, host):
            return True
        account = f"{tenant}/{name}"
        now = time.monotonic()
        began, count = self._minted.pop(account, (now, 0))
        if now - began > _WINDOW_SECONDS:
            began, count = now, 0
        self._minted[account] = (began, min(count + 1, self._per_hour))
        while len(self._minted) > _MAX_ACCOUNTS:
            self._minted.popitem(last=False)
        return count < self._per_hour
