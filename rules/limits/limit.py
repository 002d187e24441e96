"""Limits, compiled: what a policy says, and per account what its calls are asked by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rules.claims import Claim, Queue, SpendClaim

if TYPE_CHECKING:
    from rules.meters.meter import Meter
    from rules.policy.values import Money

ANY: Final = "*"
"""Any connection."""
BY: Final = ("account", "workflow", "run", "connection", "tool", "object")
"""What a limit can be counted by, in the order in which keys name it."""
OF_ACTION: Final = frozenset({"tool", "object"})
"""Of these, what an action of a call says."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which calls a limit is about, and what it is counted by."""

    connection: str = ANY
    """A connection's name, or `*`."""
    tools: tuple[str, ...] | None = None
    """Whole names of tools, or beginnings with `.*`; None: whatever tool it is."""
    by: tuple[str, ...] = ()
    """In the order of `BY`."""

    @property
    def standing(self) -> bool:
        """Whether it asks the same of every call of an account on a connection."""
        return self.tools is None and set(self.by) <= {"account", "connection"}

    @property
    def of_action(self) -> bool:
        """Whether it has to be known which tools a call asks for."""
        return self.tools is not None or not OF_ACTION.isdisjoint(self.by)

    @property
    def described(self) -> str:
        """For people: `stripe.refund.create, by run`."""
        about = self.connection if self.tools is None else ", ".join(self.tools)
        if self.tools is not None and self.connection != ANY:
            about += f" on {self.connection}"
        return about + (f", by {', '.join(self.by)}" if self.by else "")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in a period, and so many at once."""

    where: Where
    max: int
    per: str
    interval_us: int
    burst: int

    @property
    def connection(self) -> str:
        """A connection's name, or `*`."""
        return self.where.connection


@dataclass(frozen=True, slots=True)
class Slots:
    """So many calls in flight at once."""

    where: Where
    max: int
    queue: Queue | None = None
    """None: who finds no slot is refused."""


@dataclass(frozen=True, slots=True)
class Over:
    """What a call beyond a spend limit would need."""

    approve: str
    """The role that would be demand. There are no approvals yet: such a call is refused."""
    hard: "Money"


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount that a window's calls may use together."""

    meter: str
    currency: str | None
    """None: what is counted is no money."""
    max_micros: int
    per: str
    by: tuple[str, ...] = ()
    alert: tuple[int, ...] = ()
    """Per cent of `max_micros` at which somebody wants to hear of it."""
    over: Over | None = None

    @property
    def unit(self) -> str:
        """A currency, or what is counted."""
        return self.meter if self.currency is None else self.currency


@dataclass(frozen=True, slots=True)
class Spike:
    """What is taken for unusual, by the past of the account or tenant itself. No cap: it is seen after the calls."""

    meter: str
    currency: str | None
    """None: what is counted is no money."""
    per: str
    """`hour` or `day`: what is compared."""
    over_percent: int
    """Of what is usual, beyond which it is a spike."""
    least_micros: int
    """Below it nothing is a spike."""
    by_account: bool
    """Of a tenant: each account by its own past; else all of them together."""
    stop: bool
    """Whether the calls are refused from then on; else somebody is told."""

    @property
    def unit(self) -> str:
        """A currency, or what is counted."""
        return self.meter if self.currency is None else self.currency


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account, or a whole tenant, may use."""

    slots: tuple[Slots, ...] = ()
    rates: tuple[Rate, ...] = ()
    spends: tuple[Spend, ...] = ()
    spikes: tuple[Spike, ...] = ()

    @property
    def concurrency(self) -> int | None:
        """Calls in flight on all connections together; None: no limit."""
        whole = [s.max for s in self.slots if s.where == Where()]
        return min(whole, default=None)


@dataclass(frozen=True, slots=True)
class Level:
    """The limits of an account or of its tenant, with whose they are."""

    tenant: str
    scope: str
    """The account's name, or `*` for the whole tenant."""
    limits: Limits


@dataclass(frozen=True, slots=True)
class Budget:
    """A spend limit of a level, with what of its claims is the same for every call."""

    spend: Spend
    key: tuple[str, ...]
    """Tenant, scope, what is counted, period."""
    by: tuple[str, ...]
    """What it is counted by, the run included where it is counted per run; in the order of `BY`."""
    _last: list[SpendClaim] = field(default_factory=list, init=False, repr=False, compare=False)
    """What was asked of it last: most calls ask for the same."""

    def claim(self, window: str, resets_at: int, micros: int) -> SpendClaim:
        """What a call asks of the whole of it."""
        last = self._last
        if last:
            found = last[0]
            if found.window == window and found.amount_micros == micros and found.resets_at == resets_at:
                return found
        spend = self.spend
        made = SpendClaim(self.key, window, spend.max_micros, micros, spend.unit, resets_at, spend.meter)
        last[:] = (made,)
        return made


@dataclass(frozen=True, slots=True)
class Metered:
    """One meter that an account's calls on a connection are counted by, with the limits that count it."""

    meter: "Meter"
    name: str
    """As limits write it."""
    levels: tuple[tuple["Budget", ...], ...]
    """The budgets of the account, then of its tenant; a level without any is left out."""
    tools: frozenset[str]
    """Tools whose arguments say how much it is."""
    told: bool
    """Whether it can always be told."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the calls of one account are asked by: its own limits and its tenant's."""

    tenant: str
    account: str
    standing: Mapping[str, tuple[Claim, ...]] = field(repr=False)
    """Claims that are the same for every call, by connection; under `*` those on every other one."""
    varying: tuple[tuple[str, Rate | Slots], ...]
    """Rates and slots that depend on the run, the tool and the like, each with its scope."""
    metered: Mapping[str, tuple[Metered, ...]] = field(repr=False)
    """By connection."""
    _of_action: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    _last: dict[str, tuple[Claim, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By connection: what was asked last. Most calls ask for the same, and what is the same is judged once."""

    def asked(self, connection: str, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        """The same claims; the object of the last call on a connection where that asked for the same."""
        last = self._last.get(connection)
        if last == claims:
            return last
        self._last[connection] = claims
        return claims

    def on(self, connection: str) -> tuple[Metered, ...]:
        """What is counted on a connection."""
        return self.metered.get(connection, ())

    def untold(self, connection: str) -> bool:
        """Whether there are calls on a connection of which it cannot be told what they use."""
        return any(not m.told for m in self.on(connection))

    def of_action(self, connection: str) -> bool:
        """Whether a limit on a connection depends on which tools a call asks for."""
        found = self._of_action.get(connection)
        if found is None:
            found = self._of_action[connection] = self._is_of_action(connection)
        return found

    def _is_of_action(self, connection: str) -> bool:
        return self.untold(connection) or any(
            limit.where.of_action and limit.where.connection in (ANY, connection) for _, limit in self.varying
        )
