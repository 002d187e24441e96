"""What the operators' API accepts: strict, bounded models. Anything else is wrong use, with the place of the error."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from control.authority_views import RotationAsked, Step
from control.input_views import InputsWanted
from control.operations import Act, PolicyText, Provenance, TokenRequest, WrongUse
from control.spending.views import SpendWanted
from credentials.revocation import RevocationRefused, Target, TargetKind
from credentials.secret import Secret, SecretRefused

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:/+=-]*$")]
Declared = Annotated[
    str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$")
]
"""One line for people: no control characters, no line or direction overrides (threats: log injection)."""
ActMember = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.\[\]/-]+$")]
ActNote = Annotated[
    str, StringConstraints(max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$")
]
Micros = Annotated[int, Field(ge=0, lt=253_402_300_800_000_000)]
"""Since 1970, before the year 10000."""
MAX_POLICY_BYTES = 64 * 1024 * 1024
"""A thousand tenants with a thousand rules each are about this."""
MAX_POLICY_FILES = 10_000
"""Twice what the loader reads: each policy may come with an authority's file."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _File(_Strict):
    name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\\]+$")]
    content: str


class _Provenance(_Strict):
    commit: Declared | None = None
    author: Declared | None = None
    approver: Declared | None = None
    reason: Declared | None = None

    def declared(self) -> Provenance:
        """What the operator declares about a policy's origin."""
        return Provenance(self.commit, self.author, self.approver, self.reason)


class PolicyRequest(_Strict):
    """`POST /policy`."""

    files: Annotated[list[_File], Field(min_length=1, max_length=MAX_POLICY_FILES)]
    single: bool
    provenance: _Provenance

    def text(self) -> PolicyText:
        """The files, decoded. Raises `WrongUse` when they are too large or lead out of their folder."""
        files: list[tuple[str, bytes]] = []
        total = 0
        for file in self.files:
            parts = file.name.split("/")
            if "" in parts or "." in parts or ".." in parts:
                raise WrongUse(f"a policy's file must lie in its folder: {file.name}")
            try:
                data = base64.b64decode(file.content, validate=True)
            except (binascii.Error, ValueError) as error:
                raise WrongUse(f"{file.name} is not base64") from error
            total += len(data)
            files.append((file.name, data))
        if total > MAX_POLICY_BYTES:
            raise WrongUse(f"the policy has {total} bytes; at most {MAX_POLICY_BYTES} are taken")
        return PolicyText(tuple(files), self.single)


class HistoryWanted(_Strict):
    """`POST /policy/history`, `POST /alerts`."""

    limit: Annotated[int, Field(ge=1, le=10_000)]


class RollbackWanted(_Strict):
    """`POST /policy/rollback`."""

    to: Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[#:0-9a-z]+$")] | None
    provenance: _Provenance


class SecretRequest(_Strict):
    """`POST /secrets`."""

    tenant: Name
    name: Name
    value: Annotated[str, StringConstraints(max_length=131_072)]

    def secret(self) -> Secret:
        """The value as a `Secret`. Raises `WrongUse` without quoting it."""
        try:
            return Secret(base64.b64decode(self.value, validate=True))
        except SecretRefused as refused:
            raise WrongUse(str(refused)) from None
        except (binascii.Error, ValueError):
            raise WrongUse("the secret is not base64") from None


class ReplaceWanted(_Strict):
    """`POST /workers/replace`."""

    everything: bool = False


class Moment(_Strict):
    """`POST /policy/in-force`."""

    moment: AwareDatetime | None


class SecretName(_Strict):
    """`POST /secrets/remove`."""

    tenant: Name
    name: Name


class TenantNamed(_Strict):
    """`POST /limits`."""

    tenant: Name | None


class TrialWanted(_Strict):
    """`POST /alerts/test`."""

    tenant: Name | None
    destination: Name | None


class SpendAsked(_Strict):
    """`POST /spend`."""

    tenant: Name | None
    account: Name | None
    workflow: Name | None
    run: Name | None
    tool: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[\x20-\x7e]+$")] | None
    since: Annotated[str, StringConstraints(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}|[1-9][0-9]{0,4}d)$")] | None
    by: Annotated[list[Annotated[str, StringConstraints(max_length=16)]], Field(max_length=6)]

    def asked(self) -> SpendWanted:
        """As the operations take it."""
        return SpendWanted(self.tenant, self.account, self.workflow, self.run, self.tool, self.since, tuple(self.by))


class OutcomeReached(_Strict):
    """`POST /outcomes`."""

    tenant: Name | None
    run: Name
    workflow: Name | None
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    note: Declared | Literal[""]


class TokenWanted(_Strict):
    """`POST /tokens`."""

    tenant: Name | None
    account: Name | None
    workflow: Name
    run: Name | None
    ttl_seconds: Annotated[int, Field(gt=0, le=86_400)] | None

    def request(self) -> TokenRequest:
        """As the operations take it."""
        return TokenRequest(self.tenant, self.account, self.workflow, self.run, self.ttl_seconds)


class TokenHeld(_Strict):
    """`POST /tokens/renew` and `POST /tokens/inspect`."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=8192, pattern=r"^[\x21-\x7e]+$")]


class CredentialNamed(_Strict):
    """`POST /tokens/tenant`."""

    credential: Name


class TargetNamed(_Strict):
    """`POST /revocations/dry-run`."""

    kind: Annotated[str, StringConstraints(max_length=16)]
    tenant: Name | None
    name: Name | None

    def target(self) -> Target:
        """The target. Raises `WrongUse` when a part is missing or superfluous."""
        try:
            return Target(TargetKind(self.kind), self.tenant, self.name)
        except RevocationRefused as refused:
            raise WrongUse(str(refused)) from refused
        except ValueError as error:
            raise WrongUse(f"unknown kind of target: {self.kind}") from error


class ActDone(_Strict):
    """`POST /acts`: the record's own bounds for the detail, and one line each."""

    tenant: Name
    act: Annotated[str, StringConstraints(pattern=rf"^(?:{'|'.join(Act)})$")]
    detail: Annotated[dict[ActMember, ActNote], Field(max_length=64)]


class OrderGiven(TargetNamed):
    """`POST /revocations` and `POST /restorations`."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class AccountResumed(_Strict):
    """`POST /resumptions`."""

    tenant: Name
    account: Name | None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class _InputsWanted(_Strict):
    call: Name | None
    tenant: Name | None
    account: Name | None
    since: Micros | None
    before: Micros | None

    def asked(self) -> InputsWanted:
        """As the operations take it."""
        return InputsWanted(self.call, self.tenant, self.account, self.since, self.before)


class InputsAt(_Strict):
    """`POST /inputs`."""

    wanted: _InputsWanted
    place: Annotated[str, StringConstraints(max_length=64)]


class CallNamed(_Strict):
    """`POST /inputs/show`."""

    call: Name


class ErasureWanted(_Strict):
    """`POST /inputs/erase`."""

    wanted: _InputsWanted
    reason: Declared


class RotationWanted(_Strict):
    """`POST /authorities`."""

    step: Annotated[str, StringConstraints(pattern=rf"^(?:{'|'.join(Step)})$")]
    constrain: bool
    permit: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=255)]], Field(max_length=500)]
    overlap_seconds: Annotated[int, Field(ge=0, le=366 * 86_400)]
    now: bool

    def asked(self) -> RotationAsked:
        """As the operations take it."""
        return RotationAsked(Step(self.step), self.constrain, tuple(self.permit), self.overlap_seconds, self.now)
