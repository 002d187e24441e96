"""What must hold of a policy's limits: that each counts what it says, and that nothing it should count passes it by."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

from rules.catalogue.catalogue import Catalogue
from rules.catalogue.known import KnownService
from rules.limits.gcra import interval_us
from rules.limits.plan import PERIODS_US
from rules.limits.windows import RUN
from rules.meters import METERS, meter_named
from rules.meters.amount import SUFFIX
from rules.meters.meter import Meter
from rules.meters.tokens import TOKENS
from rules.meters.units import units_of
from rules.policy import values
from rules.policy.finding import Finding
from rules.policy.limit_models import ConcurrencyDocument, LimitsDocument, RateDocument, SpendDocument
from rules.policy.matcher import ANY
from rules.policy.models import AccountDocument, TenantDocument
from rules.policy.price_checks import currency_of
from rules.policy.reading import Location
from rules.policy.spike_checks import check_spikes
from rules.policy.tool_checks import tool_problem
from rules.prices.library import Library

if TYPE_CHECKING:
    from rules.policy.compile import Connection

_FIXES: Final = {
    "money": "write an amount of money, such as 500 USD",
    "number": "write a whole number, such as 500",
    "bytes": "write a size, such as 10 MB",
}
LONGEST_BURST_US: Final = 2**53 // 4
"""What a store of counters has exactly, whichever it is."""
_KINDS: Final = {"money": "money", "number": "a number", "bytes": "bytes"}


def check_limits(
    document: TenantDocument, catalogue: Catalogue, library: Library, names: tuple[str, ...] | None
) -> Iterator[Finding]:
    """Every finding in the limits of a tenant and its accounts. `names`: the declared connections, where known."""
    services = {
        name: catalogue.of(name, connection.host, connection.service)
        for name, connection in document.connections.items()
    }
    if document.limits is not None:
        at: Location = ("limits",)
        yield from _of_one(at, document.limits, document, services, names, account=None)
        allowed = frozenset(_allowed(account) for account in document.accounts.values())
        reached = frozenset[str]().union(*allowed) if allowed else frozenset()
        yield from _currencies(at, "the tenant", document.limits, document, library, reached)
    for name, account in document.accounts.items():
        at = ("accounts", name, "limits")
        yield from _of_one(at, account.limits, document, services, names, account=name)
        yield from _currencies(at, name, account.limits, document, library, _allowed(account))


def _allowed(account: AccountDocument) -> frozenset[str]:
    """The connections that an account may call, as far as its rules name them; `*` for any."""
    return frozenset(rule.allow.connection or ANY for rule in account.rules if rule.allow is not None)


def _of_one(
    at: Location,
    limits: LimitsDocument,
    document: TenantDocument,
    services: Mapping[str, KnownService | None],
    names: tuple[str, ...] | None,
    *,
    account: str | None,
) -> Iterator[Finding]:
    seen: dict[object, int] = {}
    for index, slots in enumerate(limits.concurrency or ()):
        here = (*at, "concurrency", index)
        yield from _where(here, slots, services, names, account)
        same: tuple[object, ...] = (
            slots.connection or ANY,
            tuple(sorted(slots.tools or ())),
            tuple(slots.by or ()),
        )
        if seen.setdefault(same, index) != index:
            yield Finding(here, "a second limit on the same calls in flight", "keep one of them")
    for index, rate in enumerate(limits.rate):
        here = (*at, "rate", index)
        if rate.connection is None and rate.tools is None:
            yield Finding(here, "rate: neither a connection nor tools", 'add connection: "*", or tools:')
        yield from _where(here, rate, services, names, account)
        same = ("rate", rate.connection or ANY, tuple(sorted(rate.tools or ())), tuple(rate.by or ()), rate.per)
        interval = interval_us(rate.max, PERIODS_US[rate.per])
        if interval * (rate.burst or rate.max) > LONGEST_BURST_US:
            yield Finding((*here, "burst"), "burst: at this rate it lasts for 71 years", "write fewer, or a higher max")
        if seen.setdefault(same, index) != index:
            about = rate.connection or ", ".join(rate.tools or ())
            yield Finding(here, f"a second rate per {rate.per} for {about}", "keep one of them")
    for index, spend in enumerate(limits.spend):
        here = (*at, "spend", index)
        yield from _spend(here, spend, document, services, account)
        unit = spend.max.currency if isinstance(spend.max, values.Money) else spend.meter
        same = (spend.meter, unit, spend.per, tuple(spend.by or ()))
        if seen.setdefault(same, index) != index:
            yield Finding(here, f"a second limit per {spend.per} in {unit}", "keep one of them")
    yield from check_spikes(at, limits, document, account)


def _where(
    at: Location,
    limit: RateDocument | ConcurrencyDocument,
    services: Mapping[str, KnownService | None],
    names: tuple[str, ...] | None,
    account: str | None,
) -> Iterator[Finding]:
    if limit.connection is not None and names is not None and limit.connection not in (ANY, *names):
        message = f"connection: {limit.connection} is not declared"
        yield Finding((*at, "connection"), message, values.suggest(limit.connection, names))
    reachable = {name: s for name, s in services.items() if limit.connection in (None, ANY, name)}
    if names is not None:
        known = [service for service in reachable.values() if service is not None]
        for position, tool in enumerate(limit.tools or ()):
            problem = tool_problem(tool, known)
            if problem is not None:
                yield Finding((*at, "tools", position), *problem)
    yield from _by(at, limit.by, account)
    if "object" in (limit.by or ()) and reachable and not any(map(_has_objects, reachable.values())):
        message = "by: object: calls here have none, for no path of a known service says one"
        yield Finding((*at, "by"), message, "remove object, or name a connection whose paths say what they are about")


def _has_objects(service: KnownService | None) -> bool:
    return service is not None and service.protocol == "rest"


def _by(at: Location, by: Sequence[str] | None, account: str | None) -> Iterator[Finding]:
    if account is not None and "account" in (by or ()):
        yield Finding((*at, "by"), f"by: account: this limit is {account}'s alone", "remove account")


def _spend(
    at: Location,
    spend: SpendDocument,
    document: TenantDocument,
    services: Mapping[str, KnownService | None],
    account: str | None,
) -> Iterator[Finding]:
    meter = meter_named(spend.meter)
    problem = _meter_problem(spend.meter, meter, document, services)
    if problem is not None:
        yield Finding((*at, "meter"), *problem)
    else:
        yield from _max(at, spend, meter)
    by = spend.by or []
    if account is not None:
        yield from _by(at, by, account)
    if "object" in by:
        # Records name budgets, and never what a call was about.
        yield Finding(
            (*at, "by"), "by: object: amounts are not counted so", "remove object, or limit its rate by object"
        )
    if spend.per == RUN and "account" in by and account is None:
        yield Finding((*at, "by"), "by: account: a run is of one account", "remove account")
    if spend.per == RUN and RUN in by:
        yield Finding((*at, "by"), "by: run: the limit is per run already", "remove run")
    if spend.over is not None:
        yield from _over(at, spend, document)


def _meter_problem(
    name: str, meter: Meter, document: TenantDocument, services: Mapping[str, KnownService | None]
) -> tuple[str, str] | None:
    """A meter that no connection feeds counts nothing, and would be taken for a limit."""
    if any(_feeds(meter, name, document, connection, services[connection]) for connection in services):
        return None
    known = [service for service in services.values() if service is not None]
    if name.endswith(SUFFIX):
        tool = name.removesuffix(SUFFIX)
        named = tool_problem(tool, known)
        if named is not None:
            return f"meter: {named[0]}", named[1]
        amounts = tuple(f"{t.name}{SUFFIX}" for s in known for t in s.tools.values() if t.amount_text is not None)
        return f"meter: {tool} has no amount", _near(name, amounts)
    if name == TOKENS:
        return "meter: no connection's service says which tokens its calls use", (
            "name a connection to openai or anthropic, or say usage: in a file of the catalogue"
        )
    if meter is not METERS[-1]:
        # Not an error: prices may be written later, and until then there is nothing to count.
        return None
    units = {unit for service in known for tool in service.tools.values() for unit in units_of(tool)}
    return f"meter: not one of what can be counted here: {name}", values.suggest(
        name, (*(m.name for m in METERS[:-1]), *sorted(units))
    )


def _near(name: str, known: tuple[str, ...]) -> str:
    near = values.suggest(name, known)
    return (
        near if near.startswith("did you mean") or len(known) < 8 else "see exeat catalogue show for what has amounts"
    )


def _feeds(meter: Meter, name: str, document: TenantDocument, connection: str, known: KnownService | None) -> bool:
    price = document.connections[connection].price
    # As much of a compiled connection as meters look at: the policy is not compiled before it is checked.
    amount = price.micros if isinstance(price, values.Money) else 0
    book = price if isinstance(price, values.Booked) else None
    seen = SimpleNamespace(known=known, price_micros=amount, book=book)
    return meter.feeds(name, cast("Connection", seen)) is not None


def _max(at: Location, spend: SpendDocument, meter: Meter) -> Iterator[Finding]:
    given = spend.max
    kind = "money" if isinstance(given, values.Money) else "bytes" if isinstance(given, str) else "number"
    if kind != meter.counts and not (meter.counts == "bytes" and kind == "number"):
        message = f"max: {spend.meter} counts {_KINDS[meter.counts]}, and this is {_KINDS[kind]}"
        yield Finding((*at, "max"), message, _FIXES[meter.counts])


def _over(at: Location, spend: SpendDocument, document: TenantDocument) -> Iterator[Finding]:
    over, most = spend.over, spend.max
    if over is None:
        return
    if over.approve not in document.roles:
        message = f"approve: there is no role {over.approve}"
        yield Finding((*at, "over", "approve"), message, values.suggest(over.approve, tuple(document.roles)))
    if not isinstance(most, values.Money) or most.currency != over.hard.currency:
        message = "hard: not in the currency of max"
        yield Finding((*at, "over", "hard"), message, "write max and hard in one currency; only money can be approved")
    elif over.hard.micros <= most.micros:
        yield Finding((*at, "over", "hard"), "hard: not more than max", f"write more than {most}, or remove over:")


def _currencies(
    at: Location,
    whose: str,
    limits: LimitsDocument,
    document: TenantDocument,
    library: Library,
    allowed: frozenset[str],
) -> Iterator[Finding]:
    """A limit on prices that cannot count a call's is no limit for it."""
    limited = tuple(
        sorted({s.max.currency for s in limits.spend if s.meter == "price" and isinstance(s.max, values.Money)})
    )
    if not limited:
        return
    for connection_name, connection in document.connections.items():
        currency = currency_of(connection.price, library)
        if currency is None or currency in limited:
            continue
        if connection_name in allowed or ANY in allowed:
            yield Finding(
                (*at, "spend"),
                f"calls on {connection_name} cost {currency}, which no spend limit of {whose} counts",
                f"add {{meter: price, max: 5 {currency}, per: day}}, or price {connection_name} in {limited[0]}",
            )
