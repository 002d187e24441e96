"""`Operations` in memory: remembers what was asked, answers or raises what the test says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from control.authority_views import AuthoritiesShown, AuthorityShown, RotationAsked
from control.input_views import InputsErased, InputsPage, InputsRead, InputsShown, InputsWanted
from control.operations import (
    PolicyApplied,
    PolicyText,
    Provenance,
    Restored,
    Revoked,
    SecretListed,
    SecretSet,
    TokenInspected,
    TokenIssued,
    TokenRequest,
    WouldRevoke,
)
from control.policy_views import PolicyActivation
from control.status_views import Access, LedgerStatus, Status
from credentials.actor import Actor
from credentials.revocation import Target
from credentials.secret import Secret

STATUS = Status(
    version="0", instance="i", state="/s", policy=None, tenants=("acme",), accounts=1, connections=2,
    secrets_missing=(), warnings=(), faults=(), epoch=3, revocations=(), ledger=LedgerStatus("log", 7, 0, 0.0, None),
    running=True, pid=1, listening=("127.0.0.1:1",), health=None, draining=False, unsafe=(), in_flight=(),
)  # fmt: skip
TOKEN = TokenIssued(Secret("token-canary"), "acme", "agent", "w", "r_1", "k_1", 3, 100, 400)
ACTIVATION = PolicyActivation(
    2, "sha256:1", "sha256:0", "2026-01-01T00:00:00Z", "ana (uid 7)", 5, True, "c0ffee", None, None, "INC-1"
)

AUTHORITIES = AuthoritiesShown(
    (AuthorityShown("signing", "CN=x", "ab", "cd=", "ECDSA P-256", "a", "b", 7, ("saas.test",), "PEM"),), (), "done"
)


READ = InputsRead("c_1", 5, "acme", "agent", None, None, "all", '{"inputs":2}', erased=False)


@dataclass
class RecordingInputs:
    """`InputOperations`, the same."""

    asked: Callable[..., Any]

    def page(self, wanted: InputsWanted, place: str) -> InputsPage:
        return self.asked(InputsPage((READ,), "5:1"), "page", wanted, place)

    def show(self, call: str) -> InputsShown:
        return self.asked(InputsShown(READ, 7, fits=True), "show", call)

    def erase(self, wanted: InputsWanted, reason: str) -> InputsErased:
        return self.asked(InputsErased(3, 9), "erase", wanted, reason)


@dataclass
class RecordingOperations:
    """Every call is in `asked`; `fails` is raised by all of them when set."""

    asked: list[tuple[object, ...]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    fails: Exception | None = None

    def as_actor(self, actor: Actor) -> "RecordingOperations":
        self.actors.append(actor)
        return self

    def _asked[T](self, answer: T, *what: object) -> T:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails
        return answer

    @property
    def inputs(self) -> RecordingInputs:
        return RecordingInputs(self._asked)

    def status(self) -> Status:
        return self._asked(STATUS, "status")

    def access(self) -> Access:
        return self._asked(Access("127.0.0.1", 8080, "PEM"), "access")

    def apply_policy(self, text: PolicyText, provenance: Provenance) -> PolicyApplied:
        return self._asked(
            PolicyApplied("sha256:1", None, ("acme",), 1, 2, (), ("acme/k",), 5), "apply", text, provenance
        )

    def policy_history(self, limit: int) -> tuple[PolicyActivation, ...]:
        return self._asked((ACTIVATION,), "history", limit)

    def roll_back_policy(self, to: str | None, provenance: Provenance) -> PolicyApplied:
        return self._asked(
            PolicyApplied("sha256:0", "sha256:1", ("acme",), 1, 2, (), ("acme/k",), 6), "rollback", to, provenance
        )

    def set_secret(self, tenant: str, name: str, secret: Secret) -> SecretSet:
        return self._asked(SecretSet(tenant, name, 1, "thumb", ()), "set", tenant, name, secret)

    def list_secrets(self) -> tuple[SecretListed, ...]:
        return self._asked((SecretListed("acme", "k", 1, "thumb", "2026-01-01T00:00:00Z"),), "list")

    def remove_secret(self, tenant: str, name: str) -> SecretListed:
        return self._asked(SecretListed(tenant, name, 1, "thumb", "2026-01-01T00:00:00Z"), "remove", tenant, name)

    def issue_token(self, request: TokenRequest) -> TokenIssued:
        return self._asked(TOKEN, "issue", request)

    def renew_token(self, token: Secret) -> TokenIssued:
        return self._asked(TOKEN, "renew", token)

    def inspect_token(self, token: Secret) -> TokenInspected:
        return self._asked(
            TokenInspected(False, "credential_expired", "expired", "acme", "agent", "w", "r_1", "k_1", 3, 400),
            "inspect",
            token,
        )

    def tenant_of_credential(self, credential: str) -> str | None:
        return self._asked("acme" if credential == "k_1" else None, "tenant", credential)

    def would_revoke(self, target: Target) -> WouldRevoke:
        return self._asked(WouldRevoke(3, 1, 2, ()), "would", target)

    def revoke(self, target: Target, reason: str) -> Revoked:
        return self._asked(Revoked(4, 9, 1, 1, 2, 300, ()), "revoke", target, reason)

    def restore(self, target: Target, reason: str) -> Restored:
        return self._asked(Restored(5, 10), "restore", target, reason)

    def authorities(self) -> AuthoritiesShown:
        return self._asked(AUTHORITIES, "authorities")

    def rotate_authority(self, asked: RotationAsked) -> AuthoritiesShown:
        return self._asked(AUTHORITIES, "rotate", asked)
