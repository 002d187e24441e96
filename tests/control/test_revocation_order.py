"""A stop order: in force, then cut, then told; also when the disk hangs or fails."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from control.local import Local
from control.node import Cut
from control.operations import Refused, Unavailable, WrongUse
from control.state import RevocationDone, RevocationIncomplete, StateRefused
from credentials.actor import Actor
from credentials.revocation import RevocationRefused, Revocations, Target, TargetKind

TARGET = Target(TargetKind.ACCOUNT, "acme", "agent")
ACTOR = Actor("uid", "1000", "ana")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


class SlowState:
    """Revokes like the real one: in force first, then durable, as soon as the test lets the disk answer."""

    def __init__(self, *, fails: Exception | None = None, refuses: Exception | None = None) -> None:
        self.revocations = Revocations()
        self.disk = threading.Event()
        self.fails, self.refuses = fails, refuses
        self.recorded: list[tuple[str, dict[str, Any]]] = []

    def revoke(self, target: Target, reason: str, actor: Actor) -> RevocationDone:
        if self.refuses is not None:
            raise self.refuses
        self.revocations = self.revocations.revoke(target, NOW, reason, actor)
        assert self.disk.wait(10)
        if self.fails is not None:
            raise self.fails
        return RevocationDone(self.revocations.epoch, 7, NOW, target)

    def record(self, type_: str, tenant: str, content: dict[str, Any]) -> None:
        self.recorded.append((type_, content))


class CuttingNode:
    """Notes what was in force when it was asked to cut, and lets the disk answer only then."""

    def __init__(self, state: SlowState, *, confirmed: bool = True) -> None:
        self.state, self.confirmed = state, confirmed
        self.in_force_at_cut: list[bool] = []

    def cut(self, target: Target) -> Cut:
        self.in_force_at_cut.append(self.state.revocations.find(target) is not None)
        self.state.disk.set()
        return Cut(1, int(self.confirmed), ())


def local(state: SlowState, node: CuttingNode) -> Local:
    return Local(state, ACTOR, node)  # type: ignore[arg-type]  # as much of both as a revocation touches


def test_a_cut_waits_for_the_order_to_be_in_force_and_for_no_disk() -> None:
    state = SlowState()
    node = CuttingNode(state)
    done = local(state, node).revoke(TARGET, "INC-1")
    assert node.in_force_at_cut == [True]
    assert (done.epoch, done.seq, done.nodes_answered) == (1, 7, 1)
    assert [type_ for type_, _ in state.recorded] == ["revocation.effect"]


def test_revoking_the_same_target_again_cuts_again() -> None:
    state = SlowState()
    node = CuttingNode(state)
    on = local(state, node)
    on.revoke(TARGET, "one")
    assert on.revoke(TARGET, "two").epoch == 2
    assert node.in_force_at_cut == [True, True]


def test_an_order_that_is_not_durable_has_cut_all_the_same_and_the_operator_is_told() -> None:
    state = SlowState(fails=RevocationIncomplete(1, stored=False, recorded=False, cause="disk"))
    node = CuttingNode(state)
    with pytest.raises(Unavailable, match="in force") as caught:
        local(state, node).revoke(TARGET, "INC-1")
    assert node.in_force_at_cut == [True]
    assert "restart" in caught.value.cure


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [(RevocationRefused("a reason is one line"), WrongUse), (StateRefused("x", "no"), Refused)],
)
def test_an_order_that_makes_no_sense_cuts_nothing(refusal: Exception, expected: type[Exception]) -> None:
    state = SlowState(refuses=refusal)
    node = CuttingNode(state)
    with pytest.raises(expected):
        local(state, node).revoke(TARGET, "x")
    assert node.in_force_at_cut == []
    assert state.recorded == []


def test_a_cut_that_nobody_confirms_is_not_reported_as_done() -> None:
    state = SlowState()
    done = local(state, CuttingNode(state, confirmed=False)).revoke(TARGET, "INC-1")
    assert (done.nodes, done.nodes_answered) == (1, 0)
