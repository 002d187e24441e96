"""A call's records: what each step knows, put into the ledger's words. No payload, no path and no secret goes in.

The path appears as the template of the rule that allowed it; where none did, as its shape, in which every segment
that could be an identifier or a secret is replaced by `{}`.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from credentials.principal import Principal
from ledger import LedgerError, Receipt
from rules.action import Action
from rules.call import Call
from rules.catalogue.effect import of_method, worst
from rules.decision import Allowed, Reason

type Content = dict[str, object]

_PLAIN_SEGMENT: Final = re.compile(r"[a-z][a-z_.\-]{0,23}|v[0-9]{1,2}")
_MEDIA: Final = re.compile(rb"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
_MAX_SHAPE: Final = 256


class Recorder(Protocol):
    """The ledger as the gate needs it."""

    def submit_async(
        self,
        loop: asyncio.AbstractEventLoop,
        type: str,  # noqa: A002 - the ledger's own word
        tenant: str,
        content: Mapping[str, object],
        orphaned: "Callable[[Receipt | LedgerError], None] | None" = None,
    ) -> "asyncio.Future[Receipt]":
        """The future is done once the record is durable, or fails with `LedgerUnavailable`.

        A future that is cancelled meanwhile cancels no record: `orphaned` is called with what became of it.
        """
        ...


def route_shape(path: str) -> str:
    """The path with everything replaced that could identify or authorise: `/v1/refunds/{}`."""
    shape = "/".join(
        segment if not segment or _PLAIN_SEGMENT.fullmatch(segment) else "{}" for segment in path.split("/")
    )
    return shape if len(shape) <= _MAX_SHAPE else shape[: _MAX_SHAPE - 3] + "..."


def agent_content(principal: Principal) -> Content:
    """The record's `agent`."""
    return {
        "id": principal.account,
        "workflow": principal.workflow,
        "run": principal.run,
        "credential": principal.credential,
        "auth": "jwt",
    }


def operation_content(call: Call, connection: str | None, route: str, actions: tuple[Action, ...] = ()) -> Content:
    """The record's `op`. Of several actions the worst effect counts, and one name only if it is that of all."""
    told = {action.tool for action in actions}
    effects = tuple(action.effect for action in actions if action.effect is not None)
    known = bool(effects) and len(effects) == len(actions) and any(a.service is not None for a in actions)
    content: Content = {
        "connector": connection,
        "tool": _tool_name(told, actions),
        "method": call.method,
        "host": call.host,
        "port": call.port,
        "scheme": call.scheme,
        "route": route,
        "effect": worst(effects) if known else of_method(call.method),
    }
    if any(action.irreversible for action in actions):
        content["irreversible"] = True
    return content


def _tool_name(told: set[str | None], actions: tuple[Action, ...]) -> str | None:
    if len(told) == 1:
        return next(iter(told)) if actions[0].service is not None else None
    services = {action.service.name for action in actions if action.service is not None}
    return f"{services.pop()}.several" if len(services) == 1 and None not in told else None


def media_type(headers: tuple[tuple[bytes, bytes], ...]) -> str | None:
    """The media type without its parameters, as far as it is one: the ledger takes no free text from anybody."""
    for name, value in headers:
        if name == b"content-type":
            media = value.split(b";", 1)[0].strip().lower()
            return media.decode("ascii") if _MEDIA.fullmatch(media) else None
    return None


def request_target(call: Call) -> bytes:
    """Path and query as they are sent, for the target's commitment."""
    return (f"{call.path}?{call.query}" if call.query else call.path).encode()


def request_digest(public_head: bytes, body: bytes) -> bytes:
    """SHA-256 over exactly the bytes that leave, but for the secret's header."""
    digest = hashlib.sha256(public_head)
    digest.update(body)
    return digest.digest()


def allow_content(allowed: Allowed, epoch: int, inputs: str | None) -> Content:
    """The record's `decision` of a call that is let out."""
    return {
        "verdict": "allow",
        "policy": allowed.policy,
        "epoch": epoch,
        "rules": list(allowed.rules),
        # In stage observe: why the rules would have denied it.
        "reasons": [_reason_content(reason) for reason in allowed.observed],
        "inputs": inputs,
        "approvals": [],
    }


def deny_content(reasons: tuple[Reason, ...], policy: str | None, epoch: int, inputs: str | None) -> Content:
    """The record's `decision` of a call that is refused; `inputs` None: before it was decided."""
    return {
        "verdict": "deny",
        "policy": policy,
        "epoch": epoch,
        "rules": [reason.rule for reason in reasons if reason.rule is not None],
        "reasons": [_reason_content(reason) for reason in reasons],
        "inputs": inputs,
        "approvals": [],
    }


def _reason_content(reason: Reason) -> Content:
    return {"code": str(reason.code)} if reason.rule is None else {"code": str(reason.code), "rule": reason.rule}
