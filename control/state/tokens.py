"""Credentials: issued under the active policy and the newest revocations, recorded before they are handed out."""

import secrets
from dataclasses import dataclass
from typing import Final

from control.state.clock import Clock
from control.state.errors import StateRefused, StateUnavailable
from control.state.journal import Journal
from control.state.revocations import StopOrders
from control.stores.sqlite import Database, StoreUnavailable
from credentials.actor import Actor
from credentials.names import is_name
from credentials.principal import Principal
from credentials.revocation import Target, lineage
from credentials.secret import Secret
from credentials.tokens import CredentialRejected, IssuedToken, TokenIssuer, TokenVerifier
from rules.policy.compile import Account, PolicySet

KEEP_SECONDS: Final = 2 * 86_400
"""How long an expired credential stays in the list: as long as its lineage could still be named in a revocation."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which credential is to be made; judged already."""

    tenant: str
    account: str
    workflow: str
    run: str
    ttl_seconds: int


class Tokens:
    """Issues and renews. Decides by what it is given; safe from any thread."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        orders: StopOrders,
        *,
        issuer: TokenIssuer,
        verifier: TokenVerifier,
        clock: Clock,
    ) -> None:
        self._database = database
        self._journal = journal
        self._orders = orders
        self._issuer = issuer
        self._verifier = verifier
        self._clock = clock

    def issue(
        self,
        policy: PolicySet | None,
        tenant: str,
        account: str,
        *,
        workflow: str,
        run: str | None,
        ttl_seconds: int | None,
        actor: Actor,
    ) -> IssuedToken:
        """A recorded credential. Raises `StateRefused` or `StateUnavailable`; there is none then."""
        declared = _account(policy, tenant, account)
        ttl = declared.default_ttl_seconds if ttl_seconds is None else ttl_seconds
        if not 1 <= ttl <= declared.max_ttl_seconds:
            raise StateRefused(
                "ttl_refused",
                f"a credential of {account} lives 1 to {declared.max_ttl_seconds} seconds",
                "Ask for less, or raise credentials.max_ttl in the policy.",
            )
        wanted = Wanted(tenant, account, workflow, run or f"r_{secrets.token_hex(8)}", ttl)
        return self._issue(wanted, actor, None)

    def renew(self, policy: PolicySet | None, token: Secret, actor: Actor) -> IssuedToken:
        """The next credential of the same run, as long-lived as the old one was meant to be.

        The old one may have expired, by at most its own lifetime: a relay that slept may come back. Raises as `issue`.
        """
        old = self._old(token)
        declared = _account(policy, old.tenant, old.account)
        ttl = min(old.expires_at - old.issued_at, declared.max_ttl_seconds)
        return self._issue(Wanted(old.tenant, old.account, old.workflow, old.run, ttl), actor, old)

    def live(self, target: Target) -> tuple[Principal, ...]:
        """Credentials of the target that would be accepted now, oldest first."""
        revocations, now = self._orders.current, self._clock()
        rows = self._database.query(
            "SELECT tenant, account, workflow, run, credential, epoch, issued_at, expires_at FROM credentials "
            "WHERE expires_at > ? ORDER BY issued_at, credential",
            (now,),
        )
        principals = (Principal(*row) for row in rows)
        return tuple(p for p in principals if target.matches(p) and revocations.check(p) is None)

    def tenant_of(self, credential: str) -> str | None:
        """Whose credential it is, by its id or that of any renewal; None when none of them is known."""
        first = lineage(credential)
        if not is_name(first):
            return None
        rows = self._database.query(
            "SELECT tenant FROM credentials WHERE credential = ? OR substr(credential, 1, ?) = ? LIMIT 1",
            (first, len(first) + 1, f"{first}."),
        )
        return rows[0][0] if rows else None

    def _old(self, token: Secret) -> Principal:
        now = self._clock()
        try:
            old = self._verifier.verify(token.reveal().decode("ascii", "replace"), now)
        except CredentialRejected as rejected:
            principal = rejected.principal
            if rejected.code != "credential_expired" or principal is None:
                raise StateRefused(rejected.code, f"the credential cannot be renewed: {rejected.detail}") from None
            if now >= principal.expires_at + (principal.expires_at - principal.issued_at):
                message = "the credential expired too long ago to be renewed"
                raise StateRefused("credential_expired", message, "Issue a new one.") from None
            old = principal
        revocations = self._orders.current
        if old.epoch > revocations.epoch:
            raise StateRefused("credential_invalid", "the credential is newer than the known revocations")
        order = revocations.check(old)
        if order is not None:
            raise StateRefused("credential_revoked", f"the credential is revoked at epoch {order.epoch}")
        return old

    def _issue(self, wanted: Wanted, actor: Actor, renews: Principal | None) -> IssuedToken:
        # One snapshot for the question and for the epoch: revoked a moment later, the credential is born dead.
        revocations = self._orders.current
        closed = revocations.closed(wanted.tenant, wanted.account)
        if closed is not None:
            raise StateRefused(
                "credential_revoked",
                f"{closed.target} is revoked at epoch {closed.epoch}: {closed.reason}",
                "Restore it first.",
            )
        if renews is not None and revocations.check(renews) is not None:
            raise StateRefused("credential_revoked", "the credential is revoked")
        now = int(self._clock())
        try:
            issued = self._issuer.issue(
                tenant=wanted.tenant,
                account=wanted.account,
                workflow=wanted.workflow,
                run=wanted.run,
                epoch=revocations.epoch,
                ttl_seconds=wanted.ttl_seconds,
                now=now,
                renews=None if renews is None else renews.credential,
            )
        except ValueError as error:
            raise StateRefused("name_invalid", str(error)) from error
        p = issued.principal
        content = {
            "credential": p.credential,
            "account": p.account,
            "workflow": p.workflow,
            "run": p.run,
            "expires": p.expires_at,
            "epoch": p.epoch,
            "actor": actor.as_record(),
        }
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM credentials WHERE expires_at < ?", (now - KEEP_SECONDS,))
                connection.execute(
                    "INSERT INTO credentials "
                    "(tenant, account, workflow, run, credential, epoch, issued_at, expires_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (p.tenant, p.account, p.workflow, p.run, p.credential, p.epoch, p.issued_at, p.expires_at),
                )
                entry = self._journal.put(connection, "token.issue", p.tenant, content)
        except StoreUnavailable as error:
            raise StateUnavailable(f"the credential could not be stored: {error}") from error
        self._journal.record(entry)
        return issued


def _account(policy: PolicySet | None, tenant: str, account: str) -> Account:
    if policy is None:
        raise StateRefused("no_policy", "no policy is active", "Run: exeat policy apply")
    of_tenant = policy.tenants.get(tenant)
    if of_tenant is None:
        raise StateRefused("tenant_unknown", f"the policy has no tenant {tenant}")
    declared = of_tenant.accounts.get(account)
    if declared is None:
        raise StateRefused("account_unknown", f"tenant {tenant} has no account {account}")
    return declared
