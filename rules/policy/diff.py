"""What a new policy opens and what it closes, in lines for the person who applies it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from rules.alerts.destination import AlertDestination
from rules.bodies import HELD
from rules.catalogue.known import KnownService
from rules.claims import PRICE
from rules.limits.limit import Limits, Rate, Slots, Spend, Spike, Where
from rules.policy.access import describe_most, describe_queue, describe_spike, spike_name
from rules.policy.compile import Account, Connection, PolicySet, TenantPolicy
from rules.policy.matcher import Rule
from rules.policy.values import Money, write_duration, write_keep, write_present
from rules.workflows import WorkflowOutcome

MAX_TOOLS: Final = 5
"""Of a service that is described otherwise, named in the line that says so."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The difference between two policies. All three empty: they judge every call the same way."""

    opens: tuple[str, ...]
    """More may leave than before: an allow rule added, a deny rule removed, a limit raised."""
    closes: tuple[str, ...]
    """Less may leave than before."""
    changes: tuple[str, ...]
    """Whether it opens or closes cannot be told from the policy: another host, another secret, other owners."""

    @property
    def lines(self) -> tuple[str, ...]:
        """Each with what it is before it: `opens: ...`, `closes: ...`, `changes: ...`."""
        kinds = (("opens", self.opens), ("closes", self.closes), ("changes", self.changes))
        return tuple(f"{kind}: {line}" for kind, lines in kinds for line in lines)


def summarise(old: PolicySet | None, new: PolicySet) -> Summary:
    """What applying `new` in place of `old` opens, closes and changes; `old` None: nothing was allowed before.

    A rule, connection or limit that was rewritten under its old name appears as what it was, closed, and as what it is,
    opened, unless one of the two is plainly the wider.
    """
    diff = _Diff()
    before = {} if old is None else old.tenants
    _each(before, new.tenants, diff.tenant)
    return Summary(tuple(diff.opens), tuple(diff.closes), tuple(diff.changes))


def _price(connection: Connection) -> str:
    if connection.book is not None:
        most = "" if connection.max_tokens is None else f", at most {connection.max_tokens} tokens an answer"
        return f"book {connection.book.name} ({connection.book.digest[:19]}){most}"
    return "free" if connection.currency is None else str(Money(connection.price_micros, connection.currency))


def _each[T](old: Mapping[str, T], new: Mapping[str, T], take: Callable[[str, T | None, T | None], None]) -> None:
    for name in sorted({*old, *new}):
        was, is_ = old.get(name), new.get(name)
        if was != is_:
            take(name, was, is_)


@dataclass(slots=True)
class _Diff:
    opens: list[str] = field(default_factory=list)
    closes: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)

    def tenant(self, name: str, old: TenantPolicy | None, new: TenantPolicy | None) -> None:
        if new is None:
            self.closes.append(f"{name}: tenant removed, all of it")
            return
        if old is None:
            self.opens.append(f"{name}: tenant added")
        elif old.timezone != new.timezone:
            self.changes.append(f"{name}: a day is one of {new.timezone.key}, not of {old.timezone.key}")
        if old is not None and old.roles != new.roles:
            self.changes.append(f"{name}: roles")
        if old is not None and old.keep_inputs_seconds != new.keep_inputs_seconds:
            keep, kept = write_keep(new.keep_inputs_seconds), write_keep(old.keep_inputs_seconds)
            self.changes.append(f"{name}: decision inputs are kept: {keep}, was {kept}")
        was = frozenset[str]() if old is None else old.denied_keys
        self.closes += [f"{name}: no chain over the key sha256:{key}" for key in sorted(new.denied_keys - was)]
        self.opens += [f"{name}: again a chain over the key sha256:{key}" for key in sorted(was - new.denied_keys)]
        self.limits(name, Limits() if old is None else old.limits, new.limits)
        self._share(name, None if old is None else old.share_percent, new.share_percent)
        _each({} if old is None else old.workflows, new.workflows, lambda which, a, b: self.workflow(name, which, a, b))
        _each({} if old is None else old.connections, new.connections, self.connection)
        _each({} if old is None else old.accounts, new.accounts, self.account)
        _each({} if old is None else old.alerts, new.alerts, self._alerts(name))

    def _alerts(self, where: str) -> Callable[[str, AlertDestination | None, AlertDestination | None], None]:
        def take(name: str, old: AlertDestination | None, new: AlertDestination | None) -> None:
            is_ = "nobody hears of them there" if new is None else new.described
            was = "" if old is None else f", was {old.described}"
            if old is not None and new is not None and old.described == new.described:
                is_, was = f"{is_}: reached or verified otherwise", ""
            self.changes.append(f"{where}: alerts to {name}: {is_}{was}")

        return take

    def workflow(self, tenant: str, name: str, old: WorkflowOutcome | None, new: WorkflowOutcome | None) -> None:
        was = "" if old is None else f", was {old}"
        self.changes.append(f"{tenant}: an outcome of {name} is {'nothing' if new is None else new}{was}")

    def connection(self, name: str, old: Connection | None, new: Connection | None) -> None:
        of = new or old
        where = f"{of.tenant if of else '-'}: connection {name}"
        if old is None and new is not None:
            self.opens.append(f"{where} to {_destination(new)}")
        elif new is None and old is not None:
            self.closes.append(f"{where} to {_destination(old)}")
        elif old is not None and new is not None:
            for what, was, is_ in zip(_CONNECTION, _described(old), _described(new), strict=True):
                if was != is_:
                    self.changes.append(f"{where}: {what} {is_}, was {was}")
            if old.known != new.known:
                self.changes.append(f"{where}: catalogue: {_catalogue(old.known, new.known)}")

    def account(self, name: str, old: Account | None, new: Account | None) -> None:
        if new is None:
            if old is not None:
                self.closes.append(f"{old.tenant}/{name}: account removed, all of it")
            return
        where = f"{new.tenant}/{name}"
        if old is None:
            self.opens.append(f"{where}: account added")
        elif old.owners != new.owners:
            self.changes.append(f"{where}: owners")
        if old is not None and (old.stage, old.observed_until) != (new.stage, new.observed_until):
            until, before = new.observed_until, old.observed_until
            longer = until is not None and (before is None or until > before)
            (self.opens if longer else self.closes).append(f"{where}: stage {_stage(new)}, was {_stage(old)}")
        elif new.observed_until is not None and old is None:
            self.opens.append(f"{where}: stage {_stage(new)}")
        if old is None:
            # All of it is new: what its deny rules keep out was not open before.
            self.opens += [f"{where}: allow {rule.id}: {_reach(rule)}" for rule in new.allow.rules]
            self.opens += [f"{where}: except {rule.id}: {_reach(rule)}" for rule in new.deny.rules]
            return
        self._rules(where, "allow", old.allow.rules, new.allow.rules)
        self._rules(where, "deny", old.deny.rules, new.deny.rules)
        self.limits(where, old.limits, new.limits)
        self._bound(where, "longest credential", old.max_ttl_seconds, new.max_ttl_seconds, write_duration)
        if old.default_ttl_seconds != new.default_ttl_seconds:
            was, is_ = map(write_duration, (old.default_ttl_seconds, new.default_ttl_seconds))
            self.changes.append(f"{where}: credential when none is asked for {is_}, was {was}")

    def _rules(self, where: str, verb: str, old: tuple[Rule, ...], new: tuple[Rule, ...]) -> None:
        was, is_ = _by_id(old), _by_id(new)
        gone = {(_place(rule), rule.when): rule.id for rule in old if rule.id not in is_}
        for rule in new:
            named = None if rule.id in was else gone.pop((_place(rule), rule.when), None)
            if named is not None:
                self.changes.append(f"{where}: {verb} {named} is now called {rule.id}")
                del was[named], is_[rule.id]
        _each(was, is_, self._rule(where, verb))

    def _rule(self, where: str, verb: str) -> Callable[[str, Rule | None, Rule | None], None]:
        widens, narrows = (self.opens, self.closes) if verb == "allow" else (self.closes, self.opens)

        def take(name: str, old: Rule | None, new: Rule | None) -> None:
            if old is not None and new is not None:
                if (_place(old), old.when) == (_place(new), new.when):
                    return  # it only moved
                if _place(old) == _place(new) and (old.when is None or new.when is None):
                    # A condition that is added only takes calls away from what the rule means, one that goes only adds.
                    was = "always" if old.when is None else f"only {_condition(old)}"
                    told = widens if new.when is None else narrows
                    told.append(f"{where}: {verb} {name}: {_reach(new)}, was {was}")
                    return
            if old is not None:
                narrows.append(f"{where}: no longer {verb} {name}: {_reach(old)}")
            if new is not None:
                widens.append(f"{where}: {verb} {name}: {_reach(new)}")

        return take

    def limits(self, where: str, old: Limits, new: Limits) -> None:
        _each(_by_place(old.slots), _by_place(new.slots), self._slots(where))
        _each(_by_meter(old.spends), _by_meter(new.spends), self._spend(where))
        _each(_by_name(old.rates), _by_name(new.rates), self._rate(where))
        _each(_by_kind(old.spikes), _by_kind(new.spikes), self._spike(where))

    def _share(self, where: str, old: int | None, new: int | None) -> None:
        if old != new:
            is_, was = ("refused" if share is None else f"granted {share}%" for share in (new, old))
            told = self.opens if (new or 0) > (old or 0) else self.closes
            told.append(f"{where}: limits while the shared ones are away: {is_}, was {was}")

    def _slots(self, where: str) -> Callable[[str, Slots | None, Slots | None], None]:
        def take(name: str, old: Slots | None, new: Slots | None) -> None:
            self._bound(where, name, None if old is None else old.max, None if new is None else new.max, str)
            # Who waits is let out later, and nobody is let out who was not: it neither opens nor closes.
            was, is_ = (None if slots is None else slots.queue for slots in (old, new))
            if was != is_:
                self.changes.append(f"{where}: {name}: {describe_queue(is_)}, was: {describe_queue(was)}")

        return take

    def _spend(self, where: str) -> Callable[[str, Spend | None, Spend | None], None]:
        def take(name: str, old: Spend | None, new: Spend | None) -> None:
            of = new or old
            if of is None:
                return
            name = _spend_name(of)
            was, is_ = (None if spend is None else spend.max_micros for spend in (old, new))
            self._bound(where, name, was, is_, lambda micros: describe_most(replace(of, max_micros=micros)))
            if old is not None and new is not None and (old.alert, old.over) != (new.alert, new.over):
                self.changes.append(f"{where}: {name}: when somebody is told, or asked")

        return take

    def _rate(self, where: str) -> Callable[[str, Rate | None, Rate | None], None]:
        def take(name: str, old: Rate | None, new: Rate | None) -> None:
            text = f"{where}: rate on {name} {_written(new)}, was {_written(old)}"
            if new is None or (old is not None and new.interval_us <= old.interval_us and new.burst >= old.burst):
                self.opens.append(text)
            elif old is None or (new.interval_us >= old.interval_us and new.burst <= old.burst):
                self.closes.append(text)
            else:
                self.changes.append(text)

        return take

    def _spike(self, where: str) -> Callable[[str, Spike | None, Spike | None], None]:
        def take(name: str, old: Spike | None, new: Spike | None) -> None:
            is_, was = ("none" if spike is None else describe_spike(spike) for spike in (new, old))
            text = f"{where}: {name} {is_}, was {was}"
            stops = any(spike is not None and spike.stop for spike in (old, new))
            higher, lower = _bars(old, new)
            if not stops or (higher and lower):
                self.changes.append(text)
            else:
                (self.opens if higher else self.closes).append(text)

        return take

    def _bound(self, where: str, what: str, old: int | None, new: int | None, show: Callable[[int], str]) -> None:
        if old == new:
            return
        is_, was = ("no limit" if bound is None else show(bound) for bound in (new, old))
        text = f"{where}: {what} {is_}, was {was}"
        wider = new is None or (old is not None and new > old)
        (self.opens if wider else self.closes).append(text)


_CONNECTION = (
    "destination",
    "service",
    "secret",
    "presented as",
    "dials",
    "networks",
    "authority",
    "account",
    "mode",
    "price",
)


def _stage(account: Account) -> str:
    end = account.observed_until
    return account.stage if end is None else f"{account.stage} until {end.isoformat()}, its rules only tried"


def _described(connection: Connection) -> tuple[str, ...]:
    """What there is to say about a connection, in the order of `_CONNECTION`."""
    binding, dial = connection.binding, connection.dial
    return (
        _destination(connection),
        "none" if connection.service is None else connection.service.name,
        "none" if binding is None else binding.secret_name,
        "nothing" if binding is None else str(write_present(binding.presentation)),
        "what DNS says" if dial is None else f"{dial[0]} port {dial[1]}",
        ", ".join(map(str, connection.networks)) or "public only",
        _authority(connection),
        connection.account or "any",
        connection.mode or "any",
        _price(connection),
    )


def _destination(connection: Connection) -> str:
    return f"{connection.scheme}://{connection.host}:{connection.port}"


def _catalogue(old: KnownService | None, new: KnownService | None) -> str:
    """What a connection's calls are classified by, in words: an effect that changes there changes what rules mean."""
    if old is None or new is None or old.name != new.name:
        is_, was = ("none known" if known is None else known.name for known in (new, old))
        return f"{is_}, was {was}"
    if old.endpoint != new.endpoint:
        return f"MCP is spoken at {new.endpoint}, was {old.endpoint}"
    tools = [name for name in sorted({*old.tools, *new.tools}) if old.tools.get(name) != new.tools.get(name)]
    more = f" and {len(tools) - MAX_TOOLS} more" if len(tools) > MAX_TOOLS else ""
    return f"{new.name} is described otherwise{': ' if tools else ''}{', '.join(tools[:MAX_TOOLS])}{more}"


def _authority(connection: Connection) -> str:
    if connection.ca_pem is None:
        return "public ones"
    fingerprint = _fingerprint(connection.ca_pem)
    return f"public ones and {fingerprint}" if connection.ca_added else fingerprint


def _fingerprint(pem: str) -> str:
    return f"sha256:{hashlib.sha256(pem.encode('ascii')).hexdigest()[:16]}"


def _by_id(rules: tuple[Rule, ...]) -> dict[str, Rule]:
    return {rule.id: rule for rule in rules}


def _by_name(rates: tuple[Rate, ...]) -> dict[str, Rate]:
    return {f"{rate.where.described} per {rate.per}": rate for rate in rates}


def _reach(rule: Rule) -> str:
    """The calls that a rule means."""
    return _place(rule) if rule.when is None else f"{_place(rule)}, {_condition(rule)}"


def _condition(rule: Rule) -> str:
    """On one line; as it is written where it is on one."""
    if rule.when is None:
        return ""
    text = rule.when.text
    return f"when {text if text.isprintable() else ' '.join(text.split())}"


def _place(rule: Rule) -> str:
    """The calls that a rule means where it has no condition."""
    methods = "any method" if rule.methods is None else ",".join(sorted(rule.methods))
    body = "" if rule.body == HELD else f", body {rule.body.described}"
    tools = "" if rule.tools is None else f"{', '.join(rule.tools)}; "
    effects = "" if rule.effects is None else f", only {', '.join(sorted(rule.effects))}"
    return f"{tools}{methods} {rule.connection} {rule.template.text}{effects}{body}"


def _written(rate: Rate | None) -> str:
    return "no limit" if rate is None else f"{rate.max} per {rate.per}, {rate.burst} at once"


def _by_place(slots: tuple[Slots, ...]) -> dict[str, Slots]:
    return {"concurrency" + ("" if s.where == Where() else f" on {s.where.described}"): s for s in slots}


def _by_kind(spikes: tuple[Spike, ...]) -> dict[str, Spike]:
    return {spike_name(spike): spike for spike in spikes}


def _bars(old: Spike | None, new: Spike | None) -> tuple[bool, bool]:
    """Whether a spike has to be higher than before in any way, and lower."""
    if old is None or new is None:
        return new is None, old is None
    pairs = ((old.over_percent, new.over_percent), (old.least_micros, new.least_micros))
    return any(is_ > was for was, is_ in pairs), any(is_ < was for was, is_ in pairs)


def _by_meter(spends: tuple[Spend, ...]) -> dict[str, Spend]:
    return {f"{_spend_name(spend)} {spend.currency or ''}": spend for spend in spends}


def _spend_name(spend: Spend) -> str:
    by = f", by {', '.join(spend.by)}" if spend.by else ""
    return f"{'spend' if spend.meter == PRICE else spend.meter} per {spend.per}{by}"
