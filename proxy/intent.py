"""What leaves and what is written down about it: the egress head and the intent that commits to it."""

from dataclasses import replace
from typing import Final

from ledger import commitment
from proxy.fulfil import Credential
from proxy.http.emit import Head, emit_head
from proxy.http.errors import RequestRefused
from proxy.http.headers import CREDENTIALS
from proxy.http.query import carries_token
from proxy.http.target import format_authority
from proxy.journey import Journey
from proxy.records import (
    Content,
    agent_content,
    allow_content,
    media_type,
    operation_content,
    request_target,
)
from proxy.replies.mcp import is_mcp
from rules.call import Call
from rules.codes import Code
from rules.decision import Allowed
from rules.lookups import Wanted
from rules.policy.compile import Connection

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""RFC 9110 8.6: these say how long their body is even when it is empty."""
_NONE: Final[frozenset[bytes]] = frozenset()


def egress_head(journey: Journey, call: Call, connection: Connection) -> Head:
    """The head as it will leave but for the secret; where one is attached, the agent's own credentials are gone.

    Raises `RequestRefused` for headers that origins read differently.
    """
    credential, head, presented = journey.credential, journey.exchange.head, journey.exchange.presented
    remove = _NONE
    if credential is not None:
        service = connection.service
        if carries_token(call.query, _NONE if service is None else service.query_keys):
            raise RequestRefused(Code.MALFORMED_REQUEST, "a token in the query beside the connection's own credential")
        remove = CREDENTIALS | {credential.binding.presentation.header_name}
    if presented is not None and presented.header is not None:
        remove |= {presented.header}
    add: tuple[tuple[bytes, bytes], ...] = ()
    if is_mcp(journey) or journey.reads_reply:
        # Its answer is read, so it is asked for as it is: without the field any coding will do (RFC 9110 12.5.3).
        remove |= {b"accept-encoding"}
        add = ((b"accept-encoding", b"identity"),)
    if journey.inspected:
        remove |= {b"content-encoding"}
    upload = journey.upload
    length = len(journey.body) if head.has_body or call.method in _WITH_BODY else None
    bound = account_fields(connection)
    if bound and connection.known is not None:
        remove |= {name for name, _ in bound} | {name.lower().encode("ascii") for name in connection.known.account_also}
    return emit_head(
        call.method,
        call.path,
        call.query,
        format_authority(connection.scheme, connection.host, connection.port),
        head.headers,
        content_length=length if upload is None else upload.declared,
        chunked=upload is not None and upload.declared is None,
        remove=remove,
        add=(*bound, *add),
    )


def account_fields(connection: Connection) -> tuple[tuple[bytes, bytes], ...]:
    """The field that binds a request to the connection's account at the service, where it has such a field."""
    known = connection.known
    if connection.account is None or known is None or known.account_header is None:
        return ()
    return ((known.account_header.lower().encode("ascii"), connection.account.encode("ascii")),)


def lookup_content(
    journey: Journey,
    call: Call,
    want: Wanted,
    allowed: Allowed,
    identity: str,
    attempt: int,
    key: bytes,
    digest: bytes,
    environment: Content,
    connection: Connection,
) -> Content:
    """The record `call.intent` of a lookup, with the id that it has."""
    credential = journey.credential
    target = f"{want.path}?{want.query}" if want.query else want.path
    read = replace(call, id=identity, method="GET", path=want.path, query=want.query)
    return {
        "call": identity,
        "attempt": attempt,
        "agent": agent_content(call.principal),
        "op": {**operation_content(read, connection.name, want.route), "effect": "read"},
        # Not decided on inputs of its own: it is asked because of the call that it is for.
        "decision": allow_content(allowed, journey.policy_epoch, None),
        "req": {"commit": commitment(key, identity, "req", digest), "media": None, "len": 0},
        "fields": {"target": commitment(key, identity, "target", target.encode())},
        "secret": _secret_content(credential),
        "cost": None,
        "env": environment,
    }


def _secret_content(credential: Credential | None) -> Content | None:
    if credential is None:
        return None
    return {
        "name": credential.binding.secret_name,
        "version": credential.version,
        "thumb": credential.secret.thumbprint(),
    }


def _body_length(journey: Journey) -> Content:
    """A streamed body is not here yet: the intent says what was declared, the outcome what was sent."""
    upload = journey.upload
    return {"len": len(journey.body)} if upload is None else {"len": upload.declared, "streamed": True}


def intent_content(
    journey: Journey, call: Call, allowed: Allowed, attempt: int, key: bytes, digest: bytes, environment: Content
) -> Content:
    """The record `call.intent`. `digest` is SHA-256 over the bytes that will leave, `key` the tenant's commitments'."""
    credential, cost, decided = journey.credential, journey.cost, journey.decided
    if decided is None:
        raise RuntimeError("an allowed call was decided")
    inputs = commitment(key, call.id, "inputs", decided.inputs)
    return {
        "call": call.id,
        "attempt": attempt,
        "agent": agent_content(call.principal),
        "op": operation_content(call, journey.connection_name, allowed.route, journey.actions),
        "decision": allow_content(allowed, journey.policy_epoch, inputs),
        "req": {
            "commit": commitment(key, call.id, "req", digest),
            "media": media_type(journey.exchange.head.headers),
            **_body_length(journey),
        },
        "fields": {"target": commitment(key, call.id, "target", request_target(call))},
        "secret": _secret_content(credential),
        "cost": None if cost is None else cost.content(),
        "env": environment,
    }
