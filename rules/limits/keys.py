"""Names of counters: the keys of claims, and the names of budgets in records.

A budget's name is its key and its window joined by `/`: tenant, account (`*` for the whole tenant), what is counted,
the period, perhaps what it is counted by, the window: `acme/support-agent/USD/day/2026-11-20`. What is counted is a
currency for prices, and the meter's name for all else. No part has a `/` of its own, and a record takes 256 characters:
so a part is percent-encoded, and told by its digest where it is long.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

from rules.claims import PRICE

WHOLE_TENANT: Final = "*"
"""In place of an account. No account has such a name."""
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_METER_LENGTH: Final = 40
_BY_LENGTH: Final = 56
"""Tenant and account are 63 at the most: together with a meter, a currency, a period and a window that is below 256."""


def meter_part(meter: str, currency: str | None = None) -> str:
    """What a budget's name calls a meter; with its currency, where it counts money that is no price."""
    part = _bounded(quote(meter, safe="._-"), _METER_LENGTH)
    return part if currency is None else f"{part}:{currency}"


def by_part(by: Mapping[str, str]) -> str:
    """What tells one of several counters of a limit from the others: `workflow=refunds&run=r_7Kq`."""
    return _bounded("&".join(f"{name}={quote(value, safe='._-')}" for name, value in by.items()), _BY_LENGTH)


def digest_of(text: str) -> str:
    """Stands for a text in a key: nobody reads it back, and as good as no two have the same."""
    return "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def meter_of(budget: str) -> str:
    """The meter that a budget of this name counts; of a long one its digest, which is no meter's name."""
    parts = budget.split("/")
    counted = parts[2] if len(parts) > 2 else ""
    return PRICE if _CURRENCY.fullmatch(counted) else unquote(counted.partition(":")[0])


def charged(budget: str, cost: Mapping[str, Any]) -> int:
    """How much of a record's cost a budget of this name was charged, in micro-units.

    Raises ValueError for a cost that does not say so: it is no record of this program's.
    """
    part = _part_of(budget)
    if part is None:
        return int(cost["micro"])
    for meter, amount in cost.get("units", {}).items():
        if meter_part(meter) == part:
            return int(amount)
    raise ValueError(f"a record charges the budget {budget} and does not say how much")


@lru_cache(maxsize=4096)
def _part_of(budget: str) -> str | None:
    """How a budget names its meter; None where it counts prices."""
    parts = budget.split("/")
    counted = parts[2] if len(parts) > 2 else ""
    return None if _CURRENCY.fullmatch(counted) else counted.partition(":")[0]


def unit_of(meter: str, cost: Mapping[str, Any]) -> str:
    """The currency of a meter in a record's cost; of what is no money, the meter itself."""
    if meter == PRICE:
        return str(cost["cur"])
    part = meter_part(meter)
    for budget in cost["budget"]:
        counted, _, currency = budget.split("/")[2].partition(":")
        if counted == part and currency:
            return str(currency)
    return meter


def _bounded(text: str, length: int) -> str:
    return text if len(text) <= length else digest_of(text)
