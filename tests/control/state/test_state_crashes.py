"""Crashes and failures in every step of a change: what was reported is there, and the ledger tells the same story."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.state import RevocationIncomplete, State, StateUnavailable
from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from credentials.secret import Secret
from ledger import Trust, read_records, verify

AGENT = Target(TargetKind.ACCOUNT, "acme", "agent")
ACME = Target(TargetKind.TENANT, "acme")
PROGRAM = Path(__file__).with_name("crashing_operator.py")
ROOT = Path(__file__).parents[3]


def records(state: State, *types: str) -> list[dict[str, Any]]:
    return [record.body for record in read_records(state.ledger.directory, types=frozenset(types))]


def start(folder: Path, policy_a: Path, policy_b: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(folder), str(policy_a), str(policy_b), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def assert_verifies(folder: Path) -> None:
    report = verify(folder / "ledger", Trust.parse((folder / "trust.policy").read_text()))
    assert (report.exit_code, report.findings) == (0, ())


@pytest.fixture
def policies(policy_file: Callable[..., Path]) -> tuple[Path, Path]:
    return policy_file(burst=20), policy_file(burst=21)


@pytest.fixture
def prepared(folder: Path, policies: tuple[Path, Path], ana: Actor) -> Path:
    """Policy A is active, the secret has one version, the agent is revoked at epoch 1."""
    with State.open(folder, create=True) as state:
        state.apply_policy(policies[0], ana)
        state.set_secret("acme", "s", Secret("old"), ana)
        state.revoke(AGENT, "INC-1", ana)
    return folder


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["apply", "set", "remove", "revoke", "restore"])
def test_a_crash_between_storing_and_reporting(
    prepared: Path, policies: tuple[Path, Path], what: str, when: str
) -> None:
    """What had been stored is finished at the next start, with exactly one record of it."""
    child = start(prepared, *policies, what, when)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 9, errors
    with State.open(prepared, create=False) as state:
        if what == "apply":
            first, second = records(state, "policy.activate")
            assert state.policy is not None
            assert (state.policy.digest, state.policy_epoch) == (second["policy"], second["seq"])
            assert second["previous"] == first["policy"]
        elif what == "set":
            held = state.secret("acme", "s")
            assert held is not None
            assert (held[0].reveal(), held[1]) == (b"new", 2)
            assert [record["version"] for record in records(state, "secret.set")] == [1, 2]
        elif what == "remove":
            assert state.secret("acme", "s") is None
            assert len(records(state, "secret.remove")) == 1
        elif what == "revoke":
            assert [order.target for order in state.revocations.active()] == [AGENT, ACME]
            assert [record["epoch"] for record in records(state, "revocation.issue")] == [1, 2]
        else:
            assert state.revocations.active() == ()
            assert [record["epoch"] for record in records(state, "revocation.restore")] == [2]
        assert state._database.query("SELECT * FROM pending_records") == []
        seen = [record.data for record in read_records(state.ledger.directory)]
    with State.open(prepared, create=False) as state:
        again = [record for record in read_records(state.ledger.directory, start=len(seen))]  # noqa: C416
        assert {record.type for record in again} <= {"seal", "ledger.start", "ledger.stop", "operator.act"}
    assert_verifies(prepared)


def test_a_crash_while_issuing_leaves_a_record_and_no_token(
    folder: Path, policies: tuple[Path, Path], ana: Actor
) -> None:
    with State.open(folder, create=True) as state:
        state.apply_policy(policies[0], ana)
    child = start(folder, *policies, "issue", "before")
    child.communicate(timeout=60)
    assert child.returncode == 9
    with State.open(folder, create=False) as state:
        assert len(records(state, "token.issue")) == 1


@pytest.mark.parametrize(("seed", "kills"), [(1, 4), pytest.param(2, 100, marks=pytest.mark.campaign)])
def test_killed_at_random_instants(
    folder: Path, policies: tuple[Path, Path], ana: Actor, seed: int, kills: int
) -> None:
    """Whatever was reported before the kill is in force after it, and recorded under the number that was reported."""
    instants = random.Random(seed)
    with State.open(folder, create=True) as state:
        state.apply_policy(policies[0], ana)
    reported: list[list[str]] = []
    for _ in range(kills):
        child = start(folder, *policies, "loop")
        assert child.stdout is not None
        opened = child.stdout.readline()
        assert opened == "open\n", child.communicate(timeout=60)
        time.sleep(instants.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        output, errors = child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL, errors
        # A line that was cut off was not reported.
        reported += [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
        with State.open(folder, create=False) as state:
            check_reported(state, reported)
        assert_verifies(folder)
    assert reported


def check_reported(state: State, reported: list[list[str]]) -> None:
    by_seq = {
        record["seq"]: record for record in records(state, "policy.activate", "revocation.issue", "revocation.restore")
    }
    last = {line[0]: line for line in reported}
    for what, first, second in reported:
        if what in ("revoked", "restored"):
            assert by_seq[int(second)]["epoch"] == int(first)
            assert state.revocations.epoch >= int(first)
        elif what == "applied":
            assert by_seq[int(second)]["policy"] == first
    if "set" in last:
        held = state.secret("acme", "s")
        assert held is not None
        assert held[1] >= int(last["set"][1])
        assert held[1] > int(last["set"][1]) or held[0].thumbprint() == last["set"][2]
    issued = {record["credential"] for record in records(state, "token.issue")}
    assert {line[1] for line in reported if line[0] == "issued"} <= issued
    # The database and the ledger tell one story: same epochs once each, same active policy.
    epochs = [record["epoch"] for record in records(state, "revocation.issue", "revocation.restore")]
    assert sorted(epochs) == list(range(1, state.revocations.epoch + 1))
    activations = records(state, "policy.activate")
    assert state.policy is not None
    assert (activations[-1]["policy"], activations[-1]["seq"]) == (state.policy.digest, state.policy_epoch)


def test_an_entry_that_no_ledger_admits_does_not_lock_the_state_for_ever(prepared: Path) -> None:
    with State.open(prepared, create=False) as state, state._database.transaction() as connection:
        connection.execute(
            "INSERT INTO pending_records (after_size, type, tenant, content) VALUES (0, 'secret.set', 'acme', '{}')"
        )
        connection.execute("UPDATE pending_records SET content = ?", ('{"name":1}',))
    with State.open(prepared, create=False) as state:
        (record,) = [one for one in records(state, "operator.act") if one["act"] != "state.open"]
        assert record["act"] == "journal.drop"
        assert record["detail"] == {"type": "secret.set"}
    assert_verifies(prepared)


class TestLedgerThatStopped:
    """Nothing that adds is done without its record; what stops is done all the same, and said to be incomplete."""

    def test_a_policy_is_not_activated_now_or_later(
        self, prepared: Path, policies: tuple[Path, Path], ana: Actor
    ) -> None:
        state = State.open(prepared, create=False)
        before = state.policy
        state.ledger.close()
        with pytest.raises(StateUnavailable, match="stays active"):
            state.apply_policy(policies[1], ana)
        assert state.policy is before
        state.close()
        with State.open(prepared, create=False) as state:
            assert state.policy is not None
            assert before is not None
            assert state.policy.digest == before.digest
            assert len(records(state, "policy.activate")) == 1

    def test_a_secret_is_not_set_now_or_later(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        state.ledger.close()
        with pytest.raises(StateUnavailable):
            state.set_secret("acme", "s", Secret("new"), ana)
        state.close()
        with State.open(prepared, create=False) as state:
            held = state.secret("acme", "s")
            assert held is not None
            assert held[0].reveal() == b"old"
            assert state.set_secret("acme", "s", Secret("newer"), ana).version == 3

    def test_a_token_is_not_handed_out(self, folder: Path, policies: tuple[Path, Path], ana: Actor) -> None:
        state = State.open(folder, create=True)
        state.apply_policy(policies[0], ana)
        state.ledger.close()
        with pytest.raises(StateUnavailable):
            state.issue_token("acme", "agent", "w", None, None, ana)
        state.close()

    def test_a_restore_is_not_in_force_now_or_later(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        state.ledger.close()
        with pytest.raises(StateUnavailable, match="stays revoked"):
            state.restore(AGENT, "go", ana)
        assert state.revocations.closed("acme", "agent") is not None
        state.close()
        with State.open(prepared, create=False) as state:
            assert state.revocations.closed("acme", "agent") is not None
            assert state.revocations.epoch == 2
            state.restore(AGENT, "go", ana)

    def test_a_removed_secret_is_out_of_use_and_recorded_later(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        state.ledger.close()
        with pytest.raises(StateUnavailable):
            state.remove_secret("acme", "s", ana)
        assert state.secret("acme", "s") is None
        state.close()
        with State.open(prepared, create=False) as state:
            assert state.secret("acme", "s") is None
            assert len(records(state, "secret.remove")) == 1

    def test_a_revocation_holds_and_is_recorded_later(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        state.ledger.close()
        with pytest.raises(RevocationIncomplete) as incomplete:
            state.revoke(ACME, "stop", ana)
        assert (incomplete.value.stored, incomplete.value.recorded) == (True, False)
        assert state.revocations.closed("acme", "other") is not None
        state.close()
        with State.open(prepared, create=False) as state:
            assert state.revocations.closed("acme", "other") is not None
            assert [record["epoch"] for record in records(state, "revocation.issue")] == [1, 2]


class TestDatabaseThatFails:
    @staticmethod
    def fail(state: State, failing: bool = True) -> None:
        state._database.query(f"PRAGMA query_only = {int(failing)}")

    def test_a_revocation_holds_and_comes_back_from_the_ledger(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        self.fail(state)
        with pytest.raises(RevocationIncomplete) as incomplete:
            state.revoke(ACME, "stop", ana)
        assert (incomplete.value.stored, incomplete.value.recorded) == (False, True)
        assert state.revocations.closed("acme", "other") is not None
        with pytest.raises(StateUnavailable):
            state.close()
        with State.open(prepared, create=False) as state:
            assert state.revocations.closed("acme", "other") is not None
            assert [record["epoch"] for record in records(state, "revocation.issue")] == [1, 2]

    def test_a_revocation_is_stored_as_soon_as_that_works_again(self, prepared: Path, ana: Actor) -> None:
        with State.open(prepared, create=False) as state:
            self.fail(state)
            with pytest.raises(RevocationIncomplete):
                state.revoke(ACME, "stop", ana)
            self.fail(state, False)
            done = state.revoke(Target(TargetKind.ALL), "stop all", ana)
            assert done.epoch == 3
            assert state._database.query("SELECT epoch FROM orders ORDER BY epoch") == [(1,), (2,), (3,)]
        with State.open(prepared, create=False) as state:
            assert [order.epoch for order in state.revocations.active()] == [1, 2, 3]
            assert [record["epoch"] for record in records(state, "revocation.issue")] == [1, 2, 3]

    def test_without_database_and_ledger_a_revocation_still_holds(self, prepared: Path, ana: Actor) -> None:
        state = State.open(prepared, create=False)
        state.ledger.close()
        self.fail(state)
        with pytest.raises(RevocationIncomplete, match="stored and recorded") as incomplete:
            state.revoke(ACME, "stop", ana)
        assert "Do not restart" in incomplete.value.fix
        assert state.revocations.closed("acme", "other") is not None
        with pytest.raises(StateUnavailable):
            state.close()

    def test_nothing_else_is_done(self, prepared: Path, policies: tuple[Path, Path], ana: Actor) -> None:
        state = State.open(prepared, create=False)
        before = state.policy
        self.fail(state)
        for attempt in (
            lambda: state.apply_policy(policies[1], ana),
            lambda: state.set_secret("acme", "s", Secret("new"), ana),
            lambda: state.restore(AGENT, "go", ana),
            lambda: state.commitment_key("globex"),
        ):
            with pytest.raises(StateUnavailable):
                attempt()
        assert state.policy is before
        held = state.secret("acme", "s")
        assert held is not None
        assert held[0].reveal() == b"old"
        assert state.revocations.closed("acme", "agent") is not None
        assert len(records(state, "policy.activate", "secret.set", "revocation.restore")) == 2
        self.fail(state, False)
        state.close()


class TestRecordThatBecameDurableAfterAll:
    """The operator was told that the change failed, and withdrawn it was; then its record turns up in the ledger."""

    @staticmethod
    def withdraw(state: State, type_: str, *undo: str) -> None:
        record = records(state, type_)[-1]
        named = {
            "policy.activate": ("policy", "previous", "actor", "files"),
            "secret.set": ("name", "version", "thumb", "actor"),
            "revocation.restore": ("epoch", "target", "reason", "actor"),
        }[type_]
        content = {name: record[name] for name in named}
        with state._database.transaction() as connection:
            for statement in undo:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO pending_records (after_size, type, tenant, content, withdrawn) VALUES (?, ?, ?, ?, 1)",
                (record["seq"], type_, record["tenant"], json.dumps(content)),
            )

    def test_a_policy(self, prepared: Path, policies: tuple[Path, Path], ana: Actor) -> None:
        with State.open(prepared, create=False) as state:
            applied = state.apply_policy(policies[1], ana)
            self.withdraw(
                state, "policy.activate", "DELETE FROM activations WHERE id = (SELECT max(id) FROM activations)"
            )
        with State.open(prepared, create=False) as state:
            assert state.policy is not None
            assert state.policy.digest == applied.previous
            last = records(state, "policy.activate")[-1]
            assert (last["policy"], last["previous"]) == (applied.previous, applied.digest)
            assert last["actor"]["kind"] == "system"
            assert last["seq"] == state.policy_epoch

    def test_a_first_policy(self, folder: Path, policies: tuple[Path, Path], ana: Actor) -> None:
        """There is no record for "no policy": it is taken over."""
        with State.open(folder, create=True) as state:
            applied = state.apply_policy(policies[0], ana)
            self.withdraw(state, "policy.activate", "DELETE FROM activations")
        with State.open(folder, create=False) as state:
            assert state.policy is not None
            assert (state.policy.digest, state.policy_epoch) == (applied.digest, applied.seq)

    def test_a_secret(self, prepared: Path, ana: Actor) -> None:
        with State.open(prepared, create=False) as state:
            state.set_secret("acme", "t", Secret("k"), ana)
            self.withdraw(state, "secret.set", "UPDATE secrets SET sealed = NULL WHERE name = 't'")
        with State.open(prepared, create=False) as state:
            assert state.secret("acme", "t") is None
            (removed,) = records(state, "secret.remove")
            assert (removed["name"], removed["version"], removed["actor"]["kind"]) == ("t", 1, "system")

    def test_a_restore(self, prepared: Path, ana: Actor) -> None:
        with State.open(prepared, create=False) as state:
            state.restore(AGENT, "go", ana)
            self.withdraw(state, "revocation.restore", "UPDATE orders SET act = 'void' WHERE epoch = 2")
        with State.open(prepared, create=False) as state:
            assert state.revocations.closed("acme", "agent") is not None
            last = records(state, "revocation.issue")[-1]
            assert (last["epoch"], last["actor"]["kind"]) == (3, "system")


def test_revocations_by_many_threads_take_epochs_of_their_own(prepared: Path, ana: Actor) -> None:
    from concurrent.futures import ThreadPoolExecutor

    targets = [Target(TargetKind.ACCOUNT, "acme", f"agent-{number}") for number in range(24)]
    with State.open(prepared, create=False) as state:
        with ThreadPoolExecutor(12) as pool:
            done = list(pool.map(lambda target: state.revoke(target, "stop", ana), targets))
        assert sorted(order.epoch for order in done) == list(range(2, 26))
        before = state.revocations
    with State.open(prepared, create=False) as state:
        assert state.revocations == before
        by_epoch = {record["epoch"]: record for record in records(state, "revocation.issue")}
        for order in done:
            assert (by_epoch[order.epoch]["seq"], by_epoch[order.epoch]["target"]["name"]) == (
                order.seq,
                order.target.name,
            )


def test_a_creation_interrupted_at_any_step_is_completed(tmp_path: Path) -> None:
    """A first start that was killed must not leave a folder that can neither be used nor made."""
    program = Path(__file__).with_name("interrupted_creation.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 10
