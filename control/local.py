"""The operations done to a state that this process holds: by the running process for its operators, or by a command
that took the state's lock because nothing runs.

A revocation goes in this order: in force (refused from now on), then cut, then recorded what the cut did.
"""

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from control import authority_life, policy_life
from control.alerts.views import AlertOperations
from control.authorities import Authorities
from control.authority_views import AuthoritiesShown, RotationAsked
from control.fleet_views import FleetOperations
from control.input_views import InputOperations
from control.limit_views import LimitOperations
from control.local_alerts import LocalAlerts
from control.local_fleet import LocalFleet
from control.local_inputs import LocalInputs
from control.local_limits import LocalLimits
from control.local_spending import LocalSpending
from control.local_status import status_of
from control.local_suspensions import LocalSuspensions
from control.operations import (
    Act,
    OperationError,
    PolicyApplied,
    PolicyInForce,
    PolicyText,
    Provenance,
    Recorded,
    Refused,
    Restored,
    Revoked,
    SecretListed,
    SecretSet,
    TokenInspected,
    TokenIssued,
    TokenRequest,
    Unavailable,
    WouldRevoke,
    WrongUse,
)
from control.policy_views import PolicyActivation
from control.spending.views import SpendOperations
from control.state import (
    RevocationDone,
    RevocationIncomplete,
    State,
    StateInvalid,
    StateLocked,
    StateRefused,
    StateUnavailable,
)
from control.status_views import Access, InFlightCall, Status
from control.suspension_views import SuspensionOperations
from credentials.actor import Actor
from credentials.revocation import RevocationRefused, Target, TargetKind
from credentials.secret import Secret
from credentials.tokens import CredentialRejected, IssuedToken

if TYPE_CHECKING:
    from control.node import Node
    from rules.policy.compile import PolicySet, TenantPolicy

FORCE_LOOK_SECONDS = 0.0005
"""An order is in force within microseconds of being given."""


class Local:
    """`Operations` on a state in this process, as done by one actor."""

    def __init__(self, state: State, actor: Actor, node: "Node | None" = None) -> None:
        self._state = state
        self._actor = actor
        self._node = node
        self.inputs: InputOperations = LocalInputs(state, actor)
        self.fleet: FleetOperations = LocalFleet(state, actor, node)
        self.alerts: AlertOperations = LocalAlerts(state, actor, node)
        self.limits: LimitOperations = LocalLimits(state, node)
        self.spending: SpendOperations = LocalSpending(state, actor)
        self.suspensions: SuspensionOperations = LocalSuspensions(state, actor, node)

    def status(self) -> Status:
        """See `Operations.status`."""
        return status_of(self._state, self._node)

    def access(self) -> Access:
        """See `Operations.access`."""
        return Access(None, None, "") if self._node is None else self._node.access()

    # Policies and secrets

    def policy_in_force(self, moment: datetime | None) -> PolicyInForce:
        """See `Operations.policy_in_force`."""
        with _explained():
            return PolicyInForce(*self._state.policy_in_force(moment))

    def apply_policy(self, text: PolicyText, provenance: Provenance) -> PolicyApplied:
        """See `Operations.apply_policy`."""
        with _explained():
            return policy_life.apply(text, provenance, self._state, self._actor, self._node)

    def policy_history(self, limit: int) -> tuple[PolicyActivation, ...]:
        """See `Operations.policy_history`."""
        with _explained():
            return policy_life.history(limit, self._state)

    def roll_back_policy(self, to: str | None, provenance: Provenance) -> PolicyApplied:
        """See `Operations.roll_back_policy`."""
        with _explained():
            return policy_life.roll_back(to, provenance, self._state, self._actor, self._node)

    def set_secret(self, tenant: str, name: str, secret: Secret) -> SecretSet:
        """See `Operations.set_secret`."""
        with _explained():
            done = self._state.set_secret(tenant, name, secret, self._actor)
        policy = self._state.policy
        warnings = () if done.connections or policy is None else ("nothing in the policy uses this secret",)
        return SecretSet(done.tenant, done.name, done.version, done.thumbprint, (*warnings, *self._everywhere()))

    def list_secrets(self) -> tuple[SecretListed, ...]:
        """See `Operations.list_secrets`."""
        with _explained():
            return tuple(
                SecretListed(row.tenant, row.name, row.version, row.thumbprint, row.set_at)
                for row in self._state.list_secrets()
            )

    def remove_secret(self, tenant: str, name: str) -> SecretListed:
        """See `Operations.remove_secret`."""
        with _explained():
            row = self._state.remove_secret(tenant, name, self._actor)
        self._everywhere()
        return SecretListed(row.tenant, row.name, row.version, row.thumbprint, row.set_at)

    # Credentials

    def issue_token(self, request: TokenRequest) -> TokenIssued:
        """See `Operations.issue_token`."""
        tenant = self._tenant(request.tenant)
        account = self._account(tenant, request.account)
        with _explained():
            return _issued(
                self._state.issue_token(
                    tenant.tenant, account, request.workflow, request.run, request.ttl_seconds, self._actor
                )
            )

    def renew_token(self, token: Secret) -> TokenIssued:
        """See `Operations.renew_token`."""
        with _explained():
            return _issued(self._state.renew_token(token, self._actor))

    def inspect_token(self, token: Secret) -> TokenInspected:
        """See `Operations.inspect_token`."""
        try:
            text = token.reveal().decode("ascii")
            principal = self._state.identifier.identify(text, self._state.revocations, time.time())
        except (CredentialRejected, UnicodeDecodeError) as rejected:
            code = rejected.code if isinstance(rejected, CredentialRejected) else "credential_invalid"
            detail = rejected.detail if isinstance(rejected, CredentialRejected) else "not a token"
            return TokenInspected(False, str(code), detail, None, None, None, None, None, None, None)
        return TokenInspected(
            True, None, None, principal.tenant, principal.account, principal.workflow, principal.run,
            principal.credential, principal.epoch, principal.expires_at,
        )  # fmt: skip

    # Stop orders

    def tenant_of_credential(self, credential: str) -> str | None:
        """See `Operations.tenant_of_credential`."""
        with _explained():
            return self._state.tenant_of_credential(credential)

    def would_revoke(self, target: Target) -> WouldRevoke:
        """See `Operations.would_revoke`."""
        with _explained():
            live = self._state.live_credentials(target)
        runs = {principal.run for principal in live}
        return WouldRevoke(
            epoch=self._state.revocations.epoch,
            runs=len(runs),
            credentials=len(live),
            in_flight=tuple(call for call in self._in_flight() if _concerns(target, call, runs)),
        )

    def revoke(self, target: Target, reason: str) -> Revoked:
        """See `Operations.revoke`."""
        began = time.perf_counter_ns()
        incomplete: RevocationIncomplete | None = None
        epoch = seq = 0
        known = self._state.revocations.find(target)
        before = 0 if known is None else known.epoch
        # The order takes force before it is durable, and what is in flight must not go on because a disk is slow.
        with ThreadPoolExecutor(1, "revocation") as aside:
            order = aside.submit(self._state.revoke, target, reason, self._actor)
            self._wait_until_in_force(target, before, order)
            cut = None if self._node is None or self._refused(order) else self._node.cut(target)
        try:
            with _explained(but=RevocationIncomplete):
                done = order.result()
            epoch, seq = done.epoch, done.seq
        except RevocationIncomplete as error:
            incomplete, epoch = error, error.epoch
        micros = (time.perf_counter_ns() - began) // 1000
        calls = () if cut is None else cut.calls
        if incomplete is not None:
            raise Unavailable(f"{incomplete.message}; {len(calls)} calls were cut", incomplete.fix)
        content = {"epoch": epoch, "cut": len(calls), "inflight": [call.call for call in calls][:500], "micros": micros}
        try:
            self._state.record("revocation.effect", target.tenant or "-", content)
        except StateUnavailable as error:
            raise Unavailable(
                f"epoch {epoch} is in force, {len(calls)} calls were cut, but that could not be recorded: {error}",
                "Look at disk and ledger: exeat status",
            ) from error
        asked, answered = (1, 1) if cut is None else (cut.asked, cut.answered)
        return Revoked(epoch, seq, asked, answered, cut=len(calls), micros=micros, in_flight=calls)

    def restore(self, target: Target, reason: str) -> Restored:
        """See `Operations.restore`."""
        with _explained():
            done = self._state.restore(target, reason, self._actor)
        self._everywhere()
        return Restored(done.epoch, done.seq)

    def record_act(self, tenant: str, act: Act, detail: Mapping[str, str]) -> Recorded:
        """See `Operations.record_act`."""
        with _explained():
            return Recorded(self._state.record_act(self._actor, act, detail, tenant).seq)

    def authorities(self) -> AuthoritiesShown:
        """See `Operations.authorities`."""
        return authority_life.show(self._authorities(), self._state.policy)

    def rotate_authority(self, asked: RotationAsked) -> AuthoritiesShown:
        """See `Operations.rotate_authority`."""
        with _explained():
            return authority_life.take(asked, self._state, self._actor, self._node)

    def _authorities(self) -> Authorities:
        if self._node is not None:
            return self._node.authorities
        if not Authorities.exist(self._state.keys):
            raise Refused("there is no authority yet", "exeat up makes one; or: exeat ca create")
        return Authorities.open(self._state.keys)

    def _everywhere(self) -> tuple[str, ...]:
        """What has just been changed is in force in every gate; which are not, for people."""
        return () if self._node is None else self._node.everywhere()

    def _wait_until_in_force(self, target: Target, before: int, order: "Future[RevocationDone]") -> None:
        """The order, whose epoch will be greater than `before`, refuses what comes; or it has failed."""
        while not order.done():
            newest = self._state.revocations.find(target)
            if newest is not None and newest.active and newest.epoch > before:
                return
            time.sleep(FORCE_LOOK_SECONDS)

    @staticmethod
    def _refused(order: "Future[RevocationDone]") -> bool:
        """True when the order made no sense and nothing of it is in force."""
        return order.done() and isinstance(order.exception(), RevocationRefused | StateRefused)

    def _policy(self) -> "PolicySet":
        if self._state.policy is None:
            raise Refused("no policy is active", "Apply one: exeat policy apply PATH")
        return self._state.policy

    def _tenant(self, named: str | None) -> "TenantPolicy":
        tenants = self._policy().tenants
        if named is not None:
            if named not in tenants:
                raise WrongUse(f"the policy has no tenant {named}", f"It has: {', '.join(sorted(tenants)[:5])}")
            return tenants[named]
        if len(tenants) != 1:
            raise WrongUse(f"the policy has {len(tenants)} tenants", "Name one: --tenant T")
        return next(iter(tenants.values()))

    @staticmethod
    def _account(tenant: "TenantPolicy", named: str | None) -> str:
        if named is not None:
            if named not in tenant.accounts:
                known = ", ".join(sorted(tenant.accounts)[:5])
                raise WrongUse(f"tenant {tenant.tenant} has no account {named}", f"It has: {known}")
            return named
        if len(tenant.accounts) != 1:
            raise WrongUse(
                f"tenant {tenant.tenant} has {len(tenant.accounts)} accounts",
                f"Name one: {', '.join(sorted(tenant.accounts)[:5])}",
            )
        return next(iter(tenant.accounts))

    def _in_flight(self) -> tuple[InFlightCall, ...]:
        return () if self._node is None else self._node.in_flight()


@contextmanager
def open_local(folder: Path, *, create: bool) -> Iterator[Local]:
    """The operations on a state that nobody else holds, as done by the user of this process."""
    from control.peers import actor_of  # noqa: PLC0415 - brings uvicorn, which few commands need

    try:
        state = State.open(folder, create=create)
    except StateLocked as locked:
        raise Unavailable(
            f"{locked.message}, and its operators' socket does not answer", "Wait a moment, or look at its log."
        ) from locked
    except (StateInvalid, StateUnavailable) as invalid:
        raise Unavailable(invalid.message, invalid.fix) from invalid
    try:
        yield Local(state, actor_of(os.geteuid()))
    finally:
        state.close()


@contextmanager
def _explained(but: type[Exception] | None = None) -> Iterator[None]:
    """The state's errors in the operations' words; `but` passes unchanged."""
    try:
        yield
    except OperationError:
        raise
    except StateRefused as refused:
        raise Refused(refused.message, refused.fix) from refused
    except RevocationRefused as refused:
        raise WrongUse(str(refused)) from refused
    except CredentialRejected as rejected:
        raise Refused(f"{rejected.code}: {rejected.detail}") from rejected
    except StateUnavailable as unavailable:
        if but is not None and isinstance(unavailable, but):
            raise
        raise Unavailable(unavailable.message, unavailable.fix) from unavailable


def _issued(issued: IssuedToken) -> TokenIssued:
    principal = issued.principal
    return TokenIssued(
        token=issued.token,
        tenant=principal.tenant,
        account=principal.account,
        workflow=principal.workflow,
        run=principal.run,
        credential=principal.credential,
        epoch=principal.epoch,
        issued_at=principal.issued_at,
        expires_at=principal.expires_at,
    )


def _concerns(target: Target, call: InFlightCall, runs: set[str]) -> bool:
    """A call in flight names no credential, but its run; a credential and its renewals belong to one run."""
    if target.kind is TargetKind.ALL:
        return True
    if target.tenant != call.tenant:
        return False
    if target.kind is TargetKind.ACCOUNT:
        return target.name == call.account
    return target.kind is TargetKind.TENANT or call.run in runs
