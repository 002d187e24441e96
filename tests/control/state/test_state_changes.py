"""What operators do: in force, stored and recorded, or none of it; over a restart as before it."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.state import State, StateRefused, StateUnavailable
from control.state.sealing import SecretVersion
from credentials.actor import Actor
from credentials.revocation import RevocationRefused, Target, TargetKind
from credentials.secret import Secret
from credentials.tokens import CredentialRejected, IssuedToken
from ledger import read_records
from rules.policy.compile import canonical_json
from rules.policy.source import PolicyInvalid

AGENT = Target(TargetKind.ACCOUNT, "acme", "agent")


def records(state: State, *types: str) -> list[dict[str, Any]]:
    return [record.body for record in read_records(state.ledger.directory, types=frozenset(types))]


def issue(state: State, actor: Actor, ttl: int | None = None, run: str | None = "r_1") -> IssuedToken:
    return state.issue_token("acme", "agent", "refunds", run, ttl, actor)


def identified(state: State, issued: IssuedToken) -> str:
    try:
        state.identifier.identify(issued.token.reveal().decode(), state.revocations, time.time())
    except CredentialRejected as rejected:
        return rejected.code
    return "identified"


class TestPolicy:
    def test_is_active_recorded_and_there_after_a_restart(
        self, folder: Path, policy_file: Callable[..., Path], ana: Actor
    ) -> None:
        with State.open(folder, create=True) as state:
            assert (state.policy, state.policy_epoch) == (None, 0)
            applied = state.apply_policy(policy_file(), ana, commit="abc", author="ana", approver="lea")
            assert state.policy is applied.policy
            assert state.policy_epoch == applied.seq
            (record,) = records(state, "policy.activate")
            assert (record["seq"], record["policy"], record["previous"]) == (applied.seq, applied.digest, None)
            assert record["actor"] == {"kind": "uid", "id": "1000", "name": "ana"}
            assert (record["commit"], record["author"], record["approver"]) == ("abc", "ana", "lea")
            assert [file["name"] for file in record["files"]] == [policy_file().name]
        with State.open(folder, create=False) as state:
            assert state.policy is not None
            assert (state.policy.digest, state.policy_epoch) == (applied.digest, applied.seq)
            assert state.policy.bundle == applied.policy.bundle

    def test_a_second_one_replaces_the_whole_first(
        self, state: State, policy_file: Callable[..., Path], ana: Actor
    ) -> None:
        first = state.apply_policy(policy_file("acme"), ana)
        second = state.apply_policy(policy_file("globex"), ana)
        assert second.previous == first.digest
        assert state.policy is not None
        assert list(state.policy.tenants) == ["globex"]

    def test_an_invalid_one_is_recorded_and_the_last_good_one_stays(
        self, state: State, policy_file: Callable[..., Path], tmp_path: Path, ana: Actor
    ) -> None:
        good = state.apply_policy(policy_file(), ana)
        bad = tmp_path / "bad.yaml"
        bad.write_text("exeat: 1\ntenant: acme\nacounts: {}\n")
        with pytest.raises(PolicyInvalid) as invalid:
            state.apply_policy(bad, ana)
        assert state.policy is good.policy
        (rejected,) = records(state, "policy.reject")
        assert rejected["errors"] == len(invalid.value.errors)
        assert len(records(state, "policy.activate")) == 1

    def test_a_thousand_files_are_recorded_by_one_digest(self, state: State, tmp_path: Path, ana: Actor) -> None:
        folder = tmp_path / "many"
        folder.mkdir()
        for number in range(300):
            (folder / f"{number:04}.yaml").write_text(
                f"exeat: 1\ntenant: t{number}\nconnections: {{c: {{host: h{number}.example}}}}\naccounts: {{}}\n"
            )
        state.apply_policy(folder, ana)
        (record,) = records(state, "policy.activate")
        (entry,) = record["files"]
        ((stored,),) = state._database.query("SELECT files FROM activations")
        files = json.loads(stored)
        assert entry["name"] == "300 files"
        assert entry["digest"] == f"sha256:{hashlib.sha256(canonical_json(files)).hexdigest()}"
        assert [file["name"] for file in files] == [f"{number:04}.yaml" for number in range(300)]

    @pytest.mark.parametrize("commit", ["", "a\nb", "x" * 129, "\u202e"])
    def test_a_declaration_that_no_record_can_hold(
        self, state: State, policy_file: Callable[..., Path], ana: Actor, commit: str
    ) -> None:
        with pytest.raises(StateRefused, match="commit"):
            state.apply_policy(policy_file(), ana, commit=commit)
        assert state.policy is None

    def test_each_of_its_tenants_has_a_commitment_key_of_its_own_that_stays(
        self, folder: Path, policy_file: Callable[..., Path], ana: Actor
    ) -> None:
        with State.open(folder, create=True) as state:
            state.apply_policy(policy_file("acme"), ana)
            keys = state.commitment_key("acme"), state.commitment_key("globex")
            assert [len(key) for key in keys] == [32, 32]
            assert keys[0] != keys[1]
        with State.open(folder, create=False) as state:
            assert (state.commitment_key("acme"), state.commitment_key("globex")) == keys

    def test_a_stored_one_that_was_changed_denies_everything_until_one_is_applied(
        self, folder: Path, policy_file: Callable[..., Path], ana: Actor
    ) -> None:
        with State.open(folder, create=True) as state:
            applied = state.apply_policy(policy_file(), ana)
            with state._database.transaction() as connection:
                changed = applied.policy.bundle.replace(b"autonomous", b"supervised")
                connection.execute("UPDATE policies SET bundle = ?", (changed,))
        with State.open(folder, create=False) as state:
            assert state.policy is None
            assert len(state.faults) == 1
            again = state.apply_policy(policy_file(burst=21), ana)
            assert again.previous == applied.digest
            assert state.policy is not None
            assert state.faults == ()


class TestSecrets:
    def test_is_usable_listed_recorded_and_there_after_a_restart(self, folder: Path, ana: Actor) -> None:
        with State.open(folder, create=True) as state:
            assert state.secret("acme", "zendesk/prod") is None
            done = state.set_secret("acme", "zendesk/prod", Secret("k1"), ana)
            held = state.secret("acme", "zendesk/prod")
            assert held is not None
            assert (held[0].reveal(), held[1]) == (b"k1", 1)
            assert held[0].thumbprint() == done.thumbprint
            (record,) = records(state, "secret.set")
            assert (record["tenant"], record["name"], record["version"], record["thumb"], record["seq"]) == (
                "acme",
                "zendesk/prod",
                1,
                done.thumbprint,
                done.seq,
            )
        with State.open(folder, create=False) as state:
            held = state.secret("acme", "zendesk/prod")
            assert held is not None
            assert (held[0].reveal(), held[0].thumbprint(), held[1]) == (b"k1", done.thumbprint, 1)
            (listed,) = state.list_secrets()
            assert isinstance(listed, SecretVersion)
            assert (listed.name, listed.version, listed.set_at) == ("zendesk/prod", 1, done.set_at)

    def test_a_new_version_destroys_the_older_one(self, state: State, ana: Actor) -> None:
        state.set_secret("acme", "s", Secret("k1"), ana)
        assert state.set_secret("acme", "s", Secret("k2"), ana).version == 2
        rows = state._database.query("SELECT version FROM secrets WHERE sealed IS NOT NULL")
        assert rows == [(2,)]
        assert state.secret("globex", "s") is None

    def test_removed_is_gone_recorded_and_its_number_is_not_used_again(self, folder: Path, ana: Actor) -> None:
        with State.open(folder, create=True) as state:
            state.set_secret("acme", "s", Secret("k1"), ana)
            removed = state.remove_secret("acme", "s", ana)
            assert state.secret("acme", "s") is None
            assert state.list_secrets() == ()
            assert [record["seq"] for record in records(state, "secret.remove")] == [removed.seq]
            with pytest.raises(StateRefused, match="no secret"):
                state.remove_secret("acme", "s", ana)
        with State.open(folder, create=False) as state:
            assert state.secret("acme", "s") is None
            assert state.set_secret("acme", "s", Secret("k3"), ana).version == 2

    def test_one_that_its_connection_cannot_present_is_refused(
        self, state: State, policy_file: Callable[..., Path], ana: Actor
    ) -> None:
        state.apply_policy(policy_file(), ana)
        assert state.missing_secrets() == ("acme/zendesk/prod",)
        with pytest.raises(StateRefused, match="line break") as refused:
            state.set_secret("acme", "zendesk/prod", Secret("canary\n"), ana)
        assert "canary" not in str(refused.value)
        assert state.secret("acme", "zendesk/prod") is None
        assert state.set_secret("acme", "zendesk/prod", Secret("k"), ana).connections == ("tickets",)
        assert state.missing_secrets() == ()

    @pytest.mark.parametrize(("tenant", "name"), [("-", "s"), ("", "s"), ("a/b", "s"), ("acme", ""), ("acme", "a\nb")])
    def test_a_name_that_is_none_is_refused(self, state: State, ana: Actor, tenant: str, name: str) -> None:
        with pytest.raises(StateRefused):
            state.set_secret(tenant, name, Secret("k"), ana)

    def test_one_that_was_moved_to_another_tenant_does_not_open_and_is_told(self, folder: Path, ana: Actor) -> None:
        with State.open(folder, create=True) as state:
            state.set_secret("acme", "s", Secret("k1"), ana)
            state.set_secret("globex", "s", Secret("k2"), ana)
            with state._database.transaction() as connection:
                connection.execute(
                    "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE tenant = 'acme') "
                    "WHERE tenant = 'globex'"
                )
        with State.open(folder, create=False) as state:
            assert state.secret("acme", "s") is not None
            assert state.secret("globex", "s") is None
            assert [fault for fault in state.faults if "globex/s" in fault]
            state.set_secret("globex", "s", Secret("k3"), ana)
            assert state.faults == ()


class TestTokens:
    @pytest.fixture(autouse=True)
    def policy(self, state: State, policy_file: Callable[..., Path], ana: Actor) -> None:
        state.apply_policy(policy_file(), ana)

    def test_is_recorded_before_it_is_handed_out(self, state: State, ana: Actor) -> None:
        issued = issue(state, ana)
        (record,) = records(state, "token.issue")
        p = issued.principal
        assert (record["credential"], record["account"], record["run"], record["epoch"], record["expires"]) == (
            p.credential,
            "agent",
            "r_1",
            0,
            p.expires_at,
        )
        assert issued.token.reveal().decode() not in str(record)
        assert p.expires_at - p.issued_at == 300
        assert identified(state, issued) == "identified"

    @pytest.mark.parametrize("ttl", [0, -1, 3601])
    def test_not_for_longer_than_the_policy_says(self, state: State, ana: Actor, ttl: int) -> None:
        with pytest.raises(StateRefused, match="3600"):
            issue(state, ana, ttl)
        assert records(state, "token.issue") == []

    @pytest.mark.parametrize(("tenant", "account"), [("globex", "agent"), ("acme", "nobody"), ("-", "agent")])
    def test_not_for_who_is_not_declared(self, state: State, ana: Actor, tenant: str, account: str) -> None:
        with pytest.raises(StateRefused):
            state.issue_token(tenant, account, "w", "r", None, ana)

    @pytest.mark.parametrize("run", ["a b", "a\nb", "\x1b[31m", "x" * 129])
    def test_not_for_a_run_that_is_no_name(self, state: State, ana: Actor, run: str) -> None:
        with pytest.raises(StateRefused):
            issue(state, ana, run=run)

    def test_renewing_keeps_the_run_and_the_lifetime(self, state: State, ana: Actor) -> None:
        first = issue(state, ana, 60)
        second = state.renew_token(first.token, ana)
        assert (second.principal.run, second.principal.workflow) == (first.principal.run, first.principal.workflow)
        assert second.principal.expires_at - second.principal.issued_at == 60
        assert second.principal.credential != first.principal.credential
        assert identified(state, second) == "identified"

    @pytest.mark.parametrize("text", ["", "a.b.c", "\u00e9"])
    def test_renewing_what_is_no_token(self, state: State, ana: Actor, text: str) -> None:
        with pytest.raises(StateRefused):
            state.renew_token(Secret(text or "-"), ana)

    def test_what_a_revocation_would_stop_is_listed(self, state: State, ana: Actor) -> None:
        first = issue(state, ana)
        renewed = state.renew_token(first.token, ana)
        other = issue(state, ana, run="r_2")
        ids = {p.credential for p in state.live_credentials(AGENT)}
        assert ids == {t.principal.credential for t in (first, renewed, other)}
        lineage = Target(TargetKind.CREDENTIAL, "acme", renewed.principal.credential)
        assert {p.credential for p in state.live_credentials(lineage)} == ids - {other.principal.credential}
        assert state.tenant_of_credential(renewed.principal.credential) == "acme"
        assert state.tenant_of_credential("k_unknown") is None
        state.revoke(lineage, "stolen", ana)
        assert {p.credential for p in state.live_credentials(AGENT)} == {other.principal.credential}


def test_renewing_after_expiry_for_as_long_as_the_old_one_lived(
    folder: Path, policy_file: Callable[..., Path], ana: Actor
) -> None:
    now = [1_800_000_000.0]
    with State.open(folder, create=True, clock=lambda: now[0]) as state:
        state.apply_policy(policy_file(), ana)
        first = issue(state, ana, 60)
        now[0] += 119
        second = state.renew_token(first.token, ana)
        assert second.principal.issued_at == int(now[0])
        now[0] += 1
        with pytest.raises(StateRefused, match="too long ago"):
            state.renew_token(first.token, ana)


class TestRevocations:
    @pytest.fixture(autouse=True)
    def policy(self, state: State, policy_file: Callable[..., Path], ana: Actor) -> None:
        state.apply_policy(policy_file(), ana)

    def test_is_in_force_before_the_disk_is_touched(self, state: State, ana: Actor) -> None:
        issued = issue(state, ana)
        seen: list[tuple[int, str, int]] = []

        def cut(epoch: int) -> None:
            seen.append((epoch, identified(state, issued), len(records(state, "revocation.issue"))))

        done = state.revoke(AGENT, "INC-204", ana, in_force=cut)
        assert seen == [(done.epoch, "credential_revoked", 0)]
        (record,) = records(state, "revocation.issue")
        assert (record["seq"], record["epoch"], record["reason"]) == (done.seq, done.epoch, "INC-204")
        assert record["target"] == {"kind": "account", "tenant": "acme", "name": "agent"}

    def test_is_written_although_the_cut_fails(self, state: State, ana: Actor) -> None:
        def cut(epoch: int) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            state.revoke(AGENT, "INC-204", ana, in_force=cut)
        assert len(records(state, "revocation.issue")) == 1
        assert state._database.query("SELECT epoch FROM orders") == [(1,)]

    def test_nothing_is_issued_or_renewed_until_restored_and_the_old_stay_dead(self, state: State, ana: Actor) -> None:
        old = issue(state, ana)
        state.revoke(AGENT, "INC-204", ana)
        for attempt in (lambda: issue(state, ana), lambda: state.renew_token(old.token, ana)):
            with pytest.raises(StateRefused) as refused:
                attempt()
            assert refused.value.code == "credential_revoked"
        restored = state.restore(AGENT, "closed", ana)
        assert [r["epoch"] for r in records(state, "revocation.restore")] == [restored.epoch] == [2]
        assert identified(state, old) == "credential_revoked"
        with pytest.raises(StateRefused):
            state.renew_token(old.token, ana)
        assert identified(state, issue(state, ana)) == "identified"

    def test_what_makes_no_sense_changes_nothing(self, state: State, ana: Actor) -> None:
        with pytest.raises(RevocationRefused):
            state.revoke(AGENT, "a\nb", ana)
        with pytest.raises(StateRefused):
            state.restore(AGENT, "never revoked", ana)
        assert state.revocations.epoch == 0


def test_all_of_it_survives_a_restart(folder: Path, policy_file: Callable[..., Path], ana: Actor) -> None:
    everything = Target(TargetKind.ALL)
    with State.open(folder, create=True) as state:
        state.apply_policy(policy_file(), ana)
        first = issue(state, ana)
        state.revoke(AGENT, "one", ana)
        state.restore(AGENT, "two", ana)
        second = issue(state, ana)
        state.revoke(everything, "three", ana)
        before = state.revocations
    with State.open(folder, create=False) as state:
        assert state.revocations == before
        assert identified(state, first) == identified(state, second) == "credential_revoked"
        state.restore(everything, "four", ana)
        third = issue(state, ana)
    with State.open(folder, create=False) as state:
        assert identified(state, first) == identified(state, second) == "credential_revoked"
        assert identified(state, third) == "identified"
        assert state.revocations.epoch == 4


def test_other_acts_are_on_record(state: State, ana: Actor) -> None:
    receipt = state.record_act(ana, "ledger.read", {"range": "0-10"}, "acme")
    _, record = records(state, "operator.act")  # the first is the opening's own
    assert (record["seq"], record["act"], record["detail"], record["tenant"]) == (
        receipt.seq,
        "ledger.read",
        {"range": "0-10"},
        "acme",
    )


def test_after_closing_nothing_is_done(folder: Path, policy_file: Callable[..., Path], ana: Actor) -> None:
    state = State.open(folder, create=True)
    state.close()
    with pytest.raises(StateUnavailable):
        state.apply_policy(policy_file(), ana)
    with pytest.raises(StateUnavailable):
        state.set_secret("acme", "s", Secret("k"), ana)
    assert state.policy is None
    assert state.secret("acme", "s") is None
