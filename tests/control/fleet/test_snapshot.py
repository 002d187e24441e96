"""What workers are told: whole or in parts, signed, never older than what they know."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.fleet.frames import Message
from control.fleet.snapshot import Follower, Snapshot, SnapshotRefused, changes
from credentials.actor import Actor
from credentials.revocation import Revocations, Target, TargetKind
from credentials.secret import Secret
from credentials.suspension import Suspension, Suspensions
from proxy.engine.authority import Authority
from rules.policy.compile import PolicySet
from tests.worlds.gate import write_policy

KEY = Ed25519PrivateKey.generate()
ACTOR = Actor("uid", "1000", "ana")
NOW = datetime(2026, 11, 25, tzinfo=UTC)
ACCOUNT = Target(TargetKind.ACCOUNT, "acme", "agent")
SUSPENDED = Suspension("acme", "agent", NOW, "a spike", ACTOR)
POLICY = """
exeat: 1
tenant: acme
connections:
  api: {host: api.example, secret: api/key}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: sys@acme.example, risk: risk@acme.example}
    rules: [{id: read, allow: {connection: api, methods: [GET], path: /**}}]
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PolicySet:
    return write_policy(tmp_path_factory.mktemp("policy"), POLICY)


@pytest.fixture(scope="module")
def first(policy: PolicySet) -> Snapshot:
    return Snapshot(
        policy=policy,
        policy_epoch=7,
        revocations=Revocations().revoke(ACCOUNT, NOW, "INC-1", ACTOR),
        suspensions=Suspensions.of([SUSPENDED]),
        secrets={("acme", "api/key"): (Secret("sk_1", thumbprint_key=b"t" * 32), 3)},
        commitment_keys={"acme": b"c" * 32},
        authority=Authority.create(),
        thumbprint_key=b"t" * 32,
        token_keys={"kid": Ed25519PrivateKey.generate().public_key().public_bytes_raw()},
        origin="exeat/i_1",
    )


@pytest.fixture
def follower(first: Snapshot) -> Follower:
    subject = Follower(KEY.public_key())
    tell(subject, None, first, 1)
    return subject


def tell(follower: Follower, old: Snapshot | None, new: Snapshot, number: int) -> Message:
    message = changes(old, new, number, KEY)
    assert message is not None
    announced = follower.take(message)
    if announced is not None:
        follower.adopt(announced, follower.compiled(announced))
    return message


def test_a_worker_knows_all_that_control_knows(first: Snapshot, follower: Follower) -> None:
    known = follower.current
    assert known is not None
    assert known.policy is not None
    assert first.policy is not None
    assert known.policy.digest == first.policy.digest
    assert known.policy_epoch == 7
    assert known.revocations == first.revocations
    secret, version = known.secrets["acme", "api/key"]
    assert (secret.reveal(), version) == (b"sk_1", 3)
    assert secret.thumbprint() == first.secrets["acme", "api/key"][0].thumbprint(), "records name it alike everywhere"
    assert known.commitment_keys == first.commitment_keys
    assert known.authority.pem == first.authority.pem
    assert known.verifying_keys().keys() == first.token_keys.keys()
    assert known.origin == first.origin


def test_only_what_changed_is_told(first: Snapshot, follower: Follower) -> None:
    other = Target(TargetKind.TENANT, "globex")
    second = replace(first, revocations=first.revocations.revoke(other, NOW, "INC-2", ACTOR))
    message = tell(follower, first, second, 2)
    assert message.body.keys() == {"number", "whole", "revocations"}
    assert len(message.body["revocations"]["orders"]) == 1
    assert follower.current is not None
    assert follower.current.revocations == second.revocations
    assert changes(second, second, 3, KEY) is None


def test_a_restored_target_is_told(first: Snapshot, follower: Follower) -> None:
    second = replace(first, revocations=first.revocations.restore(ACCOUNT, NOW, "closed", ACTOR))
    tell(follower, first, second, 2)
    assert follower.current is not None
    assert follower.current.revocations == second.revocations
    assert follower.current.revocations.closed("acme", "agent") is None


def test_who_is_suspended_is_told_and_who_no_longer_is(first: Snapshot, follower: Follower) -> None:
    assert follower.current is not None
    assert follower.current.suspensions.check("acme", "agent") == SUSPENDED
    whole = Suspension("globex", None, NOW, "a spike", ACTOR)
    second = replace(first, suspensions=first.suspensions.plus(whole).minus(SUSPENDED))
    message = tell(follower, first, second, 2)
    assert message.body.keys() == {"number", "whole", "suspensions"}
    assert follower.current.suspensions.all() == (whole,)
    assert follower.current.suspensions.check("globex", "anybody") == whole
    assert follower.current.suspensions.check("acme", "agent") is None
    tell(follower, second, replace(second, suspensions=Suspensions()), 3)
    assert follower.current.suspensions.all() == ()


def test_a_secret_that_is_gone_is_gone(first: Snapshot, follower: Follower) -> None:
    tell(follower, first, replace(first, secrets={}), 2)
    assert follower.current is not None
    assert not follower.current.secrets


def test_no_policy_is_told_as_well(first: Snapshot, follower: Follower) -> None:
    tell(follower, first, replace(first, policy=None, policy_epoch=0), 2)
    assert follower.current is not None
    assert follower.current.policy is None


def test_until_a_policy_is_compiled_the_one_before_decides(first: Snapshot, follower: Follower) -> None:
    again = changes(None, replace(first, policy_epoch=9), 2, KEY)
    assert again is not None
    announced = follower.take(again)
    assert announced is not None
    assert follower.current is not None
    assert (follower.current.policy is not None, follower.current.policy_epoch) == (True, 7)
    follower.adopt(announced, follower.compiled(announced))
    assert follower.current.policy_epoch == 9


def test_a_policy_that_was_overtaken_is_not_adopted(first: Snapshot, follower: Follower) -> None:
    one = replace(first, policy_epoch=8)
    two = replace(first, policy_epoch=9)
    earlier = follower.take(changes(first, one, 2, KEY))  # type: ignore[arg-type]
    later = follower.take(changes(one, two, 3, KEY))  # type: ignore[arg-type]
    assert earlier is not None
    assert later is not None
    follower.adopt(later, first.policy)
    follower.adopt(earlier, first.policy)
    assert follower.current is not None
    assert follower.current.policy_epoch == 9


@pytest.mark.parametrize("what", ["body", "blob", "signature", "none", "other key"])
def test_what_control_did_not_sign_is_refused(first: Snapshot, follower: Follower, what: str) -> None:
    message = changes(None, first, 2, Ed25519PrivateKey.generate() if what == "other key" else KEY)
    assert message is not None
    signature, *blobs = message.blobs
    if what == "body":
        message = Message(message.kind, {**message.body, "number": 3}, message.blobs)
    elif what == "blob":
        message = Message(message.kind, message.body, (signature, blobs[0] + b" ", *blobs[1:]))
    elif what == "signature":
        message = Message(message.kind, message.body, (bytes(64), *blobs))
    elif what == "none":
        message = Message(message.kind, message.body, ())
    before = follower.current
    with pytest.raises(SnapshotRefused):
        follower.take(message)
    assert follower.current is before


def test_nothing_old_is_played_again(first: Snapshot, follower: Follower) -> None:
    kept = changes(None, first, 2, KEY)
    assert kept is not None
    follower.take(kept)
    tell(follower, first, replace(first, revocations=first.revocations.revoke(ACCOUNT, NOW, "INC-3", ACTOR)), 5)
    for number in (2, 5):
        again = changes(None, first, number, KEY)
        assert again is not None
        with pytest.raises(SnapshotRefused, match="came after"):
            follower.take(again)


def test_a_control_that_lost_revocations_is_not_followed(first: Snapshot, follower: Follower) -> None:
    restored = changes(None, replace(first, revocations=Revocations()), 9, KEY)
    assert restored is not None
    with pytest.raises(SnapshotRefused, match="fewer revocations"):
        follower.take(restored)
    assert follower.current is not None
    assert follower.current.revocations == first.revocations


def test_a_first_snapshot_in_parts_is_refused(first: Snapshot) -> None:
    part = changes(first, replace(first, secrets={}), 1, KEY)
    assert part is not None
    with pytest.raises(SnapshotRefused, match="not whole"):
        Follower(KEY.public_key()).take(part)
