"""When a call that is denied now would be allowed: the next moment at which its rules let the same call out.

Pure: told the time, and deciding as ever. What is named was decided for that very moment, and between two edges of the
clock (`rules.conditions.clock`) nothing changes, so no earlier minute is open. Where the edges are not known, or there
are too many, nothing is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from math import ceil
from typing import Final

from rules.call import Call, Facts
from rules.codes import Code
from rules.conditions.clock import Clock
from rules.conditions.variables import NOW, WEEKDAYS, Judged, values_of
from rules.decide import decide
from rules.decision import Allowed, Denied
from rules.matching import asking_the_time
from rules.policy.compile import Account
from rules.policy.matcher import Rule

HORIZON: Final = timedelta(days=8)
"""A week and a day: whatever comes every week is in it."""
MAX_DECISIONS: Final = 256
"""For one answer. A week of hours is 168; each is a decision like any other."""
_MINUTE: Final = timedelta(minutes=1)
_STEP: Final = timedelta(hours=6)
"""No zone changes its clocks twice in so little time."""
_BY_RULES: Final = frozenset({Code.RULE_DENIED, Code.NOT_ALLOWED, Code.CONDITION_FAILED, Code.AMOUNT_UNKNOWN})


@dataclass(frozen=True, slots=True)
class Opening:
    """The first whole minute at which the call would be allowed, if nothing but the time changes."""

    at: datetime
    """Aware, in the policy's time zone."""
    zone: str
    """The zone's name."""
    seconds: int
    """Until then, from when the call was judged; rounded up."""

    @property
    def sentence(self) -> str:
        """For an agent, and for people."""
        return f"Open again from {WEEKDAYS[self.at.weekday()].capitalize()} {self.at:%Y-%m-%d %H:%M} {self.zone}."

    def seen_from(self, now: datetime) -> "Opening":
        """The same, with the seconds from another moment."""
        return replace(self, seconds=max(1, ceil((self.at - now).total_seconds())))


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of looking for an opening."""

    opening: Opening | None
    decisions: int
    """What it cost."""
    whole: bool
    """False: it was given up for its cost, and another search may find one."""


_NOTHING: Final = Searched(None, 0, whole=True)


def may_open(call: Call, facts: Facts, denied: Denied) -> bool:
    """Whether it is worth looking: time alone may change this denial, and how is known. Costs no decision."""
    policy = facts.policy
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if account is None or not account.timed.rules or denied.reasons[0].code not in _BY_RULES:
        return False
    rules = asking_the_time(call, facts, account)
    return bool(rules) and all(clock.exact for clock in _clocks(rules)) and _by_time(account, rules, denied)


def search(call: Call, facts: Facts, denied: Denied, at_most: int = MAX_DECISIONS) -> Searched:
    """The next opening of a call that was denied on these facts, for so many decisions at most. Never raises."""
    policy = facts.policy
    account = None if policy is None else policy.accounts.get(call.principal.account)
    if policy is None or account is None or not may_open(call, facts, denied):
        return _NOTHING
    rules, zone = asking_the_time(call, facts, account), policy.timezone
    clocks = _clocks(rules)
    names = frozenset(n for rule in rules if rule.when is not None for n in rule.when.reads if n.startswith(f"{NOW}."))
    edges = tuple(edge for clock in clocks for edge in clock.moments)
    seen: set[tuple[object, ...]] = set()
    for moment in _moments(facts.now, zone, clocks):
        there = replace(facts, now=moment)
        # What rules see of a time: where they have seen it already, they say the same again.
        values = values_of(Judged(call, there, rules[0].template), names)
        sight = (*values.values(), *(_beside(moment, edge) for edge in edges))
        if sight in seen:
            continue
        if len(seen) >= min(at_most, MAX_DECISIONS):
            return Searched(None, len(seen), whole=at_most >= MAX_DECISIONS)
        seen.add(sight)
        if isinstance(decide(call, there), Allowed):
            opening = Opening(moment.astimezone(zone), str(zone), 0).seen_from(facts.now)
            return Searched(opening, len(seen), whole=True)
    return Searched(None, len(seen), whole=True)


def _clocks(rules: tuple[Rule, ...]) -> tuple[Clock, ...]:
    return tuple(rule.when.clock for rule in rules if rule.when is not None and rule.when.clock is not None)


def _by_time(account: Account, rules: tuple[Rule, ...], denied: Denied) -> bool:
    """Whether the time may have to do with it: neither does a deny rule for all times match, nor is there none that
    could allow it later."""
    ids = {rule.id for rule in rules}
    match denied.reasons[0].code:
        case Code.RULE_DENIED:
            return all(reason.rule in ids for reason in denied.reasons)
        case Code.NOT_ALLOWED:
            return not ids.isdisjoint(account.timed_allow)
        case _:
            return True


def _beside(moment: datetime, edge: datetime) -> int:
    return (moment > edge) - (moment < edge)


def _moments(now: datetime, zone: tzinfo, clocks: tuple[Clock, ...]) -> list[datetime]:
    """The whole minutes after `now` at which anything may change, in order."""
    end = now + HORIZON
    found = set(_changes(now, zone, end))
    first = now.astimezone(zone).date()
    minutes = {minute for clock in clocks for minute in clock.minutes}
    for day in range(-1, HORIZON.days + 2):
        midnight = datetime.combine(first + timedelta(days=day), datetime.min.time())
        for minute in minutes:
            local = midnight + timedelta(minutes=minute)
            # An hour that comes twice has each of its minutes twice; of one that is left out, its end is a change.
            found.update(local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    for edge in {edge for clock in clocks for edge in clock.moments if now <= edge <= end}:
        whole = edge.astimezone(UTC).replace(second=0, microsecond=0)
        found.update((whole, whole + _MINUTE))
    return sorted(moment for moment in found if now < moment <= end)


def _changes(now: datetime, zone: tzinfo, end: datetime) -> Iterator[datetime]:
    """The minutes at which the zone's clocks jump."""
    before = now.astimezone(UTC).replace(second=0, microsecond=0)
    while before < end:
        after = before + _STEP
        if _offset(before, zone) != _offset(after, zone):
            low, high = before, after
            while high - low > _MINUTE:
                middle = low + (high - low) // _MINUTE // 2 * _MINUTE
                low, high = (middle, high) if _offset(middle, zone) == _offset(before, zone) else (low, middle)
            yield high
        before = after


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
