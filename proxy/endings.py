"""How a call ends when it is not relayed to its end: refused, denied, stopped. Recorded before it is answered."""

import asyncio
import logging
from typing import Final

from credentials.principal import NO_TENANT, Principal
from ledger import LedgerError, commitment
from proxy.attempt import Books, Result
from proxy.audience import EVERYBODY, Audience, of_connection, of_exchange, of_tunnel
from proxy.deciding import InputsSink
from proxy.denials import Denial
from proxy.exchange import Exchange, Tunnel
from proxy.http.errors import RequestRefused
from proxy.journey import CallRefused, Journey, new_call_id
from proxy.live import LiveCall, LiveCalls, Stop
from proxy.metrics import Metrics
from proxy.records import (
    Content,
    agent_content,
    deny_content,
    operation_content,
    request_target,
    route_shape,
)
from proxy.rejections import Rejections
from proxy.upload import PHASE as UPLOAD_PHASE
from proxy.wire import Wire
from proxy.world import World
from rules.call import Call
from rules.codes import Code
from rules.decision import Reason
from rules.openings import Opening

logger = logging.getLogger("exeat.gate")


class Endings:
    """Ends calls. One for the whole gate."""

    def __init__(
        self,
        world: World,
        books: Books,
        live: LiveCalls,
        rejections: Rejections,
        metrics: Metrics,
        environment: Content,
        commit_seconds: float,
        inputs: InputsSink | None,
    ) -> None:
        self._world = world
        self._books = books
        self._live = live
        self._rejections = rejections
        self._metrics = metrics
        self._environment = environment
        self._commit_seconds = commit_seconds
        self._inputs = inputs

    async def reject(
        self,
        exchange: Exchange | None,
        code: Code,
        detail: str,
        peer: str,
        *,
        close: bool = False,
        principal: Principal | None = None,
    ) -> bool:
        """Somebody without a valid identity, or a request that is none, is recorded and told so."""
        call = new_call_id()
        self._metrics.decided(code)
        door = "forward" if exchange is None else exchange.door
        recorded = await self._record_rejection(code, call, peer, principal, door)
        if exchange is None:
            return False
        audience = of_exchange(exchange, self._world, principal)
        denial = _denial(audience, _reason(code, detail, recorded), call)
        return await exchange.refuse(denial, keep_alive=not close)

    async def reject_unparsed(self, wire: Wire, code: Code, detail: str, tunnel: Tunnel | None) -> None:
        """As `reject`, where not even a head could be read; the caller closes the wire.

        `tunnel`: the one that it came through.
        """
        call = new_call_id()
        self._metrics.decided(code)
        recorded = await self._record_rejection(code, call, wire.peer, None if tunnel is None else tunnel.principal)
        audience = EVERYBODY if tunnel is None else of_tunnel(tunnel, self._world)
        denial = _denial(audience, _reason(code, detail, recorded), call)
        wire.write(denial.render(in_tunnel=tunnel is not None, keep_alive=False))

    async def challenge(self, exchange: Exchange, peer: str) -> bool:
        """An agent that showed no credential is asked for one; counted in the next summary."""
        code = Code.CREDENTIAL_MISSING
        self._metrics.challenges += 1
        self._rejections.count(NO_TENANT, code, peer)
        reason = Reason(code, "an Exeat credential is needed here")
        return await exchange.refuse(_denial(of_exchange(exchange, self._world, None), reason, new_call_id()))

    async def _record_rejection(
        self, code: Code, call: str, peer: str, principal: Principal | None, door: str = "forward"
    ) -> bool:
        tenant = NO_TENANT if principal is None else principal.tenant
        source = peer if principal is None else f"{tenant}/{principal.account}"
        if not self._rejections.individually(source, anonymous=principal is None):
            self._rejections.count(tenant, code, peer)
            return True
        content: Content = {
            "call": call,
            "reason": {"code": str(code)},
            "source": peer,
            "door": door,
            "agent": None if principal is None else agent_content(principal),
            "op": None,
        }
        return await self._durable("call.rejected", tenant, content)

    async def refuse_request(self, journey: Journey, error: RequestRefused) -> bool:
        """(1) The request breaks the protocol, or is too large, before or after its agent was identified."""
        if journey.call is None:
            exchange = journey.exchange
            return await self.reject(
                exchange,
                error.code,
                error.detail,
                exchange.wire.peer,
                close=True,
                principal=exchange.principal,
            )
        return await self.deny(journey, CallRefused(Reason(error.code, error.detail)))

    async def deny(self, journey: Journey, refusal: CallRefused) -> bool:
        """A call with an identity is refused. Recorded before it is answered; consumed nothing unless it was sent."""
        exchange, call, live = journey.exchange, journey.call, journey.live
        if call is None or live is None:
            raise RuntimeError("a denial needs a call")
        reason = refusal.reasons[0]
        self._metrics.decided(reason.code)
        if journey.attempt is not None and journey.attempt.open:
            await self._fail_attempt(journey, live, reason)
            recorded = True
        else:
            recorded = await self._record_denial(journey, call, refusal)
        if live.answering:
            exchange.wire.abort()
            return False
        answered = _denial(
            self._audience(journey),
            _reason(reason.code, reason.detail, recorded, reason.rule),
            call.id,
            None if journey.policy is None else journey.policy.digest,
            refusal.retry_after_seconds,
            journey.request_id,
            refusal.opening if recorded else None,
            refusal.fields,
        )
        return await exchange.refuse(answered)

    async def crashed(self, journey: Journey) -> bool:
        """Something nobody thought of was raised: refused, recorded, and the wire is closed."""
        reason = Reason(Code.INTERNAL, "the call met an internal error")
        if journey.call is not None and journey.live is not None:
            return await self.deny(journey, CallRefused(reason)) and False
        exchange = journey.exchange
        return await self.reject(exchange, reason.code, reason.detail, exchange.wire.peer, close=True)

    async def _fail_attempt(self, journey: Journey, live: LiveCall, reason: Reason) -> None:
        """The intent is closed with what is known: not sent is failed, sent without a whole answer is not known."""
        attempt = journey.attempt
        if attempt is None:
            return
        if not live.sent:
            status = "failed"
        elif reason.code is Code.UPSTREAM_TIMEOUT:
            status = "timeout"
        else:
            status = "aborted" if live.answering else "indeterminate"
        await self._conclude(journey, Result(status, sent=live.sent, code=reason.code))

    async def _conclude(self, journey: Journey, result: Result) -> None:
        attempt = journey.attempt
        if attempt is None:
            return
        spent = journey.spent(result)
        if journey.hold is not None:
            if result.sent:
                journey.hold.settle(spent, refused=result.refused)
            else:
                journey.hold.release()
        await asyncio.shield(self._books.finish_later(attempt.conclude(result, spent)))

    async def _record_denial(self, journey: Journey, call: Call, refusal: CallRefused) -> bool:
        principal = call.principal
        code = refusal.reasons[0].code
        if code is Code.LEDGER_UNAVAILABLE:
            return False
        source = f"{principal.tenant}/{principal.account}"
        if not self._rejections.individually(source):
            self._rejections.count(principal.tenant, code, principal.account)
            return True
        key = self._world.commitment_key(principal.tenant)
        connection = None if journey.connection is None else journey.connection.name
        route = route_shape(call.path) if journey.allowed is None else journey.allowed.route
        policy = None if journey.policy is None else journey.policy.digest
        answered = _denial(self._audience(journey), refusal.reasons[0], call.id)
        decided = journey.decided
        content: Content = {
            "call": call.id,
            "attempt": 1 if journey.attempt is None else journey.attempt.number + journey.attempt.ended,
            "agent": agent_content(principal),
            "op": operation_content(call, connection, route, journey.actions),
            "decision": deny_content(
                refusal.reasons,
                policy,
                journey.policy_epoch,
                None if decided is None else commitment(key, call.id, "inputs", decided.inputs),
            ),
            "fields": {"target": commitment(key, call.id, "target", request_target(call))},
            "env": self._environment,
            "answered": {"http": answered.status(in_tunnel=journey.exchange.at_origin)},
        }
        if self._inputs is not None and decided is not None and journey.attempt is None:
            self._inputs.keep(decided)
        return await self._durable("call.denied", principal.tenant, content)

    async def _durable(self, type_: str, tenant: str, content: Content) -> bool:
        """True once the record is durable; a ledger that does not answer leaves the call denied all the same."""
        try:
            future = self._books.recorder.submit_async(asyncio.get_running_loop(), type_, tenant, content)
            async with asyncio.timeout(self._commit_seconds):
                await asyncio.shield(future)
        except (LedgerError, TimeoutError) as error:
            logger.error("%s could not be recorded: %s", type_, error)
            return False
        return True

    async def stopped(self, journey: Journey, why: Stop) -> bool:
        """The call was stopped from outside: settled with what is known, and told if nothing was answered yet."""
        exchange, live, call = journey.exchange, journey.live, journey.call
        if live is None or call is None:
            raise RuntimeError("only a live call is stopped")
        if why is Stop.REVOKED:
            self._metrics.cuts += 1
        answering = live.answering
        code, detail = _stop_reason(why, live)
        if journey.attempt is not None and journey.attempt.open:
            status = "failed"
            if live.sent:
                status = "aborted" if answering else "indeterminate"
                if why is Stop.TIMED_OUT:
                    status = "timeout"
            left = why is Stop.DISCONNECTED
            err = "the agent went away" if left else None
            await self._conclude(journey, Result(status, sent=live.sent, code=None if left else code, err=err))
        elif why is not Stop.DISCONNECTED and journey.attempt is None:
            await self._record_denial(journey, call, CallRefused(Reason(code, detail)))
        if answering or why is Stop.DISCONNECTED:
            exchange.wire.abort()
            return False
        self._metrics.decided(code)
        denial = _denial(self._audience(journey), Reason(code, detail), call.id, request_id=journey.request_id)
        return await exchange.refuse(denial, keep_alive=False)

    def _audience(self, journey: Journey) -> Audience:
        connection = journey.connection
        if connection is not None:
            return of_connection(connection)
        call = journey.call
        return of_exchange(journey.exchange, self._world, None if call is None else call.principal)

    def leave(self, journey: Journey) -> None:
        """The call can no longer be stopped from outside. Idempotent."""
        if journey.live is not None:
            self._live.leave(journey.live)
            journey.live.held.give_back()
            journey.exchange.wire.on_lost = None

    def finish(self, journey: Journey) -> None:
        """Whatever way the call ended, nothing of it is left in any registry or store."""
        self.leave(journey)
        if journey.live is not None:
            journey.live.turn.give_back()
        attempt = journey.attempt
        if attempt is not None and attempt.open:
            # Nothing above closed the intent: something nobody thought of was raised. Charged at its maximum if sent.
            sent = journey.live is not None and journey.live.sent
            result = Result("indeterminate" if sent else "failed", sent=sent)
            self._books.finish_later(attempt.conclude(result))
            if journey.hold is not None and sent:
                journey.hold.settle(journey.spent(result))
        if journey.hold is not None:
            journey.hold.release()

    async def settle(self, journey: Journey, result: Result) -> bool:
        """(8) The reservation is settled and the outcome durable: the last byte may go. False if it must not.

        An answer whose outcome is not durable is never finished: where nothing of it was written the agent is told
        why, otherwise its wire is cut.
        """
        attempt, live, exchange = journey.attempt, journey.live, journey.exchange
        if attempt is None or live is None:
            raise RuntimeError("only an attempt is settled")
        live.enter_phase("settle", self._commit_seconds)
        spent = journey.spent(result)
        if journey.hold is not None:
            journey.hold.settle(spent, refused=result.refused)
        try:
            # Cancelled here, the outcome becomes durable all the same; its answer is not finished.
            await attempt.outcome(result, spent)
        except LedgerError as error:
            logger.error("call %s: its outcome could not be recorded: %s", journey.call_id, error)
            self.leave(journey)
            if live.answering:
                exchange.wire.abort()
            else:
                reason = Reason(Code.LEDGER_UNAVAILABLE, "the call was made, but its outcome could not be recorded")
                denial = _denial(self._audience(journey), reason, journey.call_id, request_id=journey.request_id)
                await exchange.refuse(denial, keep_alive=False)
            return False
        return True


def _denial(
    audience: Audience,
    reason: Reason,
    call: str,
    policy: str | None = None,
    retry_after_seconds: int | None = None,
    request_id: str | int | None = None,
    opening: Opening | None = None,
    fields: tuple[tuple[str, str], ...] = (),
) -> Denial:
    return Denial(
        reason, call, policy, retry_after_seconds, audience.service, audience.host, request_id, opening, fields
    )


def _reason(code: Code, detail: str, recorded: bool, rule: str | None = None) -> Reason:
    if recorded:
        return Reason(code, detail, rule)
    return Reason(Code.LEDGER_UNAVAILABLE, "the refusal could not be recorded", rule)


UNHEARD: Final = "this worker has not heard from control for too long to know what is revoked"
_BY_PHASE: Final = {
    "turn": (Code.OVERLOADED, "the account has more calls waiting than are done in time"),
    "lookup": (Code.LOOKUP_FAILED, "the service did not say in time what a rule asks for"),
    "queue": (Code.CONCURRENCY_REACHED, "no call in flight ended for this one in time"),
    "reserve": (Code.LIMITS_UNAVAILABLE, "the limits cannot be checked now"),
    "commit": (Code.LEDGER_UNAVAILABLE, "the call cannot be recorded now"),
    "settle": (Code.LEDGER_UNAVAILABLE, "the call was made, but its outcome could not be recorded"),
}


def _stop_reason(why: Stop, live: LiveCall) -> tuple[Code, str]:
    if why is Stop.REVOKED:
        return Code.REVOKED_IN_FLIGHT, "an operator revoked the credential while the call was in flight"
    if why is Stop.UNHEARD:
        return Code.CONTROL_UNAVAILABLE, UNHEARD
    if why is Stop.DRAINED:
        return Code.DRAINING, "Exeat is shutting down"
    if why is Stop.TIMED_OUT and live.phase in _BY_PHASE:
        return _BY_PHASE[live.phase]
    if why is Stop.TIMED_OUT and live.phase in {"admit", "body"} and not live.sent:
        return Code.REQUEST_TIMEOUT, "the request's body did not arrive in time"
    if why is Stop.TIMED_OUT and live.phase == UPLOAD_PHASE:
        return Code.REQUEST_TIMEOUT, "the upload paused for too long"
    if why is Stop.TIMED_OUT:
        return Code.UPSTREAM_TIMEOUT, f"the service did not answer in time ({live.phase})"
    return Code.INTERNAL, "the agent went away"
