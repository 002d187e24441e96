"""(4) decide, with what was decided on: the inputs that the ledger commits to, and that are kept for a replay."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from proxy.intake import Intake
from proxy.journey import Journey
from proxy.live import LiveCall
from rules.call import Call, Facts
from rules.codes import Code
from rules.decide import decide
from rules.decision import Allowed, Decision
from rules.inputs import Body, DecisionInputs
from rules.matching import judged_by_body
from rules.trial import rule_of, understood

_WRITE_AT_ONCE: Final = 16 * 1024
"""Bytes of a body whose inputs are written on the loop itself, as they are read there."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One call that was decided by rules: on what, and how."""

    call: str
    tenant: str
    account: str
    at: datetime
    policy: str | None
    """Digest; None when none was active."""
    code: str | None
    """None: allowed. What limits or a missing secret make of an allowed call is no part of it."""
    rule: str | None
    inputs: bytes
    """docs/formats/decision-inputs.md"""


class InputsSink(Protocol):
    """Where decided calls are kept."""

    def keep(self, decided: Decided) -> None:
        """Taken over, at once and without an exception; it may be lost, for nothing waits for it."""
        ...


class Deciding:
    """Decides calls. One for the whole gate; all methods belong to the proxy's event loop."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def read(self, journey: Journey, live: LiveCall, call: Call, facts: Facts) -> Facts:
        """The facts, with what the call asks for, and the body's value where that has to be there to judge it."""
        facts = understood(call, facts)
        return await self._intake.read(journey, live, call, facts) if judged_by_body(call, facts) else facts

    async def decide(self, journey: Journey, live: LiveCall, call: Call, facts: Facts) -> Decision:
        """The decision; the journey has on what.

        Raises `RequestRefused` where there is no room for the inputs beside the body.
        """
        decision = decide(call, facts)
        if facts.content is not None:
            body = Body.READ
        elif journey.inspected and facts.unreadable is not None:
            body = Body.REFUSED
        else:
            body = Body.UNREAD if journey.exchange.head.has_body else Body.ABSENT
        inputs = DecisionInputs.of(call, facts, _content_types(journey), body)
        if body is Body.READ and len(journey.body) > _WRITE_AT_ONCE:
            data = await self._intake.aside(inputs.to_bytes)
        else:
            data = inputs.to_bytes()
        if body is Body.READ:
            live.held.resize(len(journey.body) + len(data))
        code = None if isinstance(decision, Allowed) else decision.reasons[0].code
        journey.decided = _decided(call, facts, decision.policy, code, rule_of(decision), data)
        return decision


def _content_types(journey: Journey) -> tuple[bytes, ...]:
    return tuple(value for name, value in journey.exchange.head.headers if name == b"content-type")


def _decided(
    call: Call, facts: Facts, policy: str | None, code: Code | None, rule: str | None, inputs: bytes
) -> Decided:
    principal = call.principal
    said = None if code is None else str(code)
    return Decided(call.id, principal.tenant, principal.account, facts.now, policy, said, rule, inputs)
