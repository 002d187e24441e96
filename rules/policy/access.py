"""Everything an account can do, and who answers for it: the access review, from the policy alone."""

from dataclasses import dataclass

from rules.claims import PRICE, Queue
from rules.limits.limit import Rate, Slots, Spend, Spike, Where
from rules.meters.meter import ONE
from rules.policy.compile import Account, Connection, TenantPolicy
from rules.policy.limit_models import write_times
from rules.policy.matcher import ANY, Rule, names_tools_of
from rules.policy.values import Money


@dataclass(frozen=True, slots=True)
class Action:
    """What one rule of an account lets it do on one connection, or keeps it from."""

    rule: str
    connection: str
    destination: str
    """`https://api.stripe.com`, with a port that is not the scheme's own."""
    methods: tuple[str, ...]
    """Empty: all."""
    path: str
    tools: tuple[str, ...]
    """Empty: whatever tool it is."""
    effects: tuple[str, ...]
    """Empty: whatever it does."""
    when: str | None
    body: str
    """`held`, `inspected`, `streamed up to ...`."""
    secret: str | None
    """The name of the secret that is attached."""


@dataclass(frozen=True, slots=True)
class Access:
    """One account's access."""

    tenant: str
    account: str
    accountable: str
    system: str
    risk: str
    stage: str
    allowed: tuple[Action, ...]
    """In the order of the policy, each rule once for each connection that it means."""
    denied: tuple[Action, ...]
    """What of that it is denied all the same."""
    concurrency: int | None
    """Calls in flight on all connections together."""
    slots: tuple[str, ...]
    """All limits on calls in flight."""
    rates: tuple[str, ...]
    spends: tuple[str, ...]
    spikes: tuple[str, ...]
    """What is taken for unusual, and what becomes of it."""
    tenant_limits: tuple[str, ...]
    """What all accounts of the tenant may use together."""

    @property
    def owners_missing(self) -> tuple[str, ...]:
        """Which of the three owners nobody is."""
        return tuple(word for word in ("accountable", "system", "risk") if not getattr(self, word).strip())


def access_of(policy: TenantPolicy, account: Account) -> Access:
    """What the account can do under this policy."""
    limits, whole = account.limits, policy.limits
    return Access(
        tenant=account.tenant,
        account=account.name,
        accountable=account.owners.accountable,
        system=account.owners.system,
        risk=account.owners.risk,
        stage=account.stage,
        allowed=tuple(action for rule in account.allow.rules for action in _actions(policy, rule)),
        denied=tuple(action for rule in account.deny.rules for action in _actions(policy, rule)),
        concurrency=limits.concurrency,
        slots=tuple(map(describe_slots, limits.slots)),
        rates=tuple(map(_rate, limits.rates)),
        spends=tuple(map(describe_spend, limits.spends)),
        spikes=tuple(map(_spike, limits.spikes)),
        tenant_limits=(
            *map(describe_slots, whole.slots),
            *map(_rate, whole.rates),
            *map(describe_spend, whole.spends),
            *map(_spike, whole.spikes),
        ),
    )


def _rate(rate: Rate) -> str:
    return f"{rate.max} per {rate.per} on {rate.where.described}, {rate.burst} at once"


def _spike(spike: Spike) -> str:
    return f"{spike_name(spike)}: {describe_spike(spike)}"


def describe_slots(slots: Slots) -> str:
    """`2 calls at once`, with which calls where it is not all."""
    about = f"{slots.max} calls at once" + ("" if slots.where == Where() else f" on {slots.where.described}")
    return about if slots.queue is None else f"{about}; {describe_queue(slots.queue)}"


def describe_queue(queue: Queue | None) -> str:
    """`32 more wait up to 5 s`."""
    return "nobody waits" if queue is None else f"{queue.max} more wait up to {queue.seconds} s"


def describe_spend(spend: Spend) -> str:
    """`5 USD per day`, `500 recipients per run, by workflow`."""
    by = f", by {', '.join(spend.by)}" if spend.by else ""
    about = "" if spend.currency is None or spend.meter == PRICE else f" of {spend.meter}"
    return f"{describe_most(spend)}{about} per {spend.per}{by}"


def describe_spike(spike: Spike) -> str:
    """`over 5x, at least 1 USD`."""
    return f"over {write_times(spike.over_percent)}, at least {spike_least(spike)}"


def spike_name(spike: Spike) -> str:
    """What tells a spike of an account from its others: `stop at a spike of price in USD per hour`."""
    about = "" if spike.currency is None else f" in {spike.currency}"
    by = ", by account" if spike.by_account else ""
    return f"{'stop' if spike.stop else 'alert'} at a spike of {spike.meter}{about} per {spike.per}{by}"


def spike_least(spike: Spike) -> str:
    """`1 USD`, `100 calls`."""
    if spike.currency is not None:
        return str(Money(spike.least_micros, spike.currency))
    return f"{spike.least_micros // ONE} {spike.meter}"


def describe_most(spend: Spend) -> str:
    """`5 USD`, `500 recipients`."""
    if spend.currency is not None:
        return str(Money(spend.max_micros, spend.currency))
    return f"{spend.max_micros // ONE} {spend.meter}"


def destination_of(connection: Connection) -> str:
    """`https://api.stripe.com`, with a port that is not the scheme's own."""
    own = {"https": 443, "http": 80}[connection.scheme] == connection.port
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return f"{connection.scheme}://{host}" + ("" if own else f":{connection.port}")


def _actions(policy: TenantPolicy, rule: Rule) -> list[Action]:
    names = sorted(policy.connections) if rule.connection == ANY else [rule.connection]
    found = []
    for name in names:
        connection = policy.connections[name]
        service = "" if connection.known is None else connection.known.name
        if rule.tools is not None and not any(names_tools_of(tool, service) for tool in rule.tools):
            continue  # no call on this connection is one of its tools
        found.append(
            Action(
                rule=rule.id,
                connection=name,
                destination=destination_of(connection),
                methods=() if rule.methods is None else tuple(sorted(rule.methods)),
                path=rule.template.text,
                tools=rule.tools or (),
                effects=() if rule.effects is None else tuple(sorted(rule.effects)),
                when=None if rule.when is None else rule.when.text,
                body=rule.body.described,
                secret=None if connection.binding is None else connection.binding.secret_name,
            )
        )
    return found
