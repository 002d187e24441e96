"""The embedded counters against a model that remembers every grant and recounts from the beginning."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from control.stores.limits import EmbeddedReservations
from rules.claims import Claim, LeaseClaim, RateClaim, Refused, Reserved, SpendClaim
from rules.codes import Code

ACCOUNTS = ["one", "two"]
WINDOWS = ["2026-11-19", "2026-11-20", "2026-11-21"]
CAP = 10
SLOTS = 3
INTERVAL_US = 1_000
BURST = 4

rates = st.builds(lambda a: RateClaim(("acme", a, "rate"), INTERVAL_US, BURST, "r"), st.sampled_from(ACCOUNTS))
leases = st.builds(lambda a: LeaseClaim(("acme", a, "concurrency"), SLOTS), st.sampled_from(ACCOUNTS))
spends = st.builds(
    lambda a, w, n: SpendClaim(("acme", a, "USD", "day"), w, CAP, n, "USD", 0),
    st.sampled_from(ACCOUNTS),
    st.sampled_from(WINDOWS),
    st.integers(0, CAP + 1),
)
claim_tuples = st.lists(st.one_of(rates, leases, spends), max_size=4).map(tuple)


@dataclass
class Grant:
    """One granted reservation and how it ended."""

    at_us: int
    charged: list[tuple[str, str, int]]
    leases: list[str]
    rates: list[str]
    spent: int | None = None


class ReservationsMachine(RuleBasedStateMachine):
    """Reserve, settle, release and let time pass, in any order."""

    granted = Bundle("granted")

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 10_000_000
        self.subject = EmbeddedReservations(monotonic_us=lambda: self.now_us, wall_seconds=lambda: 0.0)
        self.grants: dict[str, Grant] = {}
        self.newest: dict[str, str] = {}
        self.tats: dict[str, int] = {}

    def model(self, claims: tuple[Claim, ...]) -> tuple[Code | None, Grant]:
        """What must be answered, recounted from every grant so far."""
        grant = Grant(self.now_us, [], [], [])
        tats = dict(self.tats)
        newest = dict(self.newest)
        for claim in claims:
            account = claim.key[1]
            match claim:
                case RateClaim():
                    tat = max(tats.get(account, 0), self.now_us) + INTERVAL_US
                    if tat - self.now_us > BURST * INTERVAL_US:
                        return Code.RATE_LIMITED, grant
                    tats[account] = tat
                    grant.rates.append(account)
                case LeaseClaim():
                    busy = sum(g.leases.count(account) for g in self.grants.values() if g.spent is None)
                    if busy + grant.leases.count(account) >= SLOTS:
                        return Code.CONCURRENCY_REACHED, grant
                    grant.leases.append(account)
                case SpendClaim():
                    window = max(claim.window, newest.get(account, ""))
                    total = sum(
                        amount if g.spent is None else g.spent
                        for g in [*self.grants.values(), grant]
                        for who, when, amount in g.charged
                        if (who, when) == (account, window)
                    )
                    if total + claim.amount_micros > CAP:
                        return Code.SPEND_CAP_REACHED, grant
                    newest[account] = window
                    grant.charged.append((account, window, claim.amount_micros))
        self.tats, self.newest = tats, newest
        return None, grant

    @rule(target=granted, claims=claim_tuples)
    def reserve(self, claims: tuple[Claim, ...]) -> object:
        code, grant = self.model(claims)
        result = self.subject.reserve_now("c_1", claims)
        if code is not None:
            assert isinstance(result, Refused)
            assert result.code is code
            return multiple()
        assert isinstance(result, Reserved)
        charged = [(c.key[1], c.window, c.amount_micros) for c in result.claims if isinstance(c, SpendClaim)]
        assert charged == grant.charged
        self.grants[result.id] = grant
        return result

    @rule(reserved=granted, spent=st.integers(0, CAP))
    def settle(self, reserved: Reserved, spent: int) -> None:
        """The same reservation may be drawn again: ending it twice must change nothing."""
        grant = self.grants[reserved.id]
        self.subject.settle(reserved, {"price": spent})
        if grant.spent is None:
            grant.spent = spent

    @rule(reserved=consumes(granted))
    def release(self, reserved: Reserved) -> None:
        grant = self.grants[reserved.id]
        self.subject.release(reserved)
        if grant.spent is None:
            grant.spent = 0

    @rule(microseconds=st.integers(0, 3 * INTERVAL_US))
    def time_passes(self, microseconds: int) -> None:
        self.now_us += microseconds

    @invariant()
    def the_books_agree(self) -> None:
        for use in self.subject.budgets():
            account = use.key.split("/")[1]
            mine = [(g, n) for g in self.grants.values() for a, w, n in g.charged if (a, w) == (account, use.window)]
            assert use.window == self.newest[account]
            assert use.reserved_micros == sum(amount for grant, amount in mine if grant.spent is None)
            assert use.spent_micros == sum(grant.spent for grant, _ in mine if grant.spent is not None)

    @invariant()
    def nothing_is_held_that_has_ended(self) -> None:
        assert self.subject.held == sum(grant.spent is None for grant in self.grants.values())


TestReservationsMachine = ReservationsMachine.TestCase
TestReservationsMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
