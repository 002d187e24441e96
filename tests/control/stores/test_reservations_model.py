"""Every store against a model that remembers every grant and recounts from the beginning."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from rules.claims import Claim, LeaseClaim, OnceClaim, PauseClaim, RateClaim, Refused, Reserved, SpendClaim
from rules.codes import Code
from tests.control.stores.subjects import Embedded, Shared, Subject
from tests.worlds.valkey import valkey

ACCOUNTS = ["one", "two"]
WINDOWS = ["2026-11-19", "2026-11-20", "2026-11-21"]
METERS = [("USD", "price"), ("tokens", "tokens")]
CAP = 10
SLOTS = 3
INTERVAL = 100
"""Seconds: the real time that an example takes is little beside half of it."""
BURST = 4
STEPS = st.sampled_from([INTERVAL // 2, INTERVAL, 3 * INTERVAL // 2, 5 * INTERVAL])

rates = st.builds(lambda a: RateClaim(("acme", a, "rate"), INTERVAL * 1_000_000, BURST, "r"), st.sampled_from(ACCOUNTS))
leases = st.builds(lambda a: LeaseClaim(("acme", a, "concurrency"), SLOTS), st.sampled_from(ACCOUNTS))
spends = st.builds(
    lambda a, m, w, n: SpendClaim(("acme", a, m[0], "day"), w, CAP, n, m[0], 4_000_000_000, m[1]),
    st.sampled_from(ACCOUNTS),
    st.sampled_from(METERS),
    st.sampled_from(WINDOWS),
    st.integers(0, CAP + 1),
)
pauses = st.builds(lambda a: PauseClaim(("acme", a, "pause")), st.sampled_from(ACCOUNTS))
onces = st.builds(
    lambda a, d: OnceClaim(("acme", a, "once"), d), st.sampled_from(ACCOUNTS), st.sampled_from(["x", "y"])
)
claim_tuples = st.lists(st.one_of(rates, leases, spends, spends, pauses, onces), max_size=5).map(tuple)
told = st.fixed_dictionaries({}, optional={"price": st.integers(-1, CAP), "tokens": st.integers(-1, CAP)})


@dataclass
class Grant:
    """One granted reservation and how it ended."""

    call: str
    charged: list[tuple[str, str, int, str]] = field(default_factory=list)
    """(budget, window, amount, meter)."""
    leases: list[str] = field(default_factory=list)
    onces: list[tuple[str, "Attempts | None"]] = field(default_factory=list)
    spent: list[int] | None = None
    """Of each of `charged`, once it has ended."""


@dataclass(frozen=True)
class Attempts:
    """What is known of an idempotency key."""

    digest: str
    flying: bool
    paid: bool


@dataclass
class Known:
    """Everything but grants."""

    tats: dict[str, int] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)
    onces: dict[str, Attempts] = field(default_factory=dict)

    def copy(self) -> "Known":
        return Known(dict(self.tats), dict(self.newest), dict(self.onces))


class ReservationsMachine(RuleBasedStateMachine):
    """Reserve, settle, release, pause, lose and let time pass, in any order."""

    granted = Bundle("granted")

    def __init__(self, loop: asyncio.AbstractEventLoop, subject: Subject) -> None:
        super().__init__()
        self.loop, self.subject = loop, subject
        self.now = 100_000
        self.grants: dict[str, Grant] = {}
        self.known = Known()
        self.paused: dict[str, int] = {}
        self.calls = itertools.count()

    def do[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if isinstance(self.subject, Shared):
            self.do(self.subject.stop())

    def model(self, call: str, claims: tuple[Claim, ...]) -> tuple[Code | None, Grant]:
        """What must be answered, recounted from every grant so far."""
        grant, known = Grant(call), self.known.copy()
        keys = [claim.key[1] for claim in claims if isinstance(claim, OnceClaim)]
        paid = bool(keys) and all(key in known.onces and known.onces[key].paid for key in keys)
        for claim in claims:
            account = claim.key[1]
            code = self.take(claim, account, grant, known, paid)
            if code is not None:
                return code, grant
        self.known = known
        return None, grant

    def take(self, claim: Claim, account: str, grant: Grant, known: Known, paid: bool) -> Code | None:
        match claim:
            case RateClaim():
                tat = max(known.tats.get(account, 0), self.now) + INTERVAL
                if tat - self.now > BURST * INTERVAL:
                    return Code.RATE_LIMITED
                known.tats[account] = tat
            case LeaseClaim():
                busy = sum(g.leases.count(account) for g in self.grants.values() if g.spent is None)
                if busy + grant.leases.count(account) >= SLOTS:
                    return Code.CONCURRENCY_REACHED
                grant.leases.append(account)
            case SpendClaim() if not paid:
                budget = "/".join(claim.key)
                window = max(claim.window, known.newest.get(budget, ""))
                if self.total(budget, window, grant) + claim.amount_micros > CAP:
                    return Code.SPEND_CAP_REACHED
                known.newest[budget] = window
                grant.charged.append((budget, window, claim.amount_micros, claim.meter))
            case PauseClaim():
                if self.paused.get(account, 0) > self.now:
                    return Code.RATE_LIMITED
            case OnceClaim():
                before = known.onces.get(account)
                if before is not None and before.digest != claim.digest:
                    return Code.IDEMPOTENCY_CONFLICT
                if before is not None and before.flying:
                    return Code.IDEMPOTENCY_IN_FLIGHT
                known.onces[account] = Attempts(claim.digest, True, before is not None and before.paid)
                grant.onces.append((account, before))
        return None

    def total(self, budget: str, window: str, more: Grant) -> int:
        return sum(
            charge[2] if grant.spent is None else grant.spent[number]
            for grant in [*self.grants.values(), more]
            for number, charge in enumerate(grant.charged)
            if charge[:2] == (budget, window)
        )

    @rule(target=granted, claims=claim_tuples)
    def reserve(self, claims: tuple[Claim, ...]) -> object:
        call = f"c_{next(self.calls)}"
        code, grant = self.model(call, claims)
        result = self.do(self.subject.store.reserve(call, claims))
        if code is not None:
            assert isinstance(result, Refused)
            assert result.code is code
            return multiple()
        assert isinstance(result, Reserved)
        charged = [(c.window, c.amount_micros) for c in result.claims if isinstance(c, SpendClaim)]
        if grant.charged:
            assert charged == [(window, amount) for _, window, amount, _ in grant.charged]
        else:
            assert all(amount == 0 for _, amount in charged)
        self.grants[result.id] = grant
        return result

    def end(self, reserved: Reserved, spent: dict[str, int] | None) -> None:
        """How the model ends it; `spent` None: released."""
        grant = self.grants[reserved.id]
        if grant.spent is not None:
            return
        if spent is None:
            grant.spent = [0 for _ in grant.charged]
        else:
            due = [(amount, spent.get(meter, -1)) for _, _, amount, meter in grant.charged]
            grant.spent = [amount if said < 0 else said for amount, said in due]
        whole = all(spent >= charge[2] for spent, charge in zip(grant.spent, grant.charged, strict=True))
        for account, before in grant.onces:
            if spent is not None:
                now = self.known.onces[account]
                self.known.onces[account] = replace(now, flying=False, paid=now.paid or whole)
            elif before is None:
                del self.known.onces[account]
            else:
                self.known.onces[account] = before

    @rule(reserved=granted, spent=told)
    def settle(self, reserved: Reserved, spent: dict[str, int]) -> None:
        """The same reservation may be drawn again: ending it twice must change nothing."""
        self.subject.store.settle(reserved, spent)
        self.do(self.subject.settled())
        self.end(reserved, spent)

    @rule(reserved=consumes(granted))
    def release(self, reserved: Reserved) -> None:
        self.subject.store.release(reserved)
        self.do(self.subject.settled())
        self.end(reserved, None)

    @rule(reserved=consumes(granted))
    def lose(self, reserved: Reserved) -> None:
        """Nobody ends it; the store does, at its maximum, and everybody else's stays."""
        self.do(self.subject.lose({self.grants[reserved.id].call}, INTERVAL))
        self.now += INTERVAL
        self.end(reserved, {})

    @rule(account=st.sampled_from(ACCOUNTS), seconds=STEPS)
    def pause(self, account: str, seconds: int) -> None:
        self.subject.store.pause(("acme", account, "pause"), seconds)
        self.do(self.subject.settled())
        self.paused[account] = max(self.paused.get(account, 0), self.now + seconds)

    @rule(seconds=STEPS)
    def time_passes(self, seconds: int) -> None:
        self.do(self.subject.pass_seconds(seconds))
        self.now += seconds

    @invariant()
    def the_books_agree(self) -> None:
        books = self.do(self.subject.books())
        assert {budget: window for budget, (window, _, _) in books.items()} == self.known.newest
        for budget, (window, spent, reserved) in books.items():
            mine = [
                (charge[2], None if grant.spent is None else grant.spent[number])
                for grant in self.grants.values()
                for number, charge in enumerate(grant.charged)
                if charge[:2] == (budget, window)
            ]
            assert reserved == sum(amount for amount, ended in mine if ended is None)
            assert spent == sum(ended for _, ended in mine if ended is not None)


def run(loop: asyncio.AbstractEventLoop, subject: Callable[[], Subject], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: ReservationsMachine(loop, subject()),
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None),
    )


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_the_embedded_store(loop: asyncio.AbstractEventLoop) -> None:
    run(loop, Embedded, 80)


def test_the_shared_store(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    with valkey(tmp_path) as server:

        def subject() -> Subject:
            shared = Shared(server)
            shared.client.flushall()
            return loop.run_until_complete(shared.start())

        run(loop, subject, 40)
