"""The claims of an allowed call: what it asks of its account's limits."""

from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rules.claims import Claim, LeaseClaim, RateClaim, SpendClaim
from rules.limits.windows import day_window

if TYPE_CHECKING:
    from rules.policy.compile import Account, Connection, Rate

_ANY: Final = "*"


def claims_of(account: "Account", connection: "Connection", zone: ZoneInfo, now: datetime) -> tuple[Claim, ...]:
    """Everything that one call of this account on this connection must be granted before it may leave.

    `now` is aware; it only picks the day. Ordered rates, lease, spend, each as the policy writes them, so that the
    refusal of several is the same one everywhere.

    Keys start with tenant and account, and are unique over the kinds of claims. A spend claim's key and window joined
    by `/` are the budget's name in records: `acme/support-agent/USD/day/2026-11-20`.
    """
    limits = account.limits
    standing = limits.standing.get(connection.name)
    if standing is None:
        standing = limits.standing[_ANY]
    if connection.price_micros == 0:
        return standing
    for spend in limits.spends:
        if spend.currency == connection.currency:
            window = day_window(now, zone)
            claim = SpendClaim(
                key=(account.tenant, account.name, spend.currency, "day"),
                window=window.id,
                max_micros=spend.max_micros,
                amount_micros=connection.price_micros,
                unit=spend.currency,
                resets_at=window.resets_at,
            )
            return (*standing, claim)
    return standing


def counts_price(account: "Account", connection: "Connection") -> bool:
    """Whether the account's spend limits, if it has any, count what a call on this connection costs."""
    spends = account.limits.spends
    return not spends or connection.price_micros == 0 or any(s.currency == connection.currency for s in spends)


def standing_claims(
    tenant: str, account: str, rates: tuple["Rate", ...], concurrency: int | None, connection: str
) -> tuple[Claim, ...]:
    """The claims that are the same for every call of an account on a connection: rates, then the lease."""
    claims: list[Claim] = [
        RateClaim(
            key=(tenant, account, "rate", rate.connection, rate.per),
            interval_us=rate.interval_us,
            burst=rate.burst,
            limit=f"{rate.max} per {rate.per}",
        )
        for rate in rates
        if rate.connection in (connection, _ANY)
    ]
    if concurrency is not None:
        claims.append(LeaseClaim((tenant, account, "concurrency"), concurrency))
    return tuple(claims)
