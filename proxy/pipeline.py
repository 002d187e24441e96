"""The life of a call: eight numbered steps, denied before allowed.

    (1) admit     parse and normalise once; the destination is one thing
    (2) identify  verify the credential, on every request
    (3) classify  which connection of the tenant this is
    (4) decide    one pure function
    (5) reserve   all claims or none
    (6) commit    the intent is durable
    (7) fulfil    attach the secret, forward, relay
    (8) settle    what it cost, the outcome durable, then the last byte

A call is stopped from outside (revoked, out of time, its agent gone) by cancelling the task it runs in; `LiveCall`
says why. Whatever had been begun is finished by tasks of its own (`proxy.attempt`).
"""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Final

from credentials.tokens import CredentialRejected
from proxy.admission import Admission
from proxy.attempt import Attempt, Books, CommitFailed, Committed, Result
from proxy.config import GateConfig
from proxy.connections import Connections
from proxy.deciding import Deciding, InputsSink, credential_for
from proxy.egress.errors import UpstreamError
from proxy.endings import UNHEARD, Endings
from proxy.exchange import Exchange, linger
from proxy.fulfil import IDEMPOTENT, DispatchRefused, Fulfilment, StaleConnection, dispatched_bytes
from proxy.held import HeldBytes
from proxy.http.emit import Head
from proxy.http.errors import RequestRefused
from proxy.intake import Intake
from proxy.intent import egress_head, intent_content
from proxy.journey import CallRefused, Journey, new_call_id
from proxy.live import LiveCall, LiveCalls, Stop
from proxy.lookups import Lookups
from proxy.metrics import Metrics, Step
from proxy.records import Content, request_digest
from proxy.replies.mcp import reply_filter_for
from proxy.reserving import reserve, sent_bytes
from proxy.rewriting import rewriter_for
from proxy.routes import Routes
from proxy.turns import Key, Turns
from proxy.verifying import Verifier
from proxy.waiting import heed
from proxy.wire import WireClosed
from proxy.world import Clock, World
from rules.call import Call
from rules.codes import Code
from rules.decision import Allowed, Denied, Reason
from rules.meters.bytes_out import BYTES_OUT
from rules.meters.meter import ONE
from rules.policy.compile import Connection
from rules.timing import Timing

logger = logging.getLogger("exeat.gate")

MAX_ATTEMPTS: Final = 2


class Pipeline:
    """Answers requests. One for the whole gate; holds no state of a call."""

    def __init__(
        self,
        world: World,
        books: Books,
        fulfilment: Fulfilment,
        endings: Endings,
        live: LiveCalls,
        metrics: Metrics,
        config: GateConfig,
        environment: Content,
        turns: Turns,
        connections: Connections,
        held: HeldBytes,
        verifier: Verifier,
        inputs: InputsSink | None,
        clock: Clock,
    ) -> None:
        self._world = world
        self._admission = Admission(world, config.names, verifier)
        self._books = books
        self._fulfilment = fulfilment
        self._endings = endings
        self._live = live
        self._metrics = metrics
        self._config = config
        self._environment = environment
        self._turns = turns
        self._connections = connections
        self._held = held
        self._intake = Intake(config)
        self._inputs = inputs
        self._routes = Routes()
        lookups = Lookups(world, books, fulfilment, self._routes, config, environment)
        self._deciding = Deciding(world, self._intake, lookups, clock)
        self._clock = clock
        self.draining = False
        """No call is taken any more."""
        self.retiring = False
        """Each wire's next answer is its last."""

    async def answer(self, exchange: Exchange) -> bool:
        """The request has been answered, recorded and settled. True if the wire can carry another one.

        Raises `WireClosed` when the agent is gone, and whatever cancelled the session.
        """
        journey = Journey(exchange)
        began = journey.mark
        endings = self._endings
        try:
            try:
                return await self._steps(journey)
            finally:
                # How it ends is settled now; a deadline or a revocation that comes later must not interrupt that.
                endings.leave(journey)
        except RequestRefused as error:
            return await endings.refuse_request(journey, error)
        except CredentialRejected as error:
            if error.code == Code.CREDENTIAL_MISSING and exchange.at_origin:
                return await endings.challenge(exchange, exchange.wire.peer)
            return await endings.reject(
                exchange,
                Code(error.code),
                error.detail,
                exchange.wire.peer,
                close=True,
                principal=error.principal,
            )
        except CallRefused as refusal:
            return await endings.deny(journey, refusal)
        except asyncio.CancelledError:
            if journey.live is None or journey.live.stopped is None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return await endings.stopped(journey, journey.live.stopped)
        except WireClosed:
            raise
        except Exception:
            logger.exception("call %s: internal error", journey.call_id)
            return await endings.crashed(journey)
        finally:
            endings.finish(journey)
            self._metrics.calls.observe(time.perf_counter_ns() - began)

    def close(self) -> None:
        """No body is read any more; threads that still read one end by themselves."""
        self._intake.close()
        self._fulfilment.close()

    def _lap(self, journey: Journey, step: Step) -> None:
        now = time.perf_counter_ns()
        self._metrics.steps[step].observe(now - journey.mark)
        journey.mark = now

    async def _steps(self, journey: Journey) -> bool:
        exchange = journey.exchange
        # (1) admit
        if self.draining:
            raise RequestRefused(Code.DRAINING, "Exeat is shutting down")
        if time.monotonic() > self._world.heard_until:
            raise RequestRefused(Code.CONTROL_UNAVAILABLE, UNHEARD)
        asked = self._admission.admit(exchange)
        self._lap(journey, Step.ADMIT)
        # (2) identify
        target, principal = await self._admission.identify(exchange, asked)
        journey.call = call = Call(
            new_call_id(),
            principal,
            target.scheme,
            target.host,
            target.port,
            exchange.head.method,
            target.path,
            target.query,
        )
        journey.live = live = self._enter(call, exchange)
        if exchange.tunnel is None:
            if not self._connections.identify(exchange.wire, principal.tenant, principal.account, live.began):
                raise CallRefused(Reason(Code.CONNECTIONS_REACHED, "this account has too many connections"))
            exchange.wire.defer = self._turns.reader(Key(principal.tenant, principal.account))
        self._lap(journey, Step.IDENTIFY)
        live.enter_phase("turn", self._config.timeouts.turn)
        await live.turn.take()
        journey.mark = time.perf_counter_ns()
        # (3) classify
        facts = await self._deciding.classify(journey, live, call)
        self._lap(journey, Step.CLASSIFY)
        # (4) decide
        decision = await self._deciding.decide(journey, live, call, facts)
        if isinstance(decision, Denied):
            raise await self._deciding.refusal(journey, call, facts, decision)
        if facts.content is not None:  # many times as large as the body that it was read from
            facts = replace(facts, content=None, actions=(), found=None)
        journey.allowed = allowed = decision
        journey.credential = credential_for(self._world, facts)
        self._lap(journey, Step.DECIDE)
        live.enter_phase("body", self._config.timeouts.body_idle)
        await self._intake.take(journey, live, allowed.body)
        journey.mark = time.perf_counter_ns()
        # (5) reserve
        connection = facts.connection
        if connection is None:
            raise CallRefused(Reason(Code.INTERNAL, "an allowed call has no connection"))
        head = egress_head(journey, call, connection)

        def may_wait() -> bool:
            self._deciding.look_again(journey, call, facts)
            return not self.draining

        if await reserve(self._books, journey, call, live, allowed, head, self._config.timeouts.reserve, may_wait):
            self._deciding.look_again(journey, call, facts)
            live.enter_phase("turn", self._config.timeouts.turn)
            await live.turn.take(first=True)
            journey.mark = time.perf_counter_ns()  # it has waited for a slot, which is measured by itself
        self._lap(journey, Step.RESERVE)
        # (6) to (8)
        return await self._send(journey, call, live, allowed, connection, head)

    def _enter(self, call: Call, exchange: Exchange) -> LiveCall:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is answered inside a task")
        now = loop.time()
        timeouts = self._config.timeouts
        turn = self._turns.turn(call.principal.tenant, call.principal.account)
        live = LiveCall(
            call.id,
            call.principal,
            exchange.wire,
            task,
            loop,
            now,
            now + timeouts.turn,
            now + timeouts.total,
            turn,
            self._held.of(call.principal.tenant, call.principal.account),
        )
        self._live.enter(live)
        exchange.turn = turn
        exchange.wire.on_lost = lambda: live.stop(Stop.DISCONNECTED)
        return live

    # (6) to (8)

    async def _send(
        self, journey: Journey, call: Call, live: LiveCall, allowed: Allowed, connection: Connection, head: Head
    ) -> bool:
        for number in range(1, MAX_ATTEMPTS + 1):
            self._deciding.refuse_suspended(call)
            if journey.timing is not Timing.ALWAYS:
                allowed = await self._deciding.again(journey, call, allowed)
            committed = await self._commit(journey, call, live, allowed, head, number)
            self._lap(journey, Step.COMMIT)
            try:
                return await self._fulfil(journey, call, live, allowed, connection, head, committed)
            except StaleConnection as error:
                await self._conclude_stale(journey, call, live, number, error)
        raise AssertionError("the last attempt either answers or raises")

    async def _commit(
        self, journey: Journey, call: Call, live: LiveCall, allowed: Allowed, head: Head, number: int
    ) -> Committed:
        cost = journey.cost
        if cost is not None:
            live.amount_micros, live.currency = cost.micros, cost.currency
        live.operation = f"{journey.connection_name} {call.method} {allowed.route}"
        live.enter_phase("commit", self._config.timeouts.commit)
        key = self._world.commitment_key(call.principal.tenant)
        digest = request_digest(head.public, journey.body)
        intent = intent_content(journey, call, allowed, number, key, digest, self._environment)
        journey.attempt = attempt = Attempt(self._books, call.principal.tenant, call.id, number, cost)
        if (upload := journey.upload) is not None:
            attempt.upload = lambda: upload.content(key, call.id)
        if self._inputs is not None and journey.decided is not None and number == 1:
            self._inputs.keep(journey.decided)  # before its record: what is recorded and not kept was lost
        try:
            return await attempt.commit(intent, digest)
        except CommitFailed as error:
            logger.error("call %s: %s", call.id, error.__cause__)
            raise CallRefused(Reason(Code.LEDGER_UNAVAILABLE, "the call cannot be recorded now")) from error

    async def _conclude_stale(
        self, journey: Journey, call: Call, live: LiveCall, number: int, error: StaleConnection
    ) -> None:
        """A kept-alive connection had died. Only what is idempotent is sent again, with a new intent."""
        attempt = journey.attempt
        again = call.method in IDEMPOTENT and number < MAX_ATTEMPTS
        if again and attempt is not None:
            live.sent = False
            # Whether the dead connection delivered it nobody knows: charged here and now, and the next attempt, which
            # may never be sent, costs nothing more.
            lost = Result("indeterminate", sent=True, err="kept-alive connection was closed by the origin")
            if journey.hold is not None:
                journey.hold.charge(journey.spent(lost))
            journey.cost = None
            await asyncio.shield(self._books.finish_later(attempt.conclude(lost)))
            return
        raise CallRefused(
            Reason(Code.UPSTREAM_PROTOCOL, "the service closed the connection without an answer")
        ) from error

    async def _fulfil(
        self,
        journey: Journey,
        call: Call,
        live: LiveCall,
        allowed: Allowed,
        connection: Connection,
        head: Head,
        committed: Committed,
    ) -> bool:
        exchange = journey.exchange
        credential = journey.credential
        route = self._routes.route_for(connection, 0 if credential is None else credential.version)
        try:
            upstream, response = await self._fulfilment.forward(
                live,
                route,
                call.method,
                lambda: dispatched_bytes(allowed, committed, route, head, journey.body, credential),
                journey.upload,
                None if journey.timing is Timing.ALWAYS else lambda: self._deciding.overtaken(journey),
            )
            heed(self._books.reservations, connection, response)
            relayed = await self._fulfilment.relay(
                live,
                exchange.wire,
                upstream,
                response,
                commitment_key=self._world.commitment_key(call.principal.tenant),
                keep_alive=self._may_keep(journey),
                rewrite=rewriter_for(journey, call),
                filtering=reply_filter_for(journey, call, self._deciding.definitions, self._clock()),
                tap=journey.begin_reading(response),
            )
        except UpstreamError as error:
            logger.warning("call %s: upstream: %s", call.id, error.operator_detail)
            raise CallRefused(Reason(error.code, error.detail)) from error
        except DispatchRefused as error:
            logger.critical("call %s: what would be sent differs from what was recorded", call.id)
            raise CallRefused(Reason(Code.INTERNAL, "the call could not be sent as it was recorded")) from error
        self._lap(journey, Step.FULFIL)
        if journey.upload is not None:
            journey.told[BYTES_OUT] = sent_bytes(journey, head) * ONE
        if journey.used is not None:
            self._deciding.memory.learn(connection.tenant, connection.name, journey.used)
        # (8) settle
        if not await self._endings.settle(journey, relayed.result()):
            return False
        self._lap(journey, Step.SETTLE)
        self._metrics.decided("allow")
        exchange.wire.write(relayed.tail)
        if relayed.keep_alive:
            return True
        if exchange.parser.complete:
            exchange.wire.close()
        else:  # the service answered before it had the whole body: what the agent still sends must not reset the answer
            live.turn.give_back()
            await linger(exchange.wire)
        return False

    def _may_keep(self, journey: Journey) -> bool:
        """Whether the agent's wire may carry another request after this one.

        Past half its credential's life a tunnel is not kept: the agent's next connection brings the renewed one.
        """
        exchange = journey.exchange
        call = journey.call
        if (
            self.draining
            or self.retiring
            or not exchange.head.keep_alive
            or not exchange.parser.complete
            or call is None
        ):
            return False
        principal = call.principal
        return time.time() < (principal.issued_at + principal.expires_at) / 2
