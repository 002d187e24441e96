"""`exeat policy history` and `rollback`: a policy that was active is active again, on record, or the last one stays."""

import json
import sqlite3
from pathlib import Path

import pytest

from control.policies import check_policy
from control.state import State, StateRefused
from credentials.actor import Actor
from ledger import read_records
from rules.policy.compile import PolicySet, canonical_json, read_bundle
from rules.policy.source import PolicyInvalid
from tests.worlds.product import Product, running

OWNERS = "{accountable: ana@x.example, system: ben@x.example, risk: eve@x.example}"
FIRST = f"""\
exeat: 1
tenant: acme
connections:
  wiki: {{host: wiki.example, secret: wiki/key}}
accounts:
  agent:
    owners: {OWNERS}
    rules: [{{id: read, allow: {{connection: wiki, methods: [GET], path: /**}}}}]
tests:
  - {{account: agent, call: GET wiki /x, expect: allow}}
"""
SECOND = FIRST.replace("[GET]", "[GET, POST]")
ACTOR = Actor("uid", "7", "ana")


def explained(product: Product) -> int:
    """Whether the process lets a POST pass: the exit code of `policy explain`."""
    return product.cli("policy", "explain", "POST wiki /x", "--as", "agent").code


def write(product: Product, text: str) -> str:
    product.folder.mkdir(exist_ok=True)
    (product.folder / "policy.yaml").write_text(text)
    return str(product.folder / "policy.yaml")


def test_the_running_process_goes_back_and_says_what_that_closes() -> None:
    with running() as product:
        first = product.cli("policy", "apply", write(product, FIRST), "--author", "ana", "--json").ok().json
        product.cli("policy", "apply", write(product, SECOND), "--approver", "lea", "--reason", "more").ok()
        assert explained(product) == 0
        done = product.cli("policy", "rollback", "--reason", "INC-7", "--commit", "c0ffee").ok()
        assert [line.split(":")[0] for line in done.out.splitlines()] == ["opens", "closes", "active", "secret missing"]
        assert "closes: acme/agent: no longer allow read: GET,POST wiki /**" in done.out
        assert product.status()["policy"] == first["digest"]
        assert explained(product) == 1

        newest, applied, oldest = product.cli("policy", "history", "--json").ok().json
        assert (newest["number"], newest["active"], applied["active"], oldest["active"]) == (3, True, False, False)
        assert (newest["reason"], newest["commit"], newest["digest"]) == ("INC-7", "c0ffee", oldest["digest"])
        assert (applied["approver"], applied["reason"], oldest["author"]) == ("lea", "more", "ana")
        record = product.records("policy.activate")[-1]
        assert (record["seq"], record["policy"], record["previous"]) == (
            newest["seq"],
            first["digest"],
            applied["digest"],
        )
        assert (record["reason"], record["commit"]) == ("INC-7", "c0ffee")
        assert [file["name"] for file in record["files"]] == ["policy.yaml"]
        assert record["actor"]["kind"] == "uid"
        assert product.cli("policy", "history", "--limit", "1").ok().out.count("\n") == 1

        # Back again: what was active before this one.
        product.cli("policy", "rollback").ok()
        assert explained(product) == 0
        assert product.cli("policy", "rollback", "--to", first["digest"][:19]).ok().out.count("active: ") == 1
        for to, said in (("#1", "is the active policy"), ("9", "no policy"), ("nothing", "neither a digest")):
            refused = product.cli("policy", "rollback", "--to", to)
            assert (refused.code, said in refused.err) == (1, True), refused.err
        trust = ("--trust", str(product.state / "trust.policy"))
        assert product.cli("ledger", "verify", str(product.state / "ledger"), *trust).out.startswith("INTACT")


def test_without_a_process_it_is_the_same(tmp_path: Path) -> None:
    product = Product(tmp_path)
    assert product.cli("policy", "history", "--state", str(tmp_path / "nowhere")).code == 3
    product.cli("policy", "apply", write(product, FIRST)).ok()
    lonely = product.cli("policy", "rollback")
    assert (lonely.code, "no other policy was active before" in lonely.err) == (1, True)
    product.cli("policy", "apply", write(product, SECOND)).ok()
    product.cli("policy", "rollback", "--to", "1", "--reason", "INC-7").ok()
    lines = product.cli("policy", "history").ok().out.splitlines()
    assert [line.split()[0] for line in lines] == ["#3", "#2", "#1"]
    assert lines[0].split()[3] == "active"
    assert lines[0].endswith("reason: INC-7")
    assert sum("active" in line for line in lines) == 1


def applied(state: State, folder: Path, text: str) -> str:
    (folder / "p.yaml").write_text(text)
    return state.apply_policy(folder / "p.yaml", ACTOR).digest


def tampered(state: State, digest: str, bundle: bytes, as_digest: str) -> None:
    with state._database.transaction() as connection:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("UPDATE policies SET bundle = ?, digest = ? WHERE digest = ?", (bundle, as_digest, digest))
        connection.execute("UPDATE activations SET digest = ? WHERE digest = ?", (as_digest, digest))


def test_a_policy_that_this_version_cannot_read_is_refused_with_its_fault(tmp_path: Path) -> None:
    """A later version's policy: a key that this one does not know."""
    with State.open(tmp_path / "state", create=True) as state:
        old, new = applied(state, tmp_path, FIRST), applied(state, tmp_path, SECOND)
        data = json.loads(state.policy.bundle if state.policy else b"")
        data["tenants"][0]["futures"] = {}
        tampered(state, old, canonical_json(data), old)
        with pytest.raises(PolicyInvalid, match="not valid in this version"):
            state.roll_back_policy(None, ACTOR)
        assert state.policy_in_force(None).digest == new
        records = [record.type for record in read_records(state.directory / "ledger")]
        assert records[-1] == "policy.reject"


def test_a_policy_that_fails_its_own_tests_is_refused_with_the_test(tmp_path: Path) -> None:
    """As when a newer version judges a call otherwise than the one that let the policy in."""
    with State.open(tmp_path / "state", create=True) as state:
        old, new = applied(state, tmp_path, FIRST), applied(state, tmp_path, SECOND)
        policy = PolicySet.from_bundle(state._policies._earlier(old)[1])
        bundle = policy.bundle.replace(b'"expect":"allow"', b'"expect":"deny rule_denied"')
        digest = PolicySet.from_bundle(bundle).digest
        tampered(state, old, bundle, digest)
        with pytest.raises(PolicyInvalid, match="the test fails: GET wiki /x"):
            state.roll_back_policy(None, ACTOR)
        assert (state.policy_in_force(None).digest, state.policy and state.policy.digest) == (new, new)


def test_a_stored_policy_that_was_changed_is_no_policy_to_go_back_to(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        old, new = applied(state, tmp_path, FIRST), applied(state, tmp_path, SECOND)
        changed = state._policies._earlier(old)[1].replace(b"wiki.example", b"evil.example")
        tampered(state, old, changed, old)
        with pytest.raises(StateRefused, match="was changed"):
            state.roll_back_policy(None, ACTOR)
        assert state.policy_in_force(None).digest == new


def test_where_the_active_policy_cannot_be_read_one_goes_back_to_the_last_that_can(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        old, new = applied(state, tmp_path, FIRST), applied(state, tmp_path, SECOND)
        tampered(state, new, b"{}", new)
    with State.open(tmp_path / "state", create=False) as state:
        assert state.policy is None
        assert state.roll_back_policy(None, ACTOR, reason="INC-7").digest == old
        assert state.faults == ()
    with State.open(tmp_path / "state", create=False) as state:
        assert state.policy is not None
        assert state.policy.digest == old


def test_a_database_from_before_declared_origins_is_brought_up(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        applied(state, tmp_path, FIRST)
    with sqlite3.connect(tmp_path / "state" / "exeat.sqlite") as connection:
        connection.execute("ALTER TABLE activations DROP COLUMN declared")
        connection.execute("DROP TABLE suspensions")
        connection.execute("DROP TABLE deliveries")
        connection.execute("DROP TABLE alerts")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with State.open(tmp_path / "state", create=False) as state:
        (found,) = state.policy_history(10)
        assert (found.number, found.declared) == (1, {})


def test_a_bundle_read_back_has_the_documents_the_authorities_and_the_tests(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(FIRST)
    checked = check_policy(tmp_path / "p.yaml")
    back = read_bundle(checked.compiled.bundle)
    assert back.documents == checked.source.documents
    assert back.authorities == checked.source.authorities
    assert {tenant: len(cases) for tenant, cases in back.cases.items()} == {"acme": 1}
