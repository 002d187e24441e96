"""The operators' API: the operations over HTTP on a Unix socket, for peers the kernel vouches for.

    operators.sock -> PeerProtocol (uid by SO_PEERCRED) -> this app -> Operations as that actor

Requests are validated by the models of `control.requests`; answers are the operations' own types. Every error says its
kind, so that the client raises the exception that the operation raised.
"""

import json
import logging
from collections.abc import Callable

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control import requests
from control.codec import to_json
from control.operations import Act, OperationError, Operations, PolicyRefused, Refused, TokenIssued, WrongUse
from control.peers import actor_of
from credentials.actor import Actor
from credentials.secret import Secret

logger = logging.getLogger("exeat.operators")

MAX_REQUEST_BYTES = 96 * 1024 * 1024
"""The largest policy in base64 (four bytes for three), and its JSON."""


def operators_app(operations_of: Callable[[Actor], Operations]) -> Starlette:
    """The API. `operations_of` gives the operations as done by one actor; they block and run on worker threads."""

    def answer[M: BaseModel](
        model: type[M] | None, do: Callable[[Operations, M], object]
    ) -> Callable[[Request], "object"]:
        async def endpoint(request: Request) -> Response:
            try:
                # The protocol puts the peer's uid where a TCP server has the peer's address.
                uid = int(request.scope["client"][0])
                body = await _body(request, model)
                result = await run_in_threadpool(lambda: do(operations_of(actor_of(uid)), body))
            except OperationError as error:
                return _refusal(error)
            except Exception:
                # Blanket: at this edge a defect must become an answer, or the operator would see a cut connection
                # and not know whether the revocation happened.
                logger.exception("an operation failed")
                return _json(
                    {"error": {"kind": "unavailable", "message": "internal error", "cure": "See the log."}}, 500
                )
            return _json(_token(result) if isinstance(result, TokenIssued) else to_json(result))

        return endpoint

    def get(path: str, do: Callable[[Operations], object]) -> Route:
        return Route(path, answer(None, lambda operations, _: do(operations)), methods=["GET"])

    def post[M: BaseModel](path: str, model: type[M], do: Callable[[Operations, M], object]) -> Route:
        return Route(path, answer(model, do), methods=["POST"])

    return Starlette(
        routes=[
            get("/status", lambda on: on.status()),
            get("/access", lambda on: on.access()),
            get("/authorities", lambda on: on.authorities()),
            post("/authorities", requests.RotationWanted, lambda on, r: on.rotate_authority(r.asked())),
            post("/policy", requests.PolicyRequest, lambda on, r: on.apply_policy(r.text(), r.provenance.declared())),
            post("/policy/in-force", requests.Moment, lambda on, r: on.policy_in_force(r.moment)),
            post("/policy/history", requests.HistoryWanted, lambda on, r: on.policy_history(r.limit)),
            post(
                "/policy/rollback",
                requests.RollbackWanted,
                lambda on, r: on.roll_back_policy(r.to, r.provenance.declared()),
            ),
            get("/secrets", lambda on: on.list_secrets()),
            post("/secrets", requests.SecretRequest, lambda on, r: on.set_secret(r.tenant, r.name, r.secret())),
            post("/secrets/remove", requests.SecretName, lambda on, r: on.remove_secret(r.tenant, r.name)),
            post("/tokens", requests.TokenWanted, lambda on, r: on.issue_token(r.request())),
            post("/tokens/renew", requests.TokenHeld, lambda on, r: on.renew_token(Secret(r.token))),
            post("/tokens/inspect", requests.TokenHeld, lambda on, r: on.inspect_token(Secret(r.token))),
            post("/tokens/tenant", requests.CredentialNamed, lambda on, r: on.tenant_of_credential(r.credential)),
            post("/revocations/dry-run", requests.TargetNamed, lambda on, r: on.would_revoke(r.target())),
            post("/revocations", requests.OrderGiven, lambda on, r: on.revoke(r.target(), r.reason)),
            post("/acts", requests.ActDone, lambda on, r: on.record_act(r.tenant, Act(r.act), r.detail)),
            post("/inputs", requests.InputsAt, lambda on, r: on.inputs.page(r.wanted.asked(), r.place)),
            post("/inputs/show", requests.CallNamed, lambda on, r: on.inputs.show(r.call)),
            post("/inputs/erase", requests.ErasureWanted, lambda on, r: on.inputs.erase(r.wanted.asked(), r.reason)),
            post("/alerts", requests.HistoryWanted, lambda on, r: on.alerts.show(r.limit)),
            post("/alerts/test", requests.TrialWanted, lambda on, r: on.alerts.try_out(r.tenant, r.destination)),
            post("/limits", requests.TenantNamed, lambda on, r: on.limits.show(r.tenant)),
            post("/spend", requests.SpendAsked, lambda on, r: on.spending.show(r.asked())),
            post(
                "/outcomes",
                requests.OutcomeReached,
                lambda on, r: on.spending.declare(r.tenant, r.run, r.workflow, r.count, r.note),
            ),
            get("/workers", lambda on: on.fleet.show()),
            post(
                "/workers/replace",
                requests.ReplaceWanted,
                lambda on, r: on.fleet.replace(everything=r.everything),
            ),
            post(
                "/resumptions",
                requests.AccountResumed,
                lambda on, r: on.suspensions.resume(r.tenant, r.account, r.reason),
            ),
            post("/restorations", requests.OrderGiven, lambda on, r: on.restore(r.target(), r.reason)),
        ]
    )


async def _body[M: BaseModel](request: Request, model: type[M] | None) -> M:
    if model is None:
        return None  # type: ignore[return-value]  # GET: the operation does not look at it
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_REQUEST_BYTES:
            raise WrongUse(f"the request is larger than {MAX_REQUEST_BYTES} bytes")
    try:
        return model.model_validate_json(bytes(raw))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WrongUse(f"{place or 'the request'}: {first['msg']}") from None


def _token(issued: TokenIssued) -> dict[str, object]:
    """The one answer that carries a secret: the credential goes to the operator who asked for it."""
    return {
        "token": issued.token.reveal().decode("ascii"),
        "tenant": issued.tenant,
        "account": issued.account,
        "workflow": issued.workflow,
        "run": issued.run,
        "credential": issued.credential,
        "epoch": issued.epoch,
        "issued_at": issued.issued_at,
        "expires_at": issued.expires_at,
    }


def _refusal(error: OperationError) -> Response:
    document: dict[str, object] = {"message": str(error), "cure": error.cure}
    if isinstance(error, PolicyRefused):
        document |= {"kind": "policy", "faults": to_json(error.faults)}
        return _json({"error": document}, 422)
    if isinstance(error, Refused):
        return _json({"error": document | {"kind": "refused"}}, 409)
    if isinstance(error, WrongUse):
        return _json({"error": document | {"kind": "wrong_use"}}, 400)
    return _json({"error": document | {"kind": "unavailable"}}, 503)


def _json(document: object, status: int = 200) -> Response:
    # An answer may hold a credential: no cache between here and the command line may keep it.
    return Response(json.dumps(document).encode(), status, {"Cache-Control": "no-store"}, media_type="application/json")
