"""`State`: the folder, what is in force, and every change to it."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from control.inputs import KeptInputs
from control.state.clock import Clock
from control.state.commitment_keys import CommitmentKeys
from control.state.errors import StateError, StateInvalid, StateUnavailable
from control.state.folder import Folder
from control.state.following import follower_of
from control.state.journal import Journal
from control.state.ledger_port import LedgerPort
from control.state.opening import Ground, Join, open_ground
from control.state.outbox import Outbox
from control.state.policies import Activation, Applied, Policies, Stored, declared_of
from control.state.recovery import OPENED, Recovery
from control.state.revocations import RestoreDone, RevocationDone, StopOrders
from control.state.sealing import THUMBPRINTS, Secrets, SecretVersion, missing_secrets
from control.state.suspensions import SuspensionStore
from control.state.tokens import Tokens
from control.stores.limits import EmbeddedReservations
from control.stores.limits_replay import LimitsSnapshot, LimitsStore
from control.stores.sqlite import StoreUnavailable
from credentials.actor import SYSTEM, Actor
from credentials.identifier import Identifier
from credentials.principal import Principal
from credentials.revocation import Revocations, Target
from credentials.secret import Secret
from credentials.suspension import Suspensions
from credentials.tokens import IssuedToken, TokenIssuer, TokenVerifier
from ledger import LedgerError, Receipt
from rules.policy.compile import KEEP_INPUTS_SECONDS, PolicySet
from rules.policy.source import PolicySource

logger = logging.getLogger("exeat.state")


class State:
    """One open state. Attributes that the proxy reads are immutable objects, replaced whole by the control side.

    Methods that change something block until it is durable: call them from a thread that may wait. All are safe from
    any thread. Every one raises `StateRefused` (no), `StateUnavailable` (could not) or what it names.
    """

    def __init__(self, folder: Folder, ground: Ground, clock: Clock) -> None:
        self.directory = folder.path
        self.keys = folder.keys
        self.trust_file = folder.trust
        self.instance: str = ground.instance
        self.ledger: LedgerPort = ground.ledger
        self._folder = folder
        self._database = ground.database
        self._register = ground.register
        self._changes = RLock()
        self._closed = False
        self._journal = Journal(ground.database, ground.ledger)
        self._policies = Policies(ground.database, self._journal, clock)
        self._orders = StopOrders(ground.database, self._journal, clock)
        self._secrets = Secrets(ground.database, self._journal, ground.kek, clock)
        self._commitments = CommitmentKeys(ground.database, ground.kek)
        self.thumbprint_key = ground.kek.derive(THUMBPRINTS)
        self.snapshot_key = Ed25519PrivateKey.from_private_bytes(ground.kek.derive("snapshots of workers"))
        """Signs what workers are told."""
        self.token_keys = {ground.signing.kid: ground.signing.public.public_bytes_raw()}
        self.issuer_name = ground.origin
        self._limits = LimitsStore(ground.database)
        self.inputs = KeptInputs(folder.inputs, folder.input_keys, ground.kek, self._keep_inputs_seconds)
        """What calls were decided on; `start` it where calls come."""
        self.alerts = Outbox(ground.database, self._journal, clock, lambda: self.policy)
        """What somebody should hear of; a `Deliverer` sends it."""
        self.suspended = SuspensionStore(ground.database, self._journal, self.alerts, clock)
        """Whose calls are refused for now; what an operator ends."""
        self.following = follower_of(
            folder, lambda: self.policy, self.alerts, self.suspended, clock, lambda: self.ledger.head().size
        )
        """What is made of the ledger afterwards; `start` it where calls come."""
        self.reservations = EmbeddedReservations(wall_seconds=clock)
        """Counted from the ledger; the proxy reserves here."""
        verifier = TokenVerifier({ground.signing.kid: ground.signing.public}, ground.origin)
        self.issuer: TokenIssuer = TokenIssuer(ground.signing, ground.origin)
        self.identifier: Identifier = Identifier(verifier)
        self._tokens = Tokens(
            ground.database, self._journal, self._orders, issuer=self.issuer, verifier=verifier, clock=clock
        )

    @classmethod
    def open(cls, directory: Path, *, create: bool, clock: Clock = time.time, join: Join | None = None) -> "State":
        """The state in `directory`, held by this process, recovered and consistent; made first if `create`.

        With `join`, its ledger is the one that another process writes (`control.sequencing`).
        Raises `StateLocked` when another process holds it and `StateInvalid` when an operator has to look first.
        """
        folder = Folder.take(directory, create=create)
        try:
            ground = open_ground(folder, join)
        except BaseException:
            folder.close()
            raise
        state = cls(folder, ground, clock)
        try:
            state._load()
        except BaseException:
            state._abandon()
            raise
        return state

    def _load(self) -> None:
        try:
            self._policies.load()
            self._orders.load()
            self.suspended.load()
            self._secrets.load()
            self._commitments.load()
            opened = self._opened()
            Recovery(
                self.ledger, self._journal, self._policies, self._orders, self._limits, self.reservations, opened
            ).run()
            self._count_opening(opened + 1)
        except StoreUnavailable as error:
            raise StateInvalid(f"the database cannot be read: {error}", "Look at the disk.") from error

    def _opened(self) -> int:
        rows = self._database.query("SELECT value FROM instance WHERE key = 'opened'")
        return int(rows[0][0]) if rows else 0

    def _count_opening(self, number: int) -> None:
        """The database and the ledger know of this opening: an older copy of the database is noticed by the next."""
        content = {"act": OPENED, "actor": SYSTEM.as_record(), "detail": {"number": str(number)}}
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO instance (key, value) VALUES ('opened', ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (str(number),),
            )
            entry = self._journal.put(connection, "operator.act", "-", content)
        self._journal.record(entry)

    # --- what is in force; read from any thread ---

    @property
    def policy(self) -> PolicySet | None:
        """The active policy; None: everything is denied."""
        return self._policies.active.policy

    def policy_in_force(self, moment: datetime | None) -> Stored:
        """The policy that was active at a moment, now when None. Raises `StateRefused` when none was."""
        return self._policies.in_force(moment)

    def policy_history(self, limit: int) -> tuple[Activation, ...]:
        """The newest activations, the newest first."""
        try:
            return self._policies.history(limit)
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error

    # What several processes share: `control.fleet` tells workers.

    @property
    def secrets_in_force(self) -> Mapping[tuple[str, str], tuple[Secret, int]]:
        """Newest version by tenant and name; replaced whole."""
        return self._secrets.current

    @property
    def commitment_keys(self) -> Mapping[str, bytes]:
        """By tenant; replaced whole."""
        return self._commitments.current

    @property
    def policy_epoch(self) -> int:
        """Sequence number of the record that activated it; 0 before the first."""
        return self._policies.active.seq

    @property
    def revocations(self) -> Revocations:
        """Every order up to now. Read it anew for every request."""
        return self._orders.current

    @property
    def suspensions(self) -> Suspensions:
        """Every account whose calls are refused for now."""
        return self.suspended.current

    @property
    def heard_until(self) -> float:
        """Infinite: what is in force is decided in this process."""
        return math.inf

    @property
    def faults(self) -> tuple[str, ...]:
        """What is stored and cannot be used, for health and status; what needs it is denied."""
        policy = () if self._policies.fault is None else (self._policies.fault,)
        return policy + tuple(f"the secret {name} does not open; set it again" for name in self._secrets.broken)

    def secret(self, tenant: str, name: str) -> tuple[Secret, int] | None:
        """The secret and its version; None when it is not set."""
        return self._secrets.current.get((tenant, name))

    def missing_secrets(self) -> tuple[str, ...]:
        """`tenant/name` of every secret that a connection wants and nobody has set."""
        return missing_secrets(self.policy, self._secrets.current)

    def commitment_key(self, tenant: str) -> bytes:
        """The key of the tenant's commitments. Made durable first for a tenant that has none (not on the hot path)."""
        key = self._commitments.current.get(tenant)
        if key is not None:
            return key
        with self._changes:
            try:
                return self._commitments.current.get(tenant) or self._commitments.make(tenant)
            except StoreUnavailable as error:
                raise StateUnavailable(f"no commitment key could be stored: {error}") from error

    def _keep_inputs_seconds(self, tenant: str) -> int:
        policy = self.policy
        of_tenant = None if policy is None else policy.tenants.get(tenant)
        return KEEP_INPUTS_SECONDS if of_tenant is None else of_tenant.keep_inputs_seconds

    # --- what operators do ---

    def apply_policy(self, source: Path | PolicySource, actor: Actor, **declared: str | None) -> Applied:
        """The policy is valid, stored, recorded and active. On any failure the last good one is.

        Raises `PolicyInvalid` (the attempt is recorded). What the operator declares about its origin, as `commit`,
        `author`, `approver` or `reason`, is recorded so.
        """
        with self._changes:
            applied = self._policies.apply(source, actor, declared_of(declared), self._commitments.ensure)
            self._commitments.load()
            return applied

    def roll_back_policy(self, to: str | None, actor: Actor, **declared: str | None) -> Applied:
        """A policy that was active before is active again; as `apply_policy`. See `Policies.roll_back` for `to`."""
        with self._changes:
            try:
                applied = self._policies.roll_back(to, actor, declared_of(declared), self._commitments.ensure)
            except StoreUnavailable as error:
                raise StateUnavailable(f"{error}; the last policy stays active") from error
            self._commitments.load()
            return applied

    def set_secret(self, tenant: str, name: str, secret: Secret, actor: Actor) -> SecretVersion:
        """The secret is sealed, recorded and used from the next call on."""
        with self._changes:
            return self._secrets.set(tenant, name, secret, actor, self.policy)

    def list_secrets(self) -> tuple[SecretVersion, ...]:
        """The newest version of every secret, without values."""
        try:
            return self._secrets.list(self.policy)
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error

    def remove_secret(self, tenant: str, name: str, actor: Actor) -> SecretVersion:
        """The secret is destroyed; calls that need it are denied from now on."""
        with self._changes:
            try:
                return self._secrets.remove(tenant, name, actor, self.policy)
            except StoreUnavailable as error:
                raise StateUnavailable(str(error)) from error

    def revoke(
        self, target: Target, reason: str, actor: Actor, *, in_force: Callable[[int], None] | None = None
    ) -> RevocationDone:
        """Nothing that matches `target` is identified any more, from the first moment of this call.

        `in_force` is called with the epoch as soon as that is so, before the disk is touched: cut what is in flight
        there. Raises `RevocationRefused` (nothing happened) or `RevocationIncomplete` (it IS in force, and the
        operator must be told what is missing).
        """
        # Not under the lock of changes: a stop waits for no policy and no disk.
        return self._orders.revoke(target, reason, actor, in_force)

    def restore(self, target: Target, reason: str, actor: Actor) -> RestoreDone:
        """Credentials may be issued to `target` again; those issued before stay dead."""
        with self._changes:
            return self._orders.restore(target, reason, actor)

    def issue_token(
        self, tenant: str, account: str, workflow: str, run: str | None, ttl_seconds: int | None, actor: Actor
    ) -> IssuedToken:
        """A recorded credential for a run (None: a new one), for `ttl_seconds` (None: the policy's default)."""
        return self._tokens.issue(
            self.policy, tenant, account, workflow=workflow, run=run, ttl_seconds=ttl_seconds, actor=actor
        )

    def renew_token(self, token: Secret, actor: Actor) -> IssuedToken:
        """The next credential of the same run."""
        return self._tokens.renew(self.policy, token, actor)

    def live_credentials(self, target: Target) -> tuple[Principal, ...]:
        """Credentials that a revocation of `target` would kill now."""
        try:
            return self._tokens.live(target)
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error

    def tenant_of_credential(self, credential: str) -> str | None:
        """Whose credential it is, for a revocation by id alone; None when it is not known."""
        try:
            return self._tokens.tenant_of(credential)
        except StoreUnavailable as error:
            raise StateUnavailable(str(error)) from error

    def record(self, type_: str, tenant: str, content: Mapping[str, object]) -> Receipt:
        """A record of the control side, durable: revocation.effect, operator.act, config.change."""
        return self._journal.submit(type_, tenant, content)

    def record_act(self, actor: Actor, act: str, detail: Mapping[str, str], tenant: str = "-") -> Receipt:
        """Something else that an operator does is on record; do it afterwards."""
        content = {"act": act, "actor": actor.as_record(), "detail": dict(detail)}
        return self._journal.submit("operator.act", tenant, content)

    # --- limits ---

    def limits_snapshot(self) -> LimitsSnapshot | None:
        """The newest one that was saved. Raises `StateUnavailable`."""
        try:
            return self._limits.load()
        except StoreUnavailable as error:
            raise StateUnavailable(f"the counters cannot be read: {error}") from error

    def take_limits(self) -> LimitsSnapshot:
        """The counters now, in microseconds. Any thread, one at a time."""
        return LimitsSnapshot.take(self.reservations, lambda: self.ledger.head().size)

    def save_limits(self, snapshot: LimitsSnapshot | None = None) -> None:
        """The counters are durable: the next start reads the ledger from there. Blocks; any thread."""
        try:
            self._orders.store()  # recovery will not read what lies before the snapshot
            self._limits.save(self.take_limits() if snapshot is None else snapshot)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the counters could not be stored: {error}") from error

    # --- the end ---

    def close(self) -> None:
        """Limits are saved, the ledger is stopped in order, the folder is free. Nothing may be in flight. Idempotent.

        Raises `StateUnavailable` when something could not be written; the folder is free all the same.
        """
        if self._closed:
            return
        self._closed = True
        problems: list[str] = []
        self.inputs.close()
        self.following.stop()
        # Where others write calls too, these counters did not see them; the next start counts from the last snapshot.
        save = (self.save_limits,) if self._register is not None else ()
        for step in (*save, self.ledger.close, self._close_stores):
            try:
                step()
            except (StateError, LedgerError, OSError) as error:
                problems.append(str(error))
        self._folder.close()
        if problems:
            raise StateUnavailable("; ".join(problems), "The next start recovers.")

    def _abandon(self) -> None:
        """Gives everything back without writing; opening has failed and says why."""
        self._closed = True
        self.inputs.close()
        self.following.stop()
        try:
            self.ledger.close()
        except LedgerError as error:
            logger.error("the ledger could not be closed: %s", error)
        self._close_stores()
        self._folder.close()

    def _close_stores(self) -> None:
        if self._register is not None:
            self._register.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"State({os.fspath(self.directory)!r}, instance={self.instance})"
