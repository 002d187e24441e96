"""(4) decide, with what was decided on: the inputs that the ledger commits to, and that are kept for a replay."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from proxy.fulfil import Credential
from proxy.intake import Intake
from proxy.journey import CallRefused, Journey
from proxy.live import LiveCall
from proxy.lookups import Lookups
from proxy.openings import Openings
from proxy.replies.definitions import Definitions
from proxy.replies.mcp import is_mcp
from proxy.usage.memory import Memory
from proxy.usage.units import units_told
from proxy.usage.used import Used
from proxy.world import Clock, World
from rules.call import Call, Facts
from rules.codes import Code
from rules.content.content import Value
from rules.decide import decide
from rules.decision import Allowed, Decision, Denied, Reason
from rules.inputs import Again, Body, DecisionInputs, judge_again
from rules.lookups import wanted
from rules.matching import counted_units, counts_tokens, judged_by_body
from rules.policy.compile import TenantPolicy
from rules.prices.estimate import estimated
from rules.swift import swift
from rules.timing import holds_still, timing_of
from rules.trial import rule_of, understood

_WRITE_AT_ONCE: Final = 16 * 1024
"""Bytes of a body that is judged, and whose inputs are written, on the loop itself, as it is read there."""
_JUDGED_AT_ONCE: Final = 8
"""Actions of a call that is judged on the loop itself: each of more is asked about by every rule."""


@swift
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

    def __init__(self, world: World, intake: Intake, lookups: Lookups, clock: Clock) -> None:
        self._world = world
        self._intake = intake
        self._lookups = lookups
        self._clock = clock
        self._openings = Openings(intake, time.monotonic)
        self.definitions = Definitions()
        self.memory = Memory()

    async def classify(self, journey: Journey, live: LiveCall, call: Call) -> Facts:
        """(3) The facts: what the call asks for, with its body's value and the service's answer to a lookup where they
        have to be there to judge it. Raises `RequestRefused` and `CallRefused`."""
        gathered = self._gather(journey, call)
        self.refuse_suspended(call)
        facts = understood(call, gathered)
        if judged_by_body(call, facts):
            facts = await self._intake.read(journey, live, call, facts)
        if facts.content is not None and is_mcp(journey):
            journey.request_id = _request_id(facts.content.value)
        changed = self.definitions.changed(facts.connection, facts.actions)
        if changed:
            facts = replace(facts, changed=changed)
        journey.actions = tuple(action.bare() for action in facts.actions)
        journey.used = await self._used(journey, call, facts)
        journey.units = units_told(journey.actions, counted_units(call, facts))
        if (want := await self._judge(journey, wanted, call, facts)) is not None:
            journey.credential = credential_for(self._world, facts)
            facts = await self._lookups.ask(journey, live, call, facts, want)
        return facts

    def refuse_suspended(self, call: Call) -> None:
        """Raises `CallRefused` where the call's account is suspended now: asked before anything is read or looked up,
        and again before each sending."""
        principal = call.principal
        suspension = self._world.suspensions.check(principal.tenant, principal.account)
        if suspension is not None:
            since = suspension.at.strftime("%Y-%m-%dT%H:%M:%SZ")
            raise CallRefused(
                Reason(Code.ACCOUNT_SUSPENDED, f"{suspension} is suspended since {since}: {suspension.reason}")
            )

    async def _used(self, journey: Journey, call: Call, facts: Facts) -> Used | None:
        """What the call may use, where that is what it costs, or a limit counts it."""
        connection = facts.connection
        if connection is None or not counts_tokens(call, facts):
            return None
        learned = self.memory.of(connection.tenant, connection.name)
        length, day = len(journey.body), facts.now.date()
        estimate = await self._judge(
            journey, lambda _, known: estimated(known.actions, connection, length, day, learned), call, facts
        )
        return None if estimate is None else Used(estimate)

    def _gather(self, journey: Journey, call: Call) -> Facts:
        world = self._world
        while True:
            # Another thread may swap the policy between two reads; a decision and its epoch must be of one policy.
            journey.policy_epoch = world.policy_epoch
            policy_set = world.policy
            if world.policy_epoch == journey.policy_epoch:
                break
        policy = None if policy_set is None else policy_set.tenants.get(call.principal.tenant)
        connection = None if policy is None else policy.connection_for(call.scheme, call.host, call.port)
        journey.policy = policy
        journey.connection = connection
        return Facts(policy=policy, connection=connection, now=self._clock())

    async def decide(self, journey: Journey, live: LiveCall, call: Call, facts: Facts) -> Decision:
        """The decision; the journey has on what.

        Raises `RequestRefused` where there is no room for the inputs beside the body.
        """
        decision = await self._judge(journey, decide, call, facts)
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
        journey.decided = _decided(call, facts.now, decision, data)
        journey.judged_at, journey.timing = facts.now, timing_of(call, facts)
        return decision

    async def refusal(self, journey: Journey, call: Call, facts: Facts, denied: Denied) -> CallRefused:
        """The refusal, with when it ends where the clock alone ends it and that can be told."""
        opening = await self._openings.of(journey, call, facts, denied)
        first, *others = denied.reasons
        if opening is not None:
            first = replace(first, detail=f"{first.detail} {opening.sentence}")
        return CallRefused(first, *others, opening=opening)

    def look_again(self, journey: Journey, call: Call, facts: Facts) -> None:
        """(5) During a wait and after it: what the call was decided on still holds, and it goes with the secret of now.

        Stop orders cut calls wherever they are, and rules about the time are asked again at sending. Raises
        `CallRefused`: its account is suspended, or the policy or the credential is another by now, and the call has to
        be made anew.
        """
        self.refuse_suspended(call)
        if self._world.policy_epoch != journey.policy_epoch:
            reason = Reason(Code.CONCURRENCY_REACHED, "The policy has changed while the call waited for a slot.")
            raise CallRefused(reason, retry_after_seconds=1)
        if time.time() >= call.principal.expires_at:
            raise CallRefused(Reason(Code.CREDENTIAL_EXPIRED, "The credential has expired while the call waited."))
        journey.credential = credential_for(self._world, facts)

    async def again(self, journey: Journey, call: Call, allowed: Allowed) -> Allowed:
        """(6) The decision of this very time, on the same facts; what is recorded of the call is this one.

        What was reserved stays reserved as it was. Raises `CallRefused`: its rules have closed meanwhile.
        """
        found = await self._judged_again(journey)
        if found is None:
            return allowed
        again, data = found
        decision = again.decision
        journey.decided = _decided(call, again.facts.now, decision, data)
        if isinstance(decision, Denied):
            raise await self.refusal(journey, again.call, again.facts, decision)
        journey.allowed = decision
        if journey.upload is not None and not decision.observed:
            # Another rule lets it out than the one that its body was taken in for.
            bytes_now, bytes_then = decision.body.stream_bytes or 0, allowed.body.stream_bytes or 0
            if bytes_now < bytes_then:
                raise CallRefused(Reason(Code.BODY_TOO_LARGE, "the rule that allows this call now streams less"))
        return decision

    async def overtaken(self, journey: Journey) -> None:
        """(7) Nothing if it may still leave. Raises `CallRefused`: its rules have closed since its intent was durable.

        The intent stands for the time at which it was committed; what it was decided on is not replaced.
        """
        found = await self._judged_again(journey)
        if found is None:
            return
        again, _ = found
        if isinstance(again.decision, Denied):
            raise await self.refusal(journey, again.call, again.facts, again.decision)

    async def _judged_again(self, journey: Journey) -> tuple[Again, bytes] | None:
        """The call as it was judged again, with the inputs of that; None where what was decided is known to hold."""
        policy, judged, decided = journey.policy, journey.judged_at, journey.decided
        if policy is None or judged is None or decided is None:
            raise RuntimeError("an allowed call was decided under a policy")
        now = self._clock()
        if holds_still(journey.timing, judged, now, policy.timezone):
            return None
        if len(decided.inputs) <= _WRITE_AT_ONCE:
            found = _at(decided.inputs, now, policy)
        else:
            found = await self._intake.aside(_at, decided.inputs, now, policy)
        if found is None:  # nothing asks for what was not read; were it so, it could not be told
            raise CallRefused(Reason(Code.GUARD_FAILED, "A check could not be completed."))
        journey.judged_at = now
        return found

    async def _judge[Found](
        self, journey: Journey, work: Callable[[Call, Facts], Found], call: Call, facts: Facts
    ) -> Found:
        """What the rules say. Conditions walk over all that was sent, each of them: where that is much, they do so
        beside the loop."""
        if len(journey.body) <= _WRITE_AT_ONCE and len(facts.actions) <= _JUDGED_AT_ONCE:
            return work(call, facts)
        return await self._intake.aside(work, call, facts)


def _request_id(value: Value) -> str | int | None:
    """Of the one JSON-RPC request that a body is; None for a batch, whose answers have several."""
    found = value.get("id") if isinstance(value, dict) else None
    return None if isinstance(found, bool) or not isinstance(found, str | int) else found


def credential_for(world: World, facts: Facts) -> Credential | None:
    """The secret that goes with the call; None where its connection has none.

    Raises `CallRefused`: an allowed call whose secret is missing is denied before anything is consumed.
    """
    connection = facts.connection
    if connection is None or connection.binding is None:
        return None
    binding = connection.binding
    found = world.secret(binding.tenant, binding.secret_name)
    if found is None:
        raise CallRefused(Reason(Code.SECRET_UNAVAILABLE, f"the secret of connection {connection.name} is not set"))
    credential = Credential(binding, *found)
    if not binding.fits(credential.secret):
        detail = f"the secret of connection {connection.name} is not of mode {connection.mode}"
        raise CallRefused(Reason(Code.SECRET_UNAVAILABLE, detail))
    return credential


def _at(data: bytes, now: datetime, policy: TenantPolicy) -> tuple[Again, bytes] | None:
    """A call, decided at another time on what it was decided on. From the bytes: what rules see of a body is many times
    as large, and a call waits for longer than it is judged."""
    inputs = replace(DecisionInputs.from_bytes(data), now=now)
    again = judge_again(inputs, policy)
    return None if again is None else (again, inputs.to_bytes())


def _content_types(journey: Journey) -> tuple[bytes, ...]:
    return tuple(value for name, value in journey.exchange.head.headers if name == b"content-type")


def _decided(call: Call, now: datetime, decision: Decision, inputs: bytes) -> Decided:
    principal = call.principal
    said = None if isinstance(decision, Allowed) else str(decision.reasons[0].code)
    return Decided(call.id, principal.tenant, principal.account, now, decision.policy, said, rule_of(decision), inputs)
