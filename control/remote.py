"""The operators' socket from the client's side: the same operations, done by the running process.

Over `http.client` from the standard library and not over httpx2: `exeat run` starts in a fifth of the time.
"""

import base64
import errno
import http.client
import json
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from control.alerts.views import AlertOperations, AlertsShown
from control.authority_views import AuthoritiesShown, RotationAsked
from control.codec import CodecError, from_json, to_json
from control.fleet_views import FleetOperations, FleetShown
from control.input_views import InputOperations, InputsErased, InputsPage, InputsShown, InputsWanted
from control.limit_views import LimitOperations, LimitsShown
from control.operations import (
    Act,
    OperationError,
    PolicyApplied,
    PolicyFault,
    PolicyInForce,
    PolicyRefused,
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
from control.spending.views import OutcomeDeclared, SpendOperations, SpendShown, SpendWanted
from control.status_views import Access, Status
from control.suspension_views import Resumed, SuspensionOperations
from credentials.revocation import Target
from credentials.secret import Secret

SOCKET_NAME = "operators.sock"
LEDGER_SOCKET = "ledger.sock"
"""Of `control.sequencing`."""
TIMEOUT_SECONDS = 30.0
"""A policy's compilation is the longest operation; a revocation answers in milliseconds."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024


class NobodyListens(Unavailable):
    """No process serves this state; its lock can be taken instead."""


class RemoteInputs:
    """`InputOperations` by asking the running process."""

    def __init__(self, ask: Callable[[str, str, object], object]) -> None:
        self._ask = ask

    def page(self, wanted: InputsWanted, place: str) -> InputsPage:
        """See `InputOperations.page`."""
        body = {"wanted": to_json(wanted), "place": place}
        return from_json(InputsPage, self._ask("POST", "/inputs", body))

    def show(self, call: str) -> InputsShown:
        """See `InputOperations.show`."""
        return from_json(InputsShown, self._ask("POST", "/inputs/show", {"call": call}))

    def erase(self, wanted: InputsWanted, reason: str) -> InputsErased:
        """See `InputOperations.erase`."""
        body = {"wanted": to_json(wanted), "reason": reason}
        return from_json(InputsErased, self._ask("POST", "/inputs/erase", body))


class RemoteFleet:
    """`FleetOperations` by asking the running process."""

    def __init__(self, ask: Callable[[str, str, object], object]) -> None:
        self._ask = ask

    def show(self) -> FleetShown:
        """See `FleetOperations.show`."""
        return from_json(FleetShown, self._ask("GET", "/workers", None))

    def replace(self, *, everything: bool = False) -> FleetShown:
        """See `FleetOperations.replace`."""
        return from_json(FleetShown, self._ask("POST", "/workers/replace", {"everything": everything}))


class RemoteAlerts:
    """`AlertOperations` by asking."""

    def __init__(self, ask: Callable[..., object]) -> None:
        self._ask = ask

    def show(self, limit: int) -> AlertsShown:
        """See `AlertOperations.show`."""
        return from_json(AlertsShown, self._ask("POST", "/alerts", {"limit": limit}))

    def try_out(self, tenant: str | None, destination: str | None = None) -> str:
        """See `AlertOperations.try_out`."""
        return str(self._ask("POST", "/alerts/test", {"tenant": tenant, "destination": destination}))


class RemoteSuspensions:
    """`SuspensionOperations` by asking."""

    def __init__(self, ask: Callable[..., object]) -> None:
        self._ask = ask

    def resume(self, tenant: str, account: str | None, reason: str) -> Resumed:
        """See `SuspensionOperations.resume`."""
        body = {"tenant": tenant, "account": account, "reason": reason}
        return from_json(Resumed, self._ask("POST", "/resumptions", body))


class RemoteLimits:
    """`LimitOperations` by asking."""

    def __init__(self, ask: Callable[..., object]) -> None:
        self._ask = ask

    def show(self, tenant: str | None) -> LimitsShown:
        """See `LimitOperations.show`."""
        return from_json(LimitsShown, self._ask("POST", "/limits", {"tenant": tenant}))


class RemoteSpending:
    """`SpendOperations` by asking."""

    def __init__(self, ask: Callable[..., object]) -> None:
        self._ask = ask

    def show(self, wanted: SpendWanted) -> SpendShown:
        """See `SpendOperations.show`."""
        return from_json(SpendShown, self._ask("POST", "/spend", to_json(wanted)))

    def declare(self, tenant: str | None, run: str, workflow: str | None, count: int, note: str) -> OutcomeDeclared:
        """See `SpendOperations.declare`."""
        body = {"tenant": tenant, "run": run, "workflow": workflow, "count": count, "note": note}
        return from_json(OutcomeDeclared, self._ask("POST", "/outcomes", body))


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("operators", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


class Remote:
    """`Operations` by asking the process behind a state's operators' socket."""

    def __init__(self, state: Path) -> None:
        self._socket = state / SOCKET_NAME
        self.inputs: InputOperations = RemoteInputs(self._ask)
        self.fleet: FleetOperations = RemoteFleet(self._ask)
        self.alerts: AlertOperations = RemoteAlerts(self._ask)
        self.limits: LimitOperations = RemoteLimits(self._ask)
        self.spending: SpendOperations = RemoteSpending(self._ask)
        self.suspensions: SuspensionOperations = RemoteSuspensions(self._ask)

    def answers(self) -> bool:
        """True when a process accepts connections on the socket."""
        return _accepts(self._socket)

    def ledger_is_written(self) -> bool:
        """True when a sequencer serves this state: an installation of several processes runs."""
        return _accepts(self._socket.with_name(LEDGER_SOCKET))

    def status(self) -> Status:
        """See `Operations.status`."""
        return from_json(Status, self._ask("GET", "/status"))

    def access(self) -> Access:
        """See `Operations.access`."""
        return from_json(Access, self._ask("GET", "/access"))

    def policy_in_force(self, moment: datetime | None) -> PolicyInForce:
        """See `Operations.policy_in_force`."""
        body = {"moment": None if moment is None else moment.isoformat()}
        return from_json(PolicyInForce, self._ask("POST", "/policy/in-force", body))

    def apply_policy(self, text: PolicyText, provenance: Provenance) -> PolicyApplied:
        """See `Operations.apply_policy`."""
        files = [{"name": name, "content": base64.b64encode(data).decode()} for name, data in text.files]
        body = {"files": files, "single": text.single, "provenance": to_json(provenance)}
        return from_json(PolicyApplied, self._ask("POST", "/policy", body))

    def policy_history(self, limit: int) -> tuple[PolicyActivation, ...]:
        """See `Operations.policy_history`."""
        rows = self._ask_list("POST", "/policy/history", {"limit": limit})
        return tuple(from_json(PolicyActivation, row) for row in rows)

    def roll_back_policy(self, to: str | None, provenance: Provenance) -> PolicyApplied:
        """See `Operations.roll_back_policy`."""
        body = {"to": to, "provenance": to_json(provenance)}
        return from_json(PolicyApplied, self._ask("POST", "/policy/rollback", body))

    def set_secret(self, tenant: str, name: str, secret: Secret) -> SecretSet:
        """See `Operations.set_secret`."""
        value = base64.b64encode(secret.reveal()).decode()
        return from_json(SecretSet, self._ask("POST", "/secrets", {"tenant": tenant, "name": name, "value": value}))

    def list_secrets(self) -> tuple[SecretListed, ...]:
        """See `Operations.list_secrets`."""
        return tuple(from_json(SecretListed, row) for row in self._ask_list("GET", "/secrets"))

    def remove_secret(self, tenant: str, name: str) -> SecretListed:
        """See `Operations.remove_secret`."""
        return from_json(SecretListed, self._ask("POST", "/secrets/remove", {"tenant": tenant, "name": name}))

    def issue_token(self, request: TokenRequest) -> TokenIssued:
        """See `Operations.issue_token`."""
        return token_from_json(self._ask("POST", "/tokens", to_json(request)))

    def renew_token(self, token: Secret) -> TokenIssued:
        """See `Operations.renew_token`."""
        return token_from_json(self._ask("POST", "/tokens/renew", {"token": token.reveal().decode("ascii")}))

    def inspect_token(self, token: Secret) -> TokenInspected:
        """See `Operations.inspect_token`."""
        return from_json(
            TokenInspected, self._ask("POST", "/tokens/inspect", {"token": token.reveal().decode("ascii", "replace")})
        )

    def tenant_of_credential(self, credential: str) -> str | None:
        """See `Operations.tenant_of_credential`."""
        answer = self._ask("POST", "/tokens/tenant", {"credential": credential})
        return answer if isinstance(answer, str) else None

    def would_revoke(self, target: Target) -> WouldRevoke:
        """See `Operations.would_revoke`."""
        return from_json(WouldRevoke, self._ask("POST", "/revocations/dry-run", target.as_record()))

    def revoke(self, target: Target, reason: str) -> Revoked:
        """See `Operations.revoke`."""
        return from_json(Revoked, self._ask("POST", "/revocations", {**target.as_record(), "reason": reason}))

    def restore(self, target: Target, reason: str) -> Restored:
        """See `Operations.restore`."""
        return from_json(Restored, self._ask("POST", "/restorations", {**target.as_record(), "reason": reason}))

    def record_act(self, tenant: str, act: Act, detail: Mapping[str, str]) -> Recorded:
        """See `Operations.record_act`."""
        body = {"tenant": tenant, "act": act, "detail": dict(detail)}
        return from_json(Recorded, self._ask("POST", "/acts", body))

    def authorities(self) -> AuthoritiesShown:
        """See `Operations.authorities`."""
        return from_json(AuthoritiesShown, self._ask("GET", "/authorities"))

    def rotate_authority(self, asked: RotationAsked) -> AuthoritiesShown:
        """See `Operations.rotate_authority`."""
        return from_json(AuthoritiesShown, self._ask("POST", "/authorities", to_json(asked)))

    def _ask_list(self, method: str, path: str, body: object = None) -> list[object]:
        answer = self._ask(method, path, body)
        if not isinstance(answer, list):
            raise _foreign("the answer is no list")
        return answer

    def _ask(self, method: str, path: str, body: object = None) -> object:
        connection = _SocketConnection(self._socket)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NobodyListens(f"no process serves {self._socket.parent}", "Start it: exeat up") from error
        except OSError as error:
            raise _unreachable(self._socket, error) from error
        try:
            payload = None if body is None else json.dumps(body).encode()
            connection.request(method, path, payload, {"Content-Type": "application/json"} if payload else {})
            response = connection.getresponse()
            raw = response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            # The request may have been carried out: never repeated by ourselves.
            raise Unavailable(
                f"the running process did not answer ({type(error).__name__})", "Look at its log, then: exeat status"
            ) from error
        finally:
            connection.close()
        try:
            answer: object = json.loads(raw)
        except ValueError as error:
            raise _foreign("the answer is no JSON") from error
        if response.status != 200:
            raise _error_from(response.status, answer)
        return answer


def _accepts(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(TIMEOUT_SECONDS)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreachable(path, error) from error
    return True


def token_from_json(answer: object) -> TokenIssued:
    """The credential in an answer of `/tokens`; it becomes a `Secret` before anything else sees it."""
    if not isinstance(answer, dict):
        raise _foreign("the answer is no object")
    wanted = ("tenant", "account", "workflow", "run", "credential")
    numbers = ("epoch", "issued_at", "expires_at")
    token = answer.get("token")
    if (
        not isinstance(token, str)
        or not all(isinstance(answer.get(name), str) for name in wanted)
        or not all(isinstance(answer.get(name), int) for name in numbers)
    ):
        raise _foreign("the answer is no credential")
    return TokenIssued(token=Secret(token), **{name: answer[name] for name in (*wanted, *numbers)})


def _error_from(status: int, answer: object) -> OperationError:
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return _foreign(f"HTTP {status}")
    message, cure = str(error.get("message", "")), str(error.get("cure", ""))
    kind = error.get("kind")
    if kind == "policy":
        try:
            return PolicyRefused(tuple(from_json(PolicyFault, fault) for fault in error.get("faults", [])))
        except CodecError as problem:
            return _foreign(str(problem))
    if kind == "refused":
        return Refused(message, cure)
    if kind == "wrong_use":
        return WrongUse(message, cure)
    return Unavailable(message, cure)


def _unreachable(path: Path, error: OSError) -> Unavailable:
    if error.errno == errno.EACCES:
        return Unavailable(f"{path} belongs to another user", "Run this as the user that runs `exeat up`, or as root.")
    return Unavailable(f"{path} cannot be reached: {error.strerror or error}", "Look at the log of `exeat up`.")


def _foreign(what: str) -> Unavailable:
    return Unavailable(
        f"the running process speaks another version ({what})", "Restart `exeat up` with the version you call."
    )
