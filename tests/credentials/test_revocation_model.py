"""Revocations against a model that remembers every order and searches them all."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from credentials.actor import SYSTEM
from credentials.principal import Principal
from credentials.revocation import MAX_REASON_CHARS, RevocationRefused, Revocations, Target, TargetKind

AT = datetime(2026, 11, 20, tzinfo=UTC)
TENANTS = ["acme", "globex"]
ACCOUNTS = ["one", "two"]
CREDENTIALS = ["k_1", "k_2", "k_2.r1"]

targets = st.one_of(
    st.just(Target(TargetKind.ALL)),
    st.builds(Target, st.just(TargetKind.TENANT), st.sampled_from(TENANTS)),
    st.builds(Target, st.just(TargetKind.ACCOUNT), st.sampled_from(TENANTS), st.sampled_from(ACCOUNTS)),
    st.builds(Target, st.just(TargetKind.CREDENTIAL), st.sampled_from(TENANTS), st.sampled_from(CREDENTIALS)),
)


def principal(tenant: str, account: str, credential: str, epoch: int) -> Principal:
    return Principal(tenant, account, "w", "r", credential, epoch, 0, 100)


@dataclass
class Model:
    """Every order ever given, in order."""

    orders: list[tuple[str, Target]] = field(default_factory=list)

    def dead(self, who: Principal) -> bool:
        return any(
            kind == "revoke" and target.matches(who) and number > who.epoch
            for number, (kind, target) in enumerate(self.orders, 1)
        )

    def revoked(self, target: Target) -> bool:
        kinds = [kind for kind, about in self.orders if about == target]
        return bool(kinds) and kinds[-1] == "revoke"

    def closed(self, tenant: str, account: str) -> bool:
        return any(
            self.revoked(target)
            for target in (
                Target(TargetKind.ALL),
                Target(TargetKind.TENANT, tenant),
                Target(TargetKind.ACCOUNT, tenant, account),
            )
        )


class RevocationsMachine(RuleBasedStateMachine):
    """Issue, revoke and restore in any order; ask about everybody after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.subject = Revocations()
        self.issued: list[Principal] = []
        self.seen_dead: set[Principal] = set()
        self.kept: list[tuple[Revocations, int, list[bool]]] = []

    @rule(tenant=st.sampled_from(TENANTS), account=st.sampled_from(ACCOUNTS), credential=st.sampled_from(CREDENTIALS))
    def issue(self, tenant: str, account: str, credential: str) -> None:
        self.issued.append(principal(tenant, account, credential, self.subject.epoch))

    @rule(about=targets)
    def revoke(self, about: Target) -> None:
        self.kept.append((self.subject, len(self.issued), [self.subject.check(p) is not None for p in self.issued]))
        self.subject = self.subject.revoke(about, AT, "why", SYSTEM)
        self.model.orders.append(("revoke", about))
        for who in self.issued:
            if about.matches(who):
                assert self.subject.check(who) is not None

    @rule(about=targets)
    def restore(self, about: Target) -> None:
        if about.kind is TargetKind.CREDENTIAL or not self.model.revoked(about):
            with pytest.raises(RevocationRefused):
                self.subject.restore(about, AT, "why", SYSTEM)
            return
        self.subject = self.subject.restore(about, AT, "why", SYSTEM)
        self.model.orders.append(("restore", about))

    @invariant()
    def the_epoch_is_the_number_of_orders(self) -> None:
        assert self.subject.epoch == len(self.model.orders)

    @invariant()
    def who_is_dead_agrees_with_the_model(self) -> None:
        for who in self.issued:
            order = self.subject.check(who)
            assert (order is not None) == self.model.dead(who)
            if order is not None:
                assert order.target.matches(who)
                assert order.epoch > who.epoch

    @invariant()
    def the_dead_stay_dead(self) -> None:
        dead = {who for who in self.issued if self.subject.check(who) is not None}
        assert self.seen_dead <= dead
        self.seen_dead = dead

    @invariant()
    def what_is_closed_agrees_with_the_model(self) -> None:
        for tenant in TENANTS:
            for account in ACCOUNTS:
                assert (self.subject.closed(tenant, account) is not None) == self.model.closed(tenant, account)

    @invariant()
    def what_is_active_agrees_with_the_model(self) -> None:
        assert {order.target for order in self.subject.active()} == {
            target for _, target in self.model.orders if self.model.revoked(target)
        }

    @precondition(lambda self: self.kept)
    @rule()
    def older_snapshots_have_not_changed(self) -> None:
        for snapshot, count, answers in self.kept:
            assert [snapshot.check(p) is not None for p in self.issued[:count]] == answers


TestRevocationsMachine = RevocationsMachine.TestCase
TestRevocationsMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_issued_in_the_moment_of_a_revocation_under_the_older_snapshot_is_dead() -> None:
    before = Revocations()
    after = before.revoke(Target(TargetKind.ACCOUNT, "acme", "one"), AT, "why", SYSTEM)
    assert after.check(principal("acme", "one", "k_9", before.epoch)) is not None
    assert after.check(principal("acme", "two", "k_9", before.epoch)) is None


def test_the_same_names_in_another_tenant_are_not_meant() -> None:
    for target in (Target(TargetKind.ACCOUNT, "acme", "one"), Target(TargetKind.CREDENTIAL, "acme", "k_1")):
        after = Revocations().revoke(target, AT, "why", SYSTEM)
        assert after.check(principal("globex", "one", "k_1", 0)) is None
        assert after.check(principal("acme", "one", "k_1", 0)) is not None


@pytest.mark.parametrize(
    ("kind", "tenant", "name"),
    [
        (TargetKind.ALL, "acme", None),
        (TargetKind.ALL, None, "x"),
        (TargetKind.TENANT, None, None),
        (TargetKind.TENANT, "", None),
        (TargetKind.TENANT, "acme", "x"),
        (TargetKind.ACCOUNT, "acme", None),
        (TargetKind.ACCOUNT, None, "x"),
        (TargetKind.ACCOUNT, "acme", ""),
        (TargetKind.CREDENTIAL, "acme", "a\nb"),
    ],
)
def test_a_target_with_a_missing_or_superfluous_part_is_refused(
    kind: TargetKind, tenant: str | None, name: str | None
) -> None:
    """A revocation that silently means nothing, or everything, is the worst answer in an incident."""
    with pytest.raises(RevocationRefused):
        Target(kind, tenant, name)


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "\x1b[31m", "\u202e", "x" * (MAX_REASON_CHARS + 1)])
def test_a_reason_is_one_printable_line(reason: str) -> None:
    with pytest.raises(RevocationRefused):
        Revocations().revoke(Target(TargetKind.ALL), AT, reason, SYSTEM)


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))])  # noqa: DTZ001
def test_times_are_aware_utc(at: datetime) -> None:
    with pytest.raises(ValueError, match="UTC"):
        Revocations().revoke(Target(TargetKind.ALL), at, "why", SYSTEM)


@given(targets, targets)
def test_restoring_one_target_leaves_another_revoked(one: Target, two: Target) -> None:
    if one == two or TargetKind.CREDENTIAL in (one.kind, two.kind):
        return
    both = Revocations().revoke(one, AT, "why", SYSTEM).revoke(two, AT, "why", SYSTEM)
    after = both.restore(one, AT, "why", SYSTEM)
    assert [order.target for order in after.active()] == [two]


def test_reopening_an_order_does_not_touch_a_newer_one_of_the_same_target() -> None:
    """A restore is being written while somebody revokes again: the newer stop stands."""
    target = Target(TargetKind.ACCOUNT, "acme", "one")
    before = Revocations().revoke(target, AT, "why", SYSTEM)
    older = before.restorable(target)
    again = before.skip_to(2).revoke(target, AT, "again", SYSTEM)
    assert again.epoch == 3
    assert again.reopen(older) is again
    assert again.closed("acme", "one") is not None


def test_an_epoch_never_falls() -> None:
    with pytest.raises(ValueError, match="never falls"):
        Revocations().skip_to(5).skip_to(4)
