"""Claims, and what became of them, in messages between a worker and control."""

from dataclasses import Field, fields
from typing import Any, Final

from control.fleet.frames import FrameInvalid
from rules.claims import Claim, LeaseClaim, OnceClaim, PauseClaim, RateClaim, Refused, SpendClaim
from rules.codes import Code

_KINDS: Final[dict[str, type[Claim]]] = {
    "rate": RateClaim,
    "lease": LeaseClaim,
    "spend": SpendClaim,
    "pause": PauseClaim,
    "once": OnceClaim,
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def _fields(kind: type[Claim]) -> list[Field[Any]]:
    """All but who may wait for a slot: nobody does where control grants."""
    return [one for one in fields(kind) if one.name != "queue"]


def claims_body(claims: tuple[Claim, ...]) -> list[list[Any]]:
    """Claims, to be sent."""
    return [[_NAMES[type(claim)], *(getattr(claim, one.name) for one in _fields(type(claim)))] for claim in claims]


def parse_claims(body: object) -> tuple[Claim, ...]:
    """What `claims_body` wrote. Raises `FrameInvalid`."""
    if not isinstance(body, list):
        raise FrameInvalid("claims are a list")
    return tuple(map(_claim, body))


def _claim(body: object) -> Claim:
    if not isinstance(body, list) or not body or not isinstance(body[0], str) or body[0] not in _KINDS:
        raise FrameInvalid("a claim of no known kind")
    kind = _KINDS[body[0]]
    wanted = _fields(kind)
    if len(body) != len(wanted) + 1:
        raise FrameInvalid(f"a {body[0]} claim has {len(wanted)} parts")
    values: list[Any] = []
    for one, value in zip(wanted, body[1:], strict=True):
        if one.name == "key":
            if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
                raise FrameInvalid("a claim's key is a list of texts")
            values.append(tuple(value))
        elif type(value) is not one.type:
            raise FrameInvalid(f"{one.name} of a {body[0]} claim is no {one.type}")
        else:
            values.append(value)
    return kind(*values)


def refused_body(refused: Refused, claim: int) -> list[Any]:
    """A refusal, to be sent; `claim`: which of the claims it is about."""
    return [claim, refused.code.value, refused.detail, refused.retry_after_seconds]


def refused_of(body: list[Any], claims: tuple[Claim, ...]) -> Refused:
    """What `refused_body` wrote, of these claims."""
    claim, code, detail, retry = body
    return Refused(claims[claim], Code(code), str(detail), retry)
