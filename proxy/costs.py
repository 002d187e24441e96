"""What a call costs: the most, by meter, before it leaves; and what is due once it is known how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ledger.schema import NO_CURRENCY
from rules.claims import PRICE, Claim, SpendClaim
from rules.identity import ByIdentity
from rules.meters import meter_named
from rules.meters.tokens import TOKENS
from rules.policy.compile import Connection
from rules.swift import swift

if TYPE_CHECKING:
    from proxy.attempt import Result
    from proxy.usage.used import Used

_NOTHING: Final[Mapping[str, int]] = {}


class _Made:
    """What a cost comes to in other forms, made when it is first asked for."""

    __slots__ = ("content", "most")

    def __init__(self) -> None:
        self.most: Mapping[str, int] | None = None
        self.content: dict[str, object] | None = None


@swift
@dataclass(frozen=True, slots=True)
class Cost:
    """The most a call can cost, by meter, and the budgets it is charged to. All in micro-units."""

    micros: int
    """Its price."""
    currency: str
    budgets: tuple[str, ...]
    units: Mapping[str, int] = field(default_factory=dict)
    """What limits count beside the price."""
    price_book: str | None = None
    """Digest of the book that the price is by; None: the connection's own price."""
    _made: _Made = field(default_factory=_Made, init=False, repr=False, compare=False)

    @property
    def most(self) -> Mapping[str, int]:
        """By meter, as settling names them. The same object each time."""
        most = self._made.most
        if most is None:
            most = self._made.most = {PRICE: self.micros, **self.units}
        return most

    def due(self, result: "Result", told: Mapping[str, int] = _NOTHING) -> Mapping[str, int]:
        """What is due by how the call ended: nothing unless it was sent, all of it where nobody can know.

        `told`: what is known of meters by what was really sent and answered. What a service refused (4xx) had no
        effect, so meters that count effects count none.
        """
        most = self.most
        if result.sent and not told and not result.refused:
            return most
        if not result.sent:
            return dict.fromkeys(most, 0)
        if result.status == "indeterminate":
            # More is due where the most was a guess. Nothing was set aside for another attempt of what was charged.
            return {meter: amount and max(amount, told.get(meter, amount)) for meter, amount in most.items()}
        return {
            # Nothing was set aside: it is another attempt of what has been charged.
            meter: 0 if not amount or (result.refused and meter_named(meter).by_effect) else told.get(meter, amount)
            for meter, amount in most.items()
        }

    def content(self, spent: Mapping[str, int] | None = None) -> dict[str, object]:
        """The record's `cost`, with what was really spent when that is known. Not to be changed: calls share it."""
        if spent is not None and spent is not self._made.most:
            return self._content(spent)
        content = self._made.content
        if content is None:
            content = self._made.content = self._content(self.most)
        return content

    def _content(self, amounts: Mapping[str, int]) -> dict[str, object]:
        content: dict[str, object] = {
            "micro": amounts[PRICE],
            "cur": self.currency,
            "budget": self.budgets,
        }
        if self.units:
            content["units"] = {meter: amounts[meter] for meter in self.units}
        if self.price_book is not None:
            content["price_book"] = self.price_book
        return content


_COSTS: Final[ByIdentity[tuple[Claim, ...], tuple[Connection | None, Cost | None]]] = ByIdentity()
"""Of claims that were asked for before, on their connection."""


def cost_of(claims: tuple[Claim, ...], connection: Connection | None, used: "Used | None" = None) -> Cost | None:
    """What the call costs and the budgets it was set aside in; None for a call that nothing counts.

    `used`: of a call that is paid by what it uses.
    """
    if used is not None:
        return _cost_of(claims, connection, used)
    found = _COSTS.get(claims)
    if found is None or found[0] is not connection:
        found = _COSTS.put(claims, (connection, _cost_of(claims, connection, None)))
    return found[1]


def _cost_of(claims: tuple[Claim, ...], connection: Connection | None, used: "Used | None") -> Cost | None:
    price: SpendClaim | None = None
    budgets: list[str] = []
    amounts: dict[str, int] = {}
    for claim in claims:
        if type(claim) is SpendClaim:
            # Claims of one meter all ask for the same amount: what the whole call uses.
            amounts[claim.meter] = claim.amount_micros
            budgets.append("/".join((*claim.key, claim.window)))
            if price is None and claim.meter == PRICE:
                price = claim
    book = None if used is None else used.estimate.book
    if used is not None:
        amounts = {TOKENS: used.most[TOKENS]} | amounts
    if price is not None:
        micros, currency = price.amount_micros, price.unit
    elif used is not None and book is not None:
        micros, currency = used.most[PRICE], book.currency
    elif connection is not None and connection.currency is not None and connection.price_micros:
        micros, currency = connection.price_micros, connection.currency
    elif budgets or used is not None:
        micros, currency = 0, NO_CURRENCY
    else:
        return None
    amounts.pop(PRICE, None)
    return Cost(micros, currency, tuple(budgets), amounts, None if book is None else book.digest)
