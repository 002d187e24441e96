"""One agent's connection from first byte to last: the forward door, the tunnel behind a CONNECT, request by request.

A CONNECT by an identified agent is accepted even to a name it may not call: SDKs hide the body of a refused CONNECT
and call it a connection error. So TLS is ended here, nothing is dialled, and the denial is answered inside.
"""

import asyncio
import logging
import math
import time
from dataclasses import replace
from typing import Final

from credentials.principal import Principal
from credentials.tokens import CredentialRejected
from proxy.authorization import proxy_token
from proxy.config import GateConfig
from proxy.connections import Connections
from proxy.endings import Endings
from proxy.engine.certificates import Certificates
from proxy.exchange import Exchange, Tunnel, linger
from proxy.http.errors import RequestRefused
from proxy.http.request import RequestParser
from proxy.http.target import parse_connect_target, parse_host_header
from proxy.metrics import Metrics
from proxy.pipeline import Pipeline
from proxy.strangers import Strangers
from proxy.turns import Key, Turns
from proxy.verifying import Verifier
from proxy.wire import HandshakeRefused, Wire, WireClosed
from proxy.world import World
from rules.codes import Code

logger = logging.getLogger("exeat.gate")

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_CLOSE_SECONDS: Final = 5.0
"""For an agent to take what was written before its wire is closed; then it is cut."""
_HANDSHAKE_TURN_SECONDS: Final = 0.05
"""Some twenty times what a handshake takes from our side, and less than an agent notices."""
_TLS_HANDSHAKE: Final = 0x16
"""ContentType of the record a ClientHello comes in (RFC 8446 5.1)."""


class Doorman:
    """What all sessions share."""

    def __init__(
        self,
        pipeline: Pipeline,
        endings: Endings,
        world: World,
        certificates: Certificates,
        metrics: Metrics,
        config: GateConfig,
        turns: Turns,
        connections: Connections,
        verifier: Verifier,
    ) -> None:
        self.pipeline = pipeline
        self.endings = endings
        self.world = world
        self.metrics = metrics
        self.config = config
        self.turns = turns
        self.connections = connections
        self.verifier = verifier
        self.http = replace(config.http, max_body_bytes=None)
        """Bodies are bounded where they are taken: how long one may be depends on the rule that allows it."""
        self.strangers = Strangers(
            certificates, config.max_unknown_hosts, per_second=config.max_unknown_hosts_per_second
        )


class Session:
    """One connection. `run` returns when it is over, whatever happened."""

    def __init__(self, doorman: Doorman, wire: Wire) -> None:
        self._doorman = doorman
        self._wire = wire
        self._timeouts = doorman.config.timeouts
        self.idle = True
        """True between two requests: a drain may close the wire now."""
        self.idle_since = 0.0
        """Loop time at which it last became idle."""
        self.idle_until = math.inf
        """Loop time after which an idle wire is closed; looked at by the gate's sweep, so that no request costs a
        timer."""
        self._loop = asyncio.get_running_loop()
        self._tunnelled: Tunnel | None = None
        """The tunnel that this wire now is."""
        self._refusal: RequestRefused | None = None
        self._closes_at = math.inf
        """Unix seconds from which on an idle tunnel is closed, because its credential ends soon."""

    async def run(self) -> None:
        """The connection has been served and closed."""
        try:
            await self._forward_door()
        except (WireClosed, TimeoutError):
            pass
        except RequestRefused as error:
            await self._refuse_unparsed(error)
        except Exception:
            logger.exception("a session crashed")
            self._wire.abort()
        finally:
            await self._close()

    async def _close(self) -> None:
        """The wire is gone: a session ends with its wire, so that whoever counts sessions counts sockets."""
        self._wire.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._wire.wait_lost()
        except TimeoutError:
            self._wire.abort()

    async def _taken(self) -> None:
        """The agent has read enough of its answers that another request may be answered. Raises `TimeoutError`.

        An agent that sends and never reads would otherwise have its answers pile up in our memory.
        """
        if self._wire.backlogged:
            async with asyncio.timeout(self._timeouts.body_idle):
                await self._wire.drain()

    async def _forward_door(self) -> None:
        parser = RequestParser(self._doorman.http, connect=True)
        while await self._next_head(parser, self._timeouts.headers):
            head = parser.head
            if head is None:
                return
            exchange = Exchange(self._wire, parser, head, None, self._refusal)
            self.idle = False
            if head.method == "CONNECT":
                tunnel = await self._connect(exchange)
                if tunnel is not None:
                    await self._tunnel(tunnel, parser.take_tunnel_bytes())
                    return
                if not parser.complete:
                    return
            elif not await self._doorman.pipeline.answer(exchange) or self._refusal is not None:
                return
            await self._taken()
            parser.next()
            self.idle = True

    # CONNECT

    async def _connect(self, exchange: Exchange) -> Tunnel | None:
        """The tunnel that was asked for and is established; None after it was refused and answered."""
        wire, endings = self._wire, self._doorman.endings
        head = exchange.head
        principal: Principal | None = None
        try:
            host, port = parse_connect_target(head.target)
            if head.host is not None and parse_host_header(head.host, 443) != (host, port):
                raise RequestRefused(Code.DESTINATION_MISMATCH, "CONNECT target and Host header differ")
            if head.has_body:
                raise RequestRefused(Code.MALFORMED_REQUEST, "CONNECT carries no body")
            token = proxy_token(head.headers)
            principal = await self._recognise(token)
            if not self._doorman.connections.identify(wire, principal.tenant, principal.account, self._loop.time()):
                raise RequestRefused(Code.CONNECTIONS_REACHED, "this account has too many connections")
            wire.defer = self._doorman.turns.reader(Key(principal.tenant, principal.account))
            self._check_stranger(principal, host, port)
        except RequestRefused as error:
            await endings.reject(exchange, error.code, error.detail, wire.peer, close=True, principal=principal)
            raise WireClosed from error
        except CredentialRejected as error:
            code = Code(error.code)
            if code is Code.CREDENTIAL_MISSING:
                await self._challenge(exchange)
                return None
            await endings.reject(exchange, code, error.detail, wire.peer, close=True, principal=error.principal)
            raise WireClosed from error
        wire.write(_ESTABLISHED)
        return Tunnel(host, port, token, principal)

    async def _recognise(self, token: str) -> Principal:
        """Whom the token names. A signature that verifies is enough for the tunnel, not for a call.

        An expired or revoked credential still says who is there, and its holder's program shall read why it is
        refused: inside, where every request is identified anew and answered 401.
        """
        try:
            return await self._doorman.verifier.verify(token)
        except CredentialRejected as error:
            if error.principal is None:
                raise
            return error.principal

    async def _challenge(self, exchange: Exchange) -> None:
        """RFC 9110 11.7.1: many clients send their credential only when asked. Counted, not denied."""
        if not await self._doorman.endings.challenge(exchange, self._wire.peer):
            raise WireClosed

    def _check_stranger(self, principal: Principal, host: str, port: int) -> None:
        if not self._doorman.strangers.may_vouch(host):
            raise RequestRefused(
                Code.DESTINATION_UNKNOWN, "this gate's authority is constrained to other hosts; no certificate is made"
            )
        policy = self._doorman.world.policy
        tenant = None if policy is None else policy.tenants.get(principal.tenant)
        if tenant is not None and tenant.connection_for("https", host, port) is not None:
            return
        if not self._doorman.strangers.admit(principal.tenant, principal.account, host):
            raise RequestRefused(
                Code.DESTINATION_UNKNOWN, "too many unknown hosts; no certificate is made for this one"
            )

    # inside the tunnel

    async def _tunnel(self, tunnel: Tunnel, early: bytes) -> None:
        wire, endings = self._wire, self._doorman.endings
        try:
            async with asyncio.timeout(self._timeouts.handshake):
                if early:
                    wire.unread_first(early)
                first = await wire.peek()
                if not first:
                    return
                if first[0] != _TLS_HANDSHAKE:
                    raise HandshakeRefused("what followed CONNECT is not TLS")
                await self._handshake(tunnel)
        except (HandshakeRefused, TimeoutError) as error:
            detail = error.detail if isinstance(error, HandshakeRefused) else "no TLS handshake in time"
            logger.info("tunnel to %s refused: %s", tunnel.host, detail)
            mismatch = isinstance(error, HandshakeRefused) and error.mismatch
            code = Code.DESTINATION_MISMATCH if mismatch else Code.PROTOCOL_REFUSED
            await endings.reject(None, code, detail, wire.peer, principal=tunnel.principal)
            wire.abort()
            return
        await self._requests(tunnel)

    async def _handshake(self, tunnel: Tunnel) -> None:
        """TLS is established, in a turn of the account's: a handshake costs as much as several calls.

        The turn is for our part of it; an agent that does not finish its own keeps it no longer.
        """
        turn = self._doorman.turns.turn(tunnel.principal.tenant, tunnel.principal.account)
        await turn.take()
        over = self._loop.call_later(_HANDSHAKE_TURN_SECONDS, turn.give_back)
        try:
            await self._wire.start_tls(tunnel.host, tunnel.principal.tenant)
        finally:
            over.cancel()
            turn.give_back()

    async def _requests(self, tunnel: Tunnel) -> None:
        parser = RequestParser(self._doorman.http)
        self.idle = True
        principal = tunnel.principal
        # Past half its credential's life an idle tunnel is closed well before the credential dies, so that no agent's
        # request meets the very instant of expiry: its pool opens another tunnel, with the renewed credential.
        lifetime = principal.expires_at - principal.issued_at
        if time.time() < principal.expires_at:
            self._closes_at = principal.issued_at + lifetime * 0.75
        self._tunnelled = tunnel
        while await self._next_head(parser, self._timeouts.tunnel_idle):
            head = parser.head
            if head is None:
                return
            self.idle = False
            if not await self._doorman.pipeline.answer(Exchange(self._wire, parser, head, tunnel, self._refusal)):
                return
            if self._refusal is not None:
                return
            await self._taken()
            parser.next()
            self.idle = True

    # reading heads

    async def _next_head(self, parser: RequestParser, idle_seconds: float) -> bool:
        """True when a whole head is there; False when the agent is gone or has been silent for too long."""
        if parser.head is not None:
            return True
        if parser.idle:
            self.idle_since = self._loop.time()
            self.idle_until = self.idle_since + min(idle_seconds, max(0.0, self._closes_at - time.time()))
            data = await self._wire.read()
            self.idle_until = math.inf
            if not data:
                return False
            self.idle = False
            if self._feed(parser, data):
                return True
        try:
            async with asyncio.timeout(self._timeouts.headers):
                return await self._rest_of_head(parser)
        except TimeoutError as error:
            raise RequestRefused(Code.REQUEST_TIMEOUT, "the request's head did not arrive in time") from error

    async def _rest_of_head(self, parser: RequestParser) -> bool:
        while data := await self._wire.read():
            if self._feed(parser, data):
                return True
        return False

    def _feed(self, parser: RequestParser, data: bytes) -> bool:
        """True when the head is there after these bytes. Raises `RequestRefused` when none will be."""
        try:
            parser.feed(data)
        except RequestRefused as error:
            if parser.head is None:
                raise
            self._refusal = error
        return parser.head is not None

    async def _refuse_unparsed(self, error: RequestRefused) -> None:
        """What came is no request that could be read: there is no head to answer to."""
        await self._doorman.endings.reject_unparsed(self._wire, error.code, error.detail, self._tunnelled)
        await linger(self._wire)
