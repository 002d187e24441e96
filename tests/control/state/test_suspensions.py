"""Suspensions: in force, stored, recorded and told of; over a restart as before it, until an operator resumes."""

from pathlib import Path
from typing import Any

import pytest

from control.alerts.alert import Raise, Severity
from control.state import State, StateRefused, StateUnavailable
from control.state.suspensions import RESUMED, SUSPENDED
from credentials.actor import Actor
from credentials.revocation import RevocationRefused
from ledger import read_records


def told(once: str = "spend.spike 1") -> Raise:
    return Raise("acme", "spend.spike", Severity.CRITICAL, "a spike", {"account": "agent"}, once)


def acts(state: State, *wanted: str) -> list[tuple[str, dict[str, Any]]]:
    found = read_records(state.ledger.directory, types=frozenset({"operator.act"}))
    return [(one.body["act"], one.body["detail"]) for one in found if one.body["act"] in wanted]


def test_it_survives_a_restart_and_is_on_record_with_its_reason(folder: Path, ana: Actor) -> None:
    with State.open(folder, create=True) as state:
        assert state.suspended.suspend(told(), "agent", "9 USD, usual is 1 USD")
        assert acts(state, SUSPENDED) == [(SUSPENDED, {"account": "agent", "reason": "9 USD, usual is 1 USD"})]
        before = state.suspensions.all()
    with State.open(folder, create=False) as state:
        assert state.suspensions.all() == before
        found = state.suspensions.check("acme", "agent")
        assert found is not None
        assert (str(found), found.reason) == ("account acme/agent", "9 USD, usual is 1 USD")
        assert state.suspensions.check("acme", "other") is None
        seq = state.suspended.resume("acme", "agent", "INC-7", ana)
        (record,) = [one for one in read_records(state.ledger.directory) if one.seq == seq]
        assert (record.body["act"], record.body["actor"]["name"]) == (RESUMED, "ana")
        assert record.body["detail"] == {"account": "agent", "reason": "INC-7"}
    with State.open(folder, create=False) as state:
        assert state.suspensions.all() == ()


def test_what_was_resumed_is_not_suspended_again_for_the_same(state: State, ana: Actor) -> None:
    assert state.suspended.suspend(told(), "agent", "why")
    state.suspended.resume("acme", "agent", "INC-7", ana)
    assert not state.suspended.suspend(told(), "agent", "why")
    assert state.suspensions.check("acme", "agent") is None
    assert state.suspended.suspend(told("spend.spike 2"), "agent", "why")
    assert state.suspensions.check("acme", "agent") is not None


def test_twice_for_two_reasons_is_one_suspension_and_two_alerts(state: State, ana: Actor) -> None:
    state.suspended.suspend(told("1"), "agent", "first")
    state.suspended.suspend(told("2"), "agent", "second")
    assert [one.reason for one in state.suspensions.all()] == ["first"]
    assert len(acts(state, SUSPENDED)) == 1
    assert len(acts(state, "alert.raise")) == 2
    state.suspended.resume("acme", "agent", "INC-7", ana)
    assert state.suspensions.all() == ()


def test_a_whole_tenant_and_an_account_are_resumed_each_by_itself(state: State, ana: Actor) -> None:
    state.suspended.suspend(told("1"), None, "all of them")
    state.suspended.suspend(told("2"), "agent", "this one")
    assert state.suspensions.check("acme", "other") is not None
    state.suspended.resume("acme", None, "INC-7", ana)
    assert state.suspensions.check("acme", "other") is None
    assert state.suspensions.check("acme", "agent") is not None


def test_what_is_not_suspended_is_not_resumed_and_a_reason_is_one(state: State, ana: Actor) -> None:
    with pytest.raises(StateRefused, match="agent is not suspended"):
        state.suspended.resume("acme", "agent", "INC-7", ana)
    state.suspended.suspend(told(), "agent", "why")
    with pytest.raises(RevocationRefused, match="a reason is"):
        state.suspended.resume("acme", "agent", "two\nlines", ana)
    assert state.suspensions.check("acme", "agent") is not None
    assert acts(state, RESUMED) == []


def test_a_resumption_that_cannot_be_recorded_is_none(folder: Path, ana: Actor) -> None:
    state = State.open(folder, create=True)
    state.suspended.suspend(told(), "agent", "why")
    state.ledger.close()
    with pytest.raises(StateUnavailable, match="stays suspended"):
        state.suspended.resume("acme", "agent", "INC-7", ana)
    assert state.suspensions.check("acme", "agent") is not None
    state.close()
    with State.open(folder, create=False) as again:
        assert again.suspensions.check("acme", "agent") is not None
        assert acts(again, RESUMED) == []


def test_one_that_was_recorded_all_the_same_is_contradicted(folder: Path, ana: Actor) -> None:
    """The operator was told that it failed, and withdrawn it was; then its record turns up."""
    with State.open(folder, create=True) as state:
        state.suspended.suspend(told(), "agent", "why")
        content = {"act": RESUMED, "actor": ana.as_record(), "detail": {"account": "agent", "reason": "INC-7"}}
        with state._database.transaction() as connection:
            entry = state._journal.put(connection, "operator.act", "acme", content)
            state._journal.withdraw(connection, entry)
        state._journal.submit("operator.act", "acme", content)
    with State.open(folder, create=False) as state:
        assert state.suspensions.check("acme", "agent") is not None
        assert [act for act, _ in acts(state, SUSPENDED, RESUMED)] == [SUSPENDED, RESUMED, SUSPENDED]


def test_what_cannot_be_stored_is_not_told_of_and_asked_for_again_it_is(state: State) -> None:
    with state._database.transaction() as connection:
        connection.execute("ALTER TABLE suspensions RENAME TO away")
    with pytest.raises(StateUnavailable, match="could not be stored"):
        state.suspended.suspend(told(), "agent", "why")
    assert state.suspensions.check("acme", "agent") is None
    with state._database.transaction() as connection:
        connection.execute("ALTER TABLE away RENAME TO suspensions")
    assert state.suspended.suspend(told(), "agent", "why")
    assert state.suspensions.check("acme", "agent") is not None
    assert [act for act, _ in acts(state, SUSPENDED, "alert.raise")] == [SUSPENDED, "alert.raise"]


def test_one_whose_record_was_lost_in_a_crash_is_recorded_by_the_next_start(folder: Path) -> None:
    state = State.open(folder, create=True)
    state.ledger.close()
    assert state.suspended.suspend(told(), "agent", "why")
    assert state.suspensions.check("acme", "agent") is not None
    state.close()
    with State.open(folder, create=False) as again:
        assert again.suspensions.check("acme", "agent") is not None
        assert [act for act, _ in acts(again, SUSPENDED, "alert.raise")] == ["alert.raise", SUSPENDED]


def test_one_whose_record_failed_is_recorded_before_its_end_is(
    folder: Path, ana: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next start would record it behind, and the ledger's last word would be that it is suspended."""

    def full(*_: object) -> None:
        raise StateUnavailable("the disk is full")

    with State.open(folder, create=True) as state:
        monkeypatch.setattr(state._journal, "submit", full)
        assert state.suspended.suspend(told(), "agent", "why")
        with pytest.raises(StateUnavailable, match="stays suspended"):
            state.suspended.resume("acme", "agent", "INC-7", ana)
        assert state.suspensions.check("acme", "agent") is not None
        monkeypatch.undo()
        state.suspended.resume("acme", "agent", "INC-7", ana)
        assert [act for act, _ in acts(state, SUSPENDED, RESUMED)] == [SUSPENDED, RESUMED]
    with State.open(folder, create=False) as state:
        assert state.suspensions.all() == ()
        assert [act for act, _ in acts(state, SUSPENDED, RESUMED)] == [SUSPENDED, RESUMED]
