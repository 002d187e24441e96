"""The claims of an allowed call: what it asks of its account's limits."""

from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim
from rules.limits.windows import day_window

if TYPE_CHECKING:
    from rules.policy.compile import Account, Connection

_ANY: Final = "*"


def claims_of(account: "Account", connection: "Connection", zone: ZoneInfo, now: datetime) -> tuple[Claim, ...]:
    """Everything that one call of this account on this connection must be granted before it may leave.

    `now` is aware; it only picks the day. Ordered rates, lease, spend, each as the policy writes them, so that the
    refusal of several is the same one everywhere.

    Keys start with tenant and account, and are unique over the kinds of claims. A spend claim's key and window joined
    by `/` are the budget's name in records: `acme/support-agent/USD/day/2026-11-20`.
    """
    claims: list[Claim] = [
        RateClaim(
            key=(account.tenant, account.name, "rate", rate.connection, rate.per),
            interval_us=rate.interval_us,
            burst=rate.burst,
            limit=f"{rate.max} per {rate.per}",
        )
        for rate in account.limits.rates
        if rate.connection in (connection.name, _ANY)
    ]
    if account.limits.concurrency is not None:
        claims.append(LeaseClaim((account.tenant, account.name, "concurrency"), account.limits.concurrency))
    if connection.price_micros > 0:
        for spend in account.limits.spends:
            if spend.currency == connection.currency:
                window = day_window(now, zone)
                claims.append(
                    SpendClaim(
                        key=(account.tenant, account.name, spend.currency, "day"),
                        window=window.id,
                        max_micros=spend.max_micros,
                        amount_micros=connection.price_micros,
                        currency=spend.currency,
                        resets_at=window.resets_at,
                    )
                )
    return tuple(claims)
