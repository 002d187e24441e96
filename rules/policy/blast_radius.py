"""The most that an account can do in a day, before a human notices: an upper bound, from its rules and caps alone.

What an allow rule asks beyond connection, method and path is taken to be true, what a deny rule asks beyond them to be
false: the account may find a call for which it is so. A call takes no time here, so a cap on calls in flight bounds
nothing but what can be in flight.

A day is one as spend caps count them, from midnight to midnight in the policy's time zone; rates are counted over the
longest that the zone has. Two days lie on both sides of a midnight: within minutes of it, twice the money can be spent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from rules.bodies import HELD
from rules.catalogue.effect import EFFECTS
from rules.claims import PRICE
from rules.limits.limit import Rate, Spend
from rules.limits.windows import RUN, longest_day_seconds
from rules.meters.calls import CALLS
from rules.meters.meter import ONE
from rules.policy.access import describe_spend, destination_of
from rules.policy.compile import Account, Connection, TenantPolicy
from rules.policy.effects import effects_on
from rules.policy.matcher import ANY, Matcher, Rule
from rules.policy.templates import parse_template
from rules.policy.values import METHODS

_OBSERVED: Final = Rule("observe", ANY, None, parse_template("/**"), 0, HELD)
"""In stage `observe` rules keep nothing back."""


@dataclass(frozen=True, slots=True)
class Money:
    """What may be spent in one currency."""

    currency: str
    cap_micros: int | None
    """The tightest limit of the account and its tenant, for a day; None: there is none."""
    micros: int | None
    """In a day; None: unbounded."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What may happen on one connection in a day."""

    connection: str
    destination: str
    secret: str | None
    effects: tuple[str, ...]
    """Which of read, write and delete."""
    rules: tuple[str, ...]
    """The allow rules that let it."""
    calls: int | None
    """None: unbounded."""
    currency: str | None
    """None: calls are free."""
    micros: int | None
    """What these calls cost at most; None: unbounded."""
    recipients: str
    """Who can be reached by what is written: `nobody`, `anybody`, `limited` by a condition on them."""


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """What an account may do in a day, on all connections together."""

    tenant: str
    account: str
    stage: str
    day_seconds: int
    """The longest day of the policy's time zone."""
    reaches: tuple[Reach, ...]
    """The connections that it can call, by name."""
    calls: int | None
    """None: unbounded, here and in the next two."""
    writes: int | None
    deletes: int | None
    at_once: int | None
    """Calls in flight."""
    money: tuple[Money, ...]
    counted: tuple[str, ...]
    """Limits on what is neither calls nor their prices, as people read them."""
    credential_seconds: int
    """How long one that was stolen works at most, if nobody revokes it."""

    @property
    def unbounded(self) -> tuple[str, ...]:
        """What of it has no bound."""
        counts = (("calls", self.calls), ("writes", self.writes), ("deletes", self.deletes), ("at once", self.at_once))
        found = [name for name, bound in counts if bound is None and self.reaches]
        found += [money.currency for money in self.money if money.micros is None]
        return (*found, *(f"recipients on {r.connection}" for r in self.reaches if r.recipients == "anybody"))


def blast_radius(policy: TenantPolicy, account: Account) -> BlastRadius:
    """The most that the account can do under this policy. Pure."""
    seconds = longest_day_seconds(policy.timezone)
    caps = _caps(policy, account)
    bounds = [calls_of_rate(rate, seconds) for rate in caps.rates if _of_all(rate.connection, rate.where.by)]
    bounds += [caps.most(spend, seconds) // ONE for spend in caps.of(CALLS) if _of_all(ANY, spend.by)]
    whole = min(bounds, default=None)
    reaches = tuple(_reaches(policy, account, caps, seconds))
    return BlastRadius(
        tenant=account.tenant,
        account=account.name,
        stage=account.stage,
        day_seconds=seconds,
        reaches=reaches,
        calls=_together(whole, reaches),
        writes=_together(whole, (reach for reach in reaches if "write" in reach.effects)),
        deletes=_together(whole, (reach for reach in reaches if "delete" in reach.effects)),
        at_once=caps.at_once,
        money=tuple(_money(policy, caps, reaches, whole, seconds)),
        counted=tuple(describe_spend(spend) for spend in caps.spends if spend.meter not in (PRICE, CALLS)),
        credential_seconds=account.max_ttl_seconds,
    )


def calls_of_rate(rate: Rate, seconds: int) -> int:
    """How many calls pass it in that time at most: the burst at its beginning, then one each interval."""
    return rate.burst + (seconds * 1_000_000 - 1) // rate.interval_us


@dataclass(frozen=True, slots=True)
class _Caps:
    """The limits that bound what an account does in a day, its own and its tenant's: not those of one run of many."""

    rates: tuple[Rate, ...]
    spends: tuple[Spend, ...]
    at_once: int | None

    def of(self, meter: str, currency: str | None = None) -> list[Spend]:
        """The limits of a meter."""
        return [spend for spend in self.spends if (spend.meter, spend.currency) == (meter, currency)]

    def most(self, spend: Spend, seconds: int) -> int:
        """How much of it can be used in a day."""
        # A day has as many whole hours as it is long; the month that it lies in bounds it too.
        return spend.max_micros * (-(-seconds // 3600) if spend.per == "hour" else 1)


def _caps(policy: TenantPolicy, account: Account) -> _Caps:
    levels = (account.limits, policy.limits)
    slots = (slots for level in levels for slots in level.slots if slots.where.tools is None)
    at_once = [s.max for s in slots if _of_all(s.where.connection, s.where.by)]
    return _Caps(
        rates=tuple(r for level in levels for r in level.rates if r.where.standing),
        spends=tuple(s for level in levels for s in level.spends if s.per != RUN and set(s.by) <= _FIXED),
        at_once=min(at_once, default=None),
    )


def _of_all(connection: str, by: tuple[str, ...]) -> bool:
    """Whether a limit counts what an account does on all connections together."""
    return connection == ANY and set(by) <= {"account"}


_FIXED: Final = frozenset({"account", "connection"})


def _reaches(policy: TenantPolicy, account: Account, caps: _Caps, seconds: int) -> Iterator[Reach]:
    observed = account.observed_until is not None
    allow = (_OBSERVED,) if observed else account.allow.rules
    deny = () if observed else tuple(rule for rule in account.deny.rules if rule.when is None)
    never = Matcher(tuple(rule for rule in deny if rule.by_place))
    for name, connection in sorted(policy.connections.items()):
        # A rule's effects are asked of what the deny rules leave of it.
        by_tool = tuple(rule for rule in deny if not rule.by_place and _everywhere(rule, name))
        parts = (part for rule in allow if rule.connection in (ANY, name) for part in _left(rule, name, never))
        found = [(part, effects_on(part, connection.known, by_tool)) for part in parts]
        left = [(part, does) for part, does in found if does]
        if not left:
            continue
        effects = frozenset[str]().union(*(does for _, does in left))
        calls = _calls_on(caps, connection, seconds)
        free = connection.price_micros == 0 and connection.book is None
        yield Reach(
            connection=name,
            destination=destination_of(connection),
            secret=None if connection.binding is None else connection.binding.secret_name,
            effects=tuple(effect for effect in EFFECTS if effect in effects),
            rules=tuple(dict.fromkeys(part.id for part, _ in left)),
            calls=calls,
            currency=None if free else connection.currency,
            # Nobody can say of one call what it may use: of calls by a book, only a limit on prices is a bound.
            micros=0
            if free
            else None
            if calls is None or connection.book is not None
            else calls * connection.price_micros,
            recipients=_recipients([part for part, does in left if does != {"read"}]),
        )


def _everywhere(rule: Rule, connection: str) -> bool:
    """Whether it matches on every path of the connection, by every method."""
    whole = rule.template.rest and not rule.template.segments
    return whole and rule.methods is None and rule.connection in (ANY, connection)


def _left(rule: Rule, connection: str, never: Matcher) -> Iterator[Rule]:
    """What of a rule on a connection is not denied whatever is sent: the rule for one method each, or for all."""
    here = replace(rule, connection=connection)
    for method in METHODS if rule.methods is None else sorted(rule.methods):
        part = replace(here, methods=frozenset({method}))
        if never.covering(part) is None:
            yield part
    if rule.methods is None and never.covering(here) is None:
        # A method that no policy can name.
        yield replace(here, methods=frozenset({"*"}))


def _recipients(writing: list[Rule]) -> str:
    if not writing:
        return "nobody"
    limited = all(rule.when is not None and "recipients" in rule.when.reads for rule in writing)
    return "limited" if limited else "anybody"


def _calls_on(caps: _Caps, connection: Connection, seconds: int) -> int | None:
    """How many calls can be made on a connection: each rate that counts them, and each budget, is a bound."""
    counting = (rate for rate in caps.rates if rate.connection in (ANY, connection.name))
    bounds = [calls_of_rate(rate, seconds) for rate in counting]
    bounds += [caps.most(spend, seconds) // ONE for spend in caps.of(CALLS)]
    if connection.price_micros:
        bounds += [
            caps.most(spend, seconds) // connection.price_micros for spend in caps.of(PRICE, connection.currency)
        ]
    return min(bounds, default=None)


def _together(whole: int | None, reaches: Iterable[Reach]) -> int | None:
    """Calls on several connections, which the rates on all of them bound too."""
    each = [reach.calls for reach in reaches]
    if not each:
        return 0
    summed = None if None in each else sum(calls for calls in each if calls is not None)
    return min((bound for bound in (whole, summed) if bound is not None), default=None)


def _money(
    policy: TenantPolicy, caps: _Caps, reaches: tuple[Reach, ...], whole: int | None, seconds: int
) -> Iterator[Money]:
    for currency in sorted({reach.currency for reach in reaches if reach.currency is not None}):
        priced = [reach for reach in reaches if reach.currency == currency]
        limits = [caps.most(s, seconds) for s in caps.of(PRICE, currency) if _of_all(ANY, s.by)]
        cap = min(limits, default=None)
        bounds = [] if cap is None else [cap]
        if whole is not None and not any(policy.connections[reach.connection].book for reach in priced):
            bounds.append(whole * max(policy.connections[reach.connection].price_micros for reach in priced))
        each = [reach.micros for reach in priced]
        if None not in each:
            bounds.append(sum(micros for micros in each if micros is not None))
        yield Money(currency, cap, min(bounds, default=None))
