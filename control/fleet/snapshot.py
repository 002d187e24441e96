"""What workers act on, as control last said it: parts that are replaced whole, in messages signed by control.

A worker takes a message only if control's key signed it and its number is greater than that of the last one: nothing
that was ever in force can be played to it again. Control's key is derived from the state's own, so it is the same one
after a restart; whoever starts a worker tells it which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from control.fleet.frames import FrameInvalid, Message
from control.state.state import State
from credentials.actor import Actor
from credentials.revocation import Revocation, Revocations, Target, TargetKind
from credentials.secret import Secret
from credentials.suspension import Suspension, Suspensions
from proxy.engine.authority import Authority
from rules.policy.compile import PolicySet

KIND: Final = "snapshot"
_CONTEXT: Final = b"exeat-snapshot/v1\n"


class SnapshotRefused(Exception):
    """Not from control, or older than what is known: nothing of it is taken."""


type Secrets = Mapping[tuple[str, str], tuple[Secret, int]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a gate reads of an installation, at one moment. Parts are compared by identity: each is replaced
    whole by its owner."""

    policy: PolicySet | None
    policy_epoch: int
    revocations: Revocations
    suspensions: Suspensions
    secrets: Secrets
    commitment_keys: Mapping[str, bytes]
    authority: Authority
    thumbprint_key: bytes
    """Of secrets: a secret has the same thumbprint in every worker's records."""
    token_keys: Mapping[str, bytes]
    """Public Ed25519 keys by `kid`."""
    origin: str

    def verifying_keys(self) -> dict[str, Ed25519PublicKey]:
        """By `kid`, for `TokenVerifier`."""
        return {kid: Ed25519PublicKey.from_public_bytes(raw) for kid, raw in self.token_keys.items()}

    @classmethod
    def of(cls, state: State, authority: Authority) -> "Snapshot":
        """What is in force now."""
        while True:
            epoch = state.policy_epoch
            policy = state.policy
            if state.policy_epoch == epoch:
                break
        return cls(
            policy,
            epoch,
            state.revocations,
            state.suspensions,
            state.secrets_in_force,
            state.commitment_keys,
            authority,
            state.thumbprint_key,
            state.token_keys,
            state.issuer_name,
        )


def changes(old: Snapshot | None, new: Snapshot, number: int, key: Ed25519PrivateKey) -> Message | None:
    """A signed message that makes `new` of `old` (None: of nothing); None where nothing differs."""
    body: dict[str, Any] = {}
    blobs: list[bytes] = []

    def blob(content: bytes) -> int:
        blobs.append(content)
        return len(blobs)  # the signature comes first

    if old is None or old.policy is not new.policy or old.policy_epoch != new.policy_epoch:
        body["policy"] = {
            "epoch": new.policy_epoch,
            "bundle": None if new.policy is None else blob(new.policy.bundle),
        }
    if old is None or old.revocations is not new.revocations:
        before = {} if old is None else old.revocations.orders()
        body["revocations"] = {
            "epoch": new.revocations.epoch,
            "orders": [
                _written(order) for target, order in new.revocations.orders().items() if before.get(target) is not order
            ],
        }
    if old is None or old.suspensions is not new.suspensions:
        body["suspensions"] = [
            [one.tenant, one.account, one.at.isoformat(), one.reason, _actor(one.actor)]
            for one in new.suspensions.all()
        ]
    if old is None or old.secrets is not new.secrets:
        body["secrets"] = [
            [tenant, name, version, blob(secret.reveal())] for (tenant, name), (secret, version) in new.secrets.items()
        ]
    if old is None or old.commitment_keys is not new.commitment_keys:
        body["commitments"] = [[tenant, blob(one)] for tenant, one in new.commitment_keys.items()]
    if old is None or old.authority is not new.authority:
        body["authority"] = blob(new.authority.to_pem())
    if old is None:
        body["identity"] = {
            "origin": new.origin,
            "thumbprints": blob(new.thumbprint_key),
            "keys": [[kid, blob(public)] for kid, public in new.token_keys.items()],
        }
    if not body:
        return None
    return _signed({"number": number, "whole": old is None, **body}, tuple(blobs), key)


def _signed(body: dict[str, Any], blobs: tuple[bytes, ...], key: Ed25519PrivateKey) -> Message:
    signature = key.sign(_CONTEXT + Message(KIND, body, blobs).encoded())
    return Message(KIND, body, (signature, *blobs))


def _written(order: Revocation) -> list[object]:
    target = order.target
    return [
        order.epoch,
        [target.kind.value, target.tenant, target.name],
        order.at.isoformat(),
        order.reason,
        _actor(order.actor),
        order.active,
    ]


def _actor(actor: Actor) -> list[str]:
    return [actor.kind, actor.id, actor.name]


@dataclass(frozen=True, slots=True)
class Announced:
    """A policy that is to decide from now on, and is not compiled yet: that takes long, and a revocation waits for
    nothing."""

    epoch: int
    bundle: bytes | None


@dataclass(slots=True)
class Follower:
    """A worker's side: the newest snapshot, and what a message makes of it."""

    public: Ed25519PublicKey
    number: int = 0
    current: Snapshot | None = None

    announced: Announced | None = None

    def take(self, message: Message) -> Announced | None:
        """What the message makes of the current one is the current one now, but for a policy: `adopt` it when compiled.

        Raises `SnapshotRefused`.
        """
        if not message.blobs:
            raise SnapshotRefused("a snapshot without a signature")
        unsigned = Message(KIND, message.body, message.blobs[1:])
        try:
            self.public.verify(message.blobs[0], _CONTEXT + unsigned.encoded())
        except (InvalidSignature, FrameInvalid):
            raise SnapshotRefused("a snapshot that control has not signed") from None
        number = message.body["number"]
        if number <= self.number:
            raise SnapshotRefused(f"snapshot {number} came after {self.number}")
        whole = message.body["whole"]
        if self.current is None and not whole:
            raise SnapshotRefused("the first snapshot is not whole")
        made = _made(None if whole else self.current, message)
        if self.current is not None:
            if made.revocations.epoch < self.current.revocations.epoch:
                raise SnapshotRefused("control knows fewer revocations than it did")
            if whole:  # until the policy that comes with it is compiled, the one before decides
                made = replace(made, policy=self.current.policy, policy_epoch=self.current.policy_epoch)
        self.current, self.number = made, number
        if "policy" not in message.body:
            return None
        at = message.body["policy"]["bundle"]
        self.announced = Announced(message.body["policy"]["epoch"], None if at is None else message.blobs[at])
        return self.announced

    def adopt(self, announced: Announced, policy: PolicySet | None) -> None:
        """The policy decides from now on, unless another one has been announced since."""
        if self.current is not None and self.announced is announced:
            self.current = replace(self.current, policy=policy, policy_epoch=announced.epoch)

    def compiled(self, announced: Announced) -> PolicySet | None:
        """The announced policy. Takes as long as compiling does; any thread."""
        active = None if self.current is None else self.current.policy
        if announced.bundle is None or (active is not None and active.bundle == announced.bundle):
            return None if announced.bundle is None else active
        return PolicySet.from_bundle(announced.bundle)


def _made(old: Snapshot | None, message: Message) -> Snapshot:
    body, blobs = message.body, message.blobs
    snapshot = old
    if snapshot is None:
        identity = body["identity"]
        snapshot = Snapshot(
            None, 0, Revocations(), Suspensions(), {}, {}, Authority.from_pem(blobs[body["authority"]]),
            blobs[identity["thumbprints"]], {kid: blobs[at] for kid, at in identity["keys"]}, identity["origin"],
        )  # fmt: skip
    elif "authority" in body:
        snapshot = replace(snapshot, authority=Authority.from_pem(blobs[body["authority"]]))
    if "revocations" in body:
        told = body["revocations"]
        orders = [_read(order) for order in told["orders"]]
        snapshot = replace(snapshot, revocations=snapshot.revocations.skip_to(told["epoch"]).with_orders(orders))
    if "suspensions" in body:
        snapshot = replace(
            snapshot,
            suspensions=Suspensions.of(
                Suspension(tenant, account, datetime.fromisoformat(at), reason, Actor(*actor))
                for tenant, account, at, reason, actor in body["suspensions"]
            ),
        )
    if "secrets" in body:
        key = snapshot.thumbprint_key
        secrets = {
            (tenant, name): (Secret(blobs[at], thumbprint_key=key), version)
            for tenant, name, version, at in body["secrets"]
        }
        snapshot = replace(snapshot, secrets=secrets)
    if "commitments" in body:
        snapshot = replace(snapshot, commitment_keys={tenant: blobs[at] for tenant, at in body["commitments"]})
    return snapshot


def _read(order: list[Any]) -> Revocation:
    epoch, (kind, tenant, name), at, reason, actor, active = order
    return Revocation(
        epoch, Target(TargetKind(kind), tenant, name), datetime.fromisoformat(at), reason, Actor(*actor), active
    )
