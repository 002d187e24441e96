"""Stage `observe` on its way to an end, as operators are told of it."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from rules.policy.compile import Account, TenantPolicy

SOON: Final = timedelta(days=2)
ENDS_SOON: Final = "stage observe ends in "
ENDED: Final = "stage observe has ended"


def observed_warnings(tenants: Iterable[TenantPolicy], now: datetime) -> Iterator[str]:
    """A line for each account in stage `observe`: how long its rules are still only tried."""
    for tenant in tenants:
        for account in tenant.accounts.values():
            if account.observed_until is not None:
                yield f"{tenant.tenant}/{account.name}: {_said(account, account.observed_until - now)}"


def _said(account: Account, left: timedelta) -> str:
    if left <= timedelta(0):
        return f"{ENDED}, its {_rules(account)} decide; say stage: autonomous"
    time = f"{left.days} days" if left >= timedelta(days=2) else f"{left // timedelta(hours=1)} hours"
    if left <= SOON:
        return f"{ENDS_SOON}{time}; from then on its {_rules(account)} decide"
    return f"stage observe for {time} more: what its rules deny leaves all the same"


def _rules(account: Account) -> str:
    number = len(account.allow.rules) + len(account.deny.rules)
    return f"{number} rule" if number == 1 else f"{number} rules"
