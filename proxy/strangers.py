"""Certificates for hosts outside the policy, bounded for each account.

Every first-seen name costs a signature and memory, and an agent can invent names as fast as it can type.
"""

import time
from collections import OrderedDict
from typing import Final

from proxy.engine.certificates import Certificates
from proxy.http.errors import RequestRefused
from rules.codes import Code

_WINDOW_SECONDS: Final = 3600.0
_BURST_SECONDS: Final = 5
_MAX_ACCOUNTS: Final = 10_000


class Strangers:
    """Counts the unknown hosts each account has had certificates minted for."""

    def __init__(self, certificates: Certificates, per_hour: int, *, per_second: int) -> None:
        self._certificates = certificates
        self._per_hour = per_hour
        self._per_second = per_second
        self._tokens, self._filled = float(_BURST_SECONDS * per_second), time.monotonic()
        self._minted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def may_vouch(self, host: str) -> bool:
        """False where no certificate can be made: agents would refuse it."""
        return self._certificates.may_vouch(host)

    def admit(self, tenant: str, name: str, host: str) -> bool:
        """True if a certificate for `host` may be used; counts the ones that have to be minted first.

        Raises `RequestRefused` while more are asked for by all accounts together than are minted a second. Hosts of
        the policy do not come here, so nobody's strangers are in their way.
        """
        if self._certificates.knows(tenant, host):
            return True
        account = f"{tenant}/{name}"
        now = time.monotonic()
        began, count = self._minted.pop(account, (now, 0))
        if now - began > _WINDOW_SECONDS:
            began, count = now, 0
        self._minted[account] = (began, count)
        if count >= self._per_hour:
            return False
        self._tokens = min(_BURST_SECONDS * self._per_second, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        if self._tokens < 1:
            raise RequestRefused(Code.OVERLOADED, "too many certificates for unknown hosts are asked for now")
        self._tokens -= 1
        self._minted[account] = (began, count + 1)
        while len(self._minted) > _MAX_ACCOUNTS:
            self._minted.popitem(last=False)
        return True
