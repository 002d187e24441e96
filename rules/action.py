"""One thing that a request asks for: a tool with its arguments. A request asks for one, or for several."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from rules.catalogue.effect import WRITE, Effect
from rules.catalogue.known import KnownService
from rules.catalogue.tool import Tool
from rules.conditions.currency import EXPONENTS, micros
from rules.conditions.unknown import Unknown
from rules.content.content import Value
from rules.content.mail import read_address, read_recipients
from rules.content.refused import ContentRefused
from rules.policy.values import Money
from rules.swift import swift

UNKNOWN_TOOL: Final = "unknown"
"""Of a service that is not in the catalogue; `<service>.unknown` of one that is."""


@swift
@dataclass(frozen=True, slots=True)
class Action:
    """A tool with its arguments, as far as they could be told."""

    tool: str | None
    """Whole name, in the catalogue or not; None: it takes the body to tell, and the body was not read."""
    effect: Effect | None
    """None where the tool is."""
    args: Mapping[str, Value] | None
    """None: they cannot be told."""
    known: Tool | None = None
    """Its entry in the catalogue."""
    service: KnownService | None = None
    place: Mapping[str, Value] = field(default_factory=dict)
    """What its path is called with: where it acts. No query or body can say otherwise."""
    handshake: bool = False
    """It does nothing by itself but keep a session with a server of tools: whoever may call one of them may do it."""
    stated: Money | None = field(default=None, compare=False)
    """An amount that a test states."""
    _told: dict[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_unknown(self) -> bool:
        """Whether it is none of the tools of a service that is known: it may be any of them under another path."""
        service = self.service
        return self.known is None and service is not None and self.tool == f"{service.name}.{UNKNOWN_TOOL}"

    @property
    def irreversible(self) -> bool:
        """Whether it is known that nothing undoes it."""
        return self.known is not None and self.known.irreversible

    @property
    def batch(self) -> bool:
        """Whether it carries other requests, which nobody has judged."""
        return self.known is not None and self.known.batch

    def bare(self) -> "Action":
        """The same without what it was asked with, which can be large."""
        return Action(self.tool, self.effect, None, self.known, self.service, handshake=self.handshake)

    def money(self, found: Value) -> Money:
        """How much it moves; `found` is the reply of its lookup. Raises `Unknown`."""
        return self._once("money", lambda: self._money(found))

    def recipients(self, found: Value) -> list[str]:
        """Who gets what is sent. Raises `Unknown`."""
        return self._once("recipients", lambda: self._recipients(found))

    def count(self, unit: str, found: Value) -> int:
        """How many of a unit it has: recipients, or what its tool's `units` say. Raises `Unknown`."""
        if unit == "recipients":
            return len(self.recipients(found))
        return self._once(unit, lambda: self._count(unit, found))

    def account(self) -> str:
        """The account at the vendor that it is about. Raises `Unknown`."""
        expression = None if self.service is None else self.service.account_arg
        value = None if expression is None else expression.value(args=dict(self.place))
        if not isinstance(value, str):
            raise Unknown
        return value

    def _once[T](self, name: str, tell: Callable[[], T]) -> T:
        """Several rules ask for the same thing."""
        if name not in self._told:
            try:
                self._told[name] = tell()
            except Unknown as error:
                self._told[name] = error
        value = self._told[name]
        if isinstance(value, Unknown):
            raise Unknown
        return value  # type: ignore[return-value]  # what `tell` gave

    def _money(self, found: Value) -> Money:
        if self.stated is not None:
            return self.stated
        tool, service = self.known, self.service
        if tool is None or service is None or tool.amount is None or tool.currency is None or self.args is None:
            raise Unknown
        values = _with(found, args=self.args)
        amount, currency = tool.amount.value(**values), tool.currency.value(**values)
        if isinstance(amount, bool) or not isinstance(amount, int) or not isinstance(currency, str):
            raise Unknown
        if not currency.isascii():
            raise Unknown  # a letter whose capital is an ASCII one is another code to the service
        code = currency.upper()
        decimals = service.decimals.get(code, EXPONENTS.get(code))
        total = None if decimals is None else micros(amount, tool.unit, decimals)
        if total is None:
            raise Unknown
        return Money(total, code)

    def _count(self, unit: str, found: Value) -> int:
        expression = None if self.known is None else self.known.units.get(unit)
        if expression is None or self.args is None:
            raise Unknown
        many = expression.value(**_with(found, args=self.args))
        if isinstance(many, bool) or not isinstance(many, int) or many < 0:
            raise Unknown
        return many

    def _recipients(self, found: Value) -> list[str]:
        tool = self.known
        if tool is None or tool.recipients is None or self.args is None:
            raise Unknown
        value = tool.recipients.value(**_with(found, args=self.args))
        many = value if isinstance(value, list) else [value]
        texts = [one for one in many if isinstance(one, str)]
        if len(texts) < len(many):
            raise Unknown
        try:
            match tool.recipients_kind:
                case "mail":
                    return [read_address(one) for one in texts]
                case "message":
                    return [address for one in texts for address in read_recipients(one)]
                case _:
                    return texts
        except ContentRefused:
            raise Unknown from None


def _with(found: Value, **values: object) -> dict[str, object]:
    return values if found is None else {**values, "found": found}


def unknown(service: KnownService | None, name: str | None, args: Mapping[str, Value] | None) -> Action:
    """An action of a tool that the catalogue does not have: a write."""
    named = UNKNOWN_TOOL if name is None else f"{name}.{UNKNOWN_TOOL}"
    return Action(named, WRITE, args, None, service)
