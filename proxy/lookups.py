"""Lookups: reads that the gate makes itself, before it judges a call, of what the request does not say.

Each is a call of its own in the ledger, with an intent before it leaves and an outcome after; its id is the id of the
call that it is for and `.l1`. It goes where the call would go, with the same secret, over the same vetted way out, and
counts towards no limit but that a call has one.
"""

import asyncio
import logging
from math import ceil
from typing import Final

from ledger import commitment
from proxy.attempt import Attempt, Books, CommitFailed, Committed, Result
from proxy.config import GateConfig
from proxy.egress.errors import UpstreamError
from proxy.fulfil import Credential, Fulfilment, StaleConnection, dispatched_bytes
from proxy.http.emit import Head, emit_head
from proxy.http.target import format_authority
from proxy.intent import account_fields, lookup_content
from proxy.journey import CallRefused, Journey
from proxy.live import LiveCall
from proxy.records import Content, media_type, request_digest
from proxy.routes import Routes
from proxy.waiting import heed, pause_of
from proxy.world import World
from rules.call import Call, Facts
from rules.claims import Refused, ReservationsUnavailable
from rules.codes import Code
from rules.content.content import Value, read_content
from rules.content.refused import ContentRefused
from rules.decision import Allowed, Reason
from rules.lookups import LIMIT, Wanted, answered
from rules.observing import observing
from rules.policy.compile import Connection

logger = logging.getLogger("exeat.gate")

MAX_REPLY: Final = 256 * 1024
"""Bytes of a reply; what is longer says nothing that a rule needs."""
MAX_A_MINUTE: Final = 600
"""Lookups of one account. They are made before limits are, for they say what is to be judged: without a bound of their
own, calls that are denied anyway would cost the service a read each."""
MAX_ACCOUNTS: Final = 10_000
"""Whose counts are kept; they begin anew when there are more."""
_ATTEMPTS: Final = 2


class Allowance:
    """How many lookups an account has made in the minute that runs."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[str, str], tuple[float, int]] = {}

    def take(self, tenant: str, account: str, now: float) -> int | None:
        """One more is counted, and None; or the seconds until there is one. `now` is monotonic."""
        began, used = self._minutes.get((tenant, account), (now, 0))
        if now - began >= 60:
            began, used = now, 0
        if used >= MAX_A_MINUTE:
            return ceil(60 - (now - began))
        if len(self._minutes) >= MAX_ACCOUNTS and (tenant, account) not in self._minutes:
            self._minutes.clear()
        self._minutes[tenant, account] = began, used + 1
        return None


class Lookups:
    """Asks services. One for the whole gate; all methods belong to the proxy's event loop."""

    def __init__(
        self,
        world: World,
        books: Books,
        fulfilment: Fulfilment,
        routes: Routes,
        config: GateConfig,
        environment: Content,
    ) -> None:
        self._world = world
        self._books = books
        self._fulfilment = fulfilment
        self._routes = routes
        self._config = config
        self._environment = environment
        self._allowance = Allowance()

    async def ask(self, journey: Journey, live: LiveCall, call: Call, facts: Facts, want: Wanted) -> Facts:
        """The facts, with what the service said.

        Raises `CallRefused` where it could not be asked: nothing of the call was sent then.
        """
        connection = facts.connection
        if connection is None:
            return facts
        wait = self._allowance.take(call.principal.tenant, call.principal.account, live.loop.time())
        if wait is not None:
            if observing(call, facts):
                return answered(facts, None)
            reason = Reason(Code.RATE_LIMITED, "this account has too much looked up for it", want.rules[0])
            raise CallRefused(reason, retry_after_seconds=wait)
        await self._may_ask(call, connection)
        try:
            async with asyncio.timeout(self._config.timeouts.lookup):
                return answered(facts, await self._asked(journey, live, call, connection, want))
        except CommitFailed as error:
            raise CallRefused(Reason(Code.LEDGER_UNAVAILABLE, "the call cannot be recorded now")) from error
        except (UpstreamError, StaleConnection, TimeoutError) as error:
            late = "no answer in time" if isinstance(error, TimeoutError) else "connection closed"
            logger.warning("call %s: lookup: %s", call.id, getattr(error, "operator_detail", late))
            if observing(call, facts):
                await live.turn.take(first=True)
                return answered(facts, None)
            asking = want.rules[0] if want.rules[0].startswith(LIMIT) else f"rule {want.rules[0]}"
            detail = f"{connection.name} did not say what {asking} asks for"
            raise CallRefused(Reason(Code.LOOKUP_FAILED, detail, want.rules[0])) from error
        finally:
            live.sent = False  # of the call itself, nothing was
            live.operation = ""
            if live.stopped is None or live.phase != "commit":
                live.enter_phase("lookup", self._config.timeouts.turn)

    async def _may_ask(self, call: Call, connection: Connection) -> None:
        """The service has not asked to wait. Raises `CallRefused`."""
        try:
            answer = await self._books.reservations.reserve(f"{call.id}.l1", (pause_of(connection),))
        except ReservationsUnavailable as error:
            raise CallRefused(Reason(Code.LIMITS_UNAVAILABLE, "the limits cannot be checked now")) from error
        if isinstance(answer, Refused):
            raise CallRefused(Reason(answer.code, answer.detail), retry_after_seconds=answer.retry_after_seconds)
        self._books.reservations.release(answer)

    async def _asked(self, journey: Journey, live: LiveCall, call: Call, connection: Connection, want: Wanted) -> Value:
        policy = "" if journey.policy is None else journey.policy.digest
        allowed = Allowed(want.rules, want.route, (), policy)
        head = _head(connection, want)
        for number in range(1, _ATTEMPTS + 1):
            try:
                return await self._attempt(journey, live, call, connection, want, allowed, head, number)
            except StaleConnection:
                if number == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt either answers or raises")

    async def _attempt(
        self,
        journey: Journey,
        live: LiveCall,
        call: Call,
        connection: Connection,
        want: Wanted,
        allowed: Allowed,
        head: Head,
        number: int,
    ) -> Value:
        tenant, credential = call.principal.tenant, journey.credential
        key, digest = self._world.commitment_key(tenant), request_digest(head.public, b"")
        identity = f"{call.id}.l1"
        attempt = Attempt(self._books, tenant, identity, number, None)
        intent = lookup_content(
            journey, call, want, allowed, identity, number, key, digest, self._environment, connection
        )
        live.operation = f"{connection.name} GET {want.route} (lookup)"
        live.sent = False
        live.enter_phase("commit", self._config.timeouts.commit)
        try:
            committed = await attempt.commit(intent, digest)
            http, reply, said = await self._exchange(
                live, connection, credential, allowed, head, committed, key, identity
            )
        except BaseException as error:
            if attempt.open:  # also where it became durable in the very moment in which the call was stopped
                ended = "aborted" if isinstance(error, asyncio.CancelledError) else "failed"
                result = Result(
                    "indeterminate" if live.sent else ended, sent=live.sent, err="the lookup was not answered"
                )
                closing = self._books.finish_later(attempt.conclude(result))
                if isinstance(error, StaleConnection):
                    await asyncio.shield(closing)  # one attempt of a call is open at a time
            raise
        self._books.finish_later(attempt.conclude(Result("confirmed", sent=True, http=http, reply=reply)))
        return said

    async def _exchange(
        self,
        live: LiveCall,
        connection: Connection,
        credential: Credential | None,
        allowed: Allowed,
        head: Head,
        committed: Committed,
        key: bytes,
        identity: str,
    ) -> tuple[int, Content, Value]:
        route = self._routes.route_for(connection, 0 if credential is None else credential.version)
        upstream, response = await self._fulfilment.forward(
            live, route, "GET", lambda: dispatched_bytes(allowed, committed, route, head, b"", credential)
        )
        heed(self._books.reservations, connection, response)
        body, hashed = await self._fulfilment.read(live, upstream, MAX_REPLY)
        reply: Content = {
            "commit": commitment(key, identity, "resp", hashed.digest),
            "len": hashed.length,
            "media": media_type(response.headers),
        }
        types = tuple(value for name, value in response.headers if name == b"content-type")
        coded = any(name == b"content-encoding" for name, _ in response.headers)
        if not 200 <= response.status < 300 or body is None or coded:
            return response.status, reply, None
        try:
            return response.status, reply, read_content(types, body).value
        except ContentRefused:
            return response.status, reply, None


def _head(connection: Connection, want: Wanted) -> Head:
    authority = format_authority(connection.scheme, connection.host, connection.port)
    own = ((b"accept", b"application/json"), (b"user-agent", b"exeat"))
    return emit_head("GET", want.path, want.query, authority, own, content_length=None, add=account_fields(connection))
