"""Step 7: attach the secret, forward, and stream the answer back up to its last byte.

The last byte is never written here. `relay` hands it back, and the pipeline releases it once the outcome is durable:
an agent that has seen the end of an answer can rely on the ledger having it too.
"""

import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from credentials.binding import Binding
from credentials.secret import Secret
from ledger import commitment
from proxy.attempt import Committed, Result
from proxy.config import GateConfig
from proxy.egress.errors import UpstreamBroken
from proxy.egress.pool import Pool
from proxy.egress.route import Route
from proxy.egress.upstream import Upstream
from proxy.http.emit import LAST_CHUNK, Head, Rewrite, emit_chunk, emit_response_head
from proxy.http.response import ResponseHead
from proxy.live import LiveCall
from proxy.records import Content, media_type
from proxy.replies.judge import Judge
from proxy.replies.reply_filter import DROPPED, Filtering
from proxy.upload import Upload
from proxy.usage.tap import Tap, Tapped
from proxy.wire import Wire
from rules.codes import Code
from rules.decision import Allowed
from rules.swift import swift

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""RFC 9110 9.2.2, without TRACE."""


class DispatchRefused(Exception):
    """What would be sent is not what was recorded. Nothing was sent; a defect of ours, reported as `internal`."""


class StaleConnection(Exception):
    """A reused connection died before a byte of the answer arrived; the request may be sent again if idempotent."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A connection's secret and how it is presented."""

    binding: Binding
    secret: Secret
    version: int


@swift
@dataclass(frozen=True, slots=True)
class Relayed:
    """An answer that has been relayed but for its tail."""

    http: int
    reply: Content
    tail: bytes
    """What must be written once the outcome is durable."""
    keep_alive: bool
    refused: str | None = None
    """Why the rest of a stream was not passed on; None: it was relayed to its end."""

    def result(self) -> Result:
        """How the attempt ended: a stream that its filter ended was begun and not finished."""
        if self.refused is None:
            return Result("confirmed", sent=True, http=self.http, reply=self.reply)
        code = Code.UPSTREAM_PROTOCOL
        return Result("aborted", sent=True, http=self.http, code=code, err=self.refused, reply=self.reply)


@dataclass(frozen=True, slots=True)
class Hashed:
    """What was read of an answer."""

    digest: bytes
    length: int


def dispatched_bytes(
    allowed: Allowed, committed: Committed, route: Route, head: Head, body: bytes, credential: Credential | None
) -> bytes:
    """The request with its secret, provably the one that was allowed and recorded.

    Takes an `Allowed` and a durable intent, so no path that has neither type-checks. Raises `DispatchRefused` when
    the bytes differ from what the intent commits to.
    """
    digest = hashlib.sha256(head.public)
    digest.update(body)
    if digest.digest() != committed.digest or not allowed.rules:
        raise DispatchRefused
    if credential is None:
        return head.wire() + body
    # Binding.present checks once more that this tenant's secret goes to this destination and nowhere else.
    field = credential.binding.present(
        credential.secret, tenant=route.tenant, scheme=route.scheme, host=route.host, port=route.port
    )
    return head.wire(field) + body


class Fulfilment:
    """Forwards requests and relays answers."""

    def __init__(self, pool: Pool, config: GateConfig) -> None:
        self._pool = pool
        self._timeouts = config.timeouts
        self._max_held = config.max_held_reply_bytes
        # One: Python runs one at a time, and a second would only keep the ledger's waiting.
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="reply")

    def close(self) -> None:
        """No answer is judged any more; a thread that still does ends by itself."""
        self._judges.shutdown(wait=False, cancel_futures=True)

    async def forward(
        self,
        live: LiveCall,
        route: Route,
        method: str,
        prepare: Callable[[], bytes],
        upload: Upload | None = None,
        overtaken: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Upstream, ResponseHead]:
        """The request is sent and the answer's head is here.

        `prepare` is called when a connection stands, so the secret is in the bytes for as short as possible. Raises
        `UpstreamError`, `StaleConnection` or `DispatchRefused`; the connection is then gone. `overtaken` is asked
        before the first byte leaves, and what it raises keeps that from leaving.
        """
        live.enter_phase("connect", self._timeouts.connect)
        # A body that is streamed cannot be sent again: no connection that may have died is good enough for it.
        if upload is not None or not self._pool.rested(route):
            live.turn.give_back()  # dialling may take seconds
        upstream = await self._pool.acquire(route, fresh=upload is not None)
        live.upstream = upstream
        reused = upstream.reused
        try:
            await live.turn.take(first=True)
            if overtaken is not None:
                await overtaken()
            data = prepare()
            upstream.begin(method)
            live.sent = True
            live.enter_phase("send", self._timeouts.body_idle)
            upstream.write(data, last=upload is None)
            live.turn.give_back()  # an origin may take a while to read, and more to answer
            await upstream.drain()
            if upload is not None:
                await upload.run(live, upstream, self._timeouts.body_idle)
            live.enter_phase("first_byte", self._timeouts.first_byte)
            response = await upstream.next_head()
            live.enter_phase("body", self._timeouts.body_idle)
            await live.turn.take(first=True)
            return upstream, response
        except UpstreamBroken as error:
            self.give_back(live)
            if reused and upstream.bytes_received == 0:
                raise StaleConnection from error
            raise
        except BaseException:
            self.give_back(live)
            raise

    async def read(self, live: LiveCall, upstream: Upstream, at_most: int) -> tuple[bytes | None, Hashed]:
        """The answer's body for the gate itself; None where it is longer than so many bytes. Raises `UpstreamError`."""
        hashed, length, pieces = hashlib.sha256(), 0, list[bytes]()
        try:
            while length <= at_most:
                live.enter_phase("body", self._timeouts.body_idle)
                if not upstream.response_complete:
                    live.turn.give_back()
                piece = await upstream.next_body()
                await live.turn.take(first=True)
                if not piece:
                    break
                hashed.update(piece)
                length += len(piece)
                pieces.append(piece)
        except BaseException:
            self.give_back(live)
            raise
        if length > at_most:
            self.give_back(live)
            return None, Hashed(hashed.digest(), length)
        live.upstream = None
        self._pool.release(upstream)
        return b"".join(pieces), Hashed(hashed.digest(), length)

    def give_back(self, live: LiveCall) -> None:
        """The call's connection, if it has one, is cut and its place in the pool is free. Idempotent."""
        upstream, live.upstream = live.upstream, None
        if isinstance(upstream, Upstream):
            upstream.abort()
            self._pool.release(upstream)

    async def relay(
        self,
        live: LiveCall,
        wire: Wire,
        upstream: Upstream,
        response: ResponseHead,
        *,
        commitment_key: bytes,
        keep_alive: bool,
        rewrite: Rewrite | None = None,
        filtering: Filtering | None = None,
        tap: Tap | None = None,
    ) -> Relayed:
        """Everything but the tail has been written to the agent. Raises `UpstreamError` or `WireClosed`.

        `tap`: reads the body as it passes. `filtering`: what the agent gets goes through its filter, and the reply's
        length and digest are of that. Raises `RequestRefused` where there is no room to hold it.
        """
        relay = _Relay(
            live, wire, upstream, response, keep_alive, rewrite, None if tap is None else Tapped(tap, live.held)
        )
        filter_ = None if filtering is None or response.bodyless else filtering(response)
        idle = self._timeouts.stream_idle if relay.is_event_stream else self._timeouts.body_idle
        try:
            if filter_ is None:
                tail = await relay.run(self._max_held, idle)
            else:
                tail = await relay.run_filtered(Judge(filter_, live, self._judges), idle)
        except BaseException:
            self.give_back(live)
            raise
        refused = None if filter_ is None else filter_.refused
        if refused is not None:
            self.give_back(live)  # what it still sends is for nobody
        else:
            live.upstream = None
            self._pool.release(upstream)
        return Relayed(
            http=response.status,
            reply={
                "commit": commitment(commitment_key, live.id, "resp", relay.digest()),
                "len": relay.length,
                "media": relay.media,
            },
            tail=tail,
            keep_alive=keep_alive,
            refused=refused,
        )


class _Relay:
    """One answer on its way back."""

    def __init__(
        self,
        live: LiveCall,
        wire: Wire,
        upstream: Upstream,
        response: ResponseHead,
        keep_alive: bool,
        rewrite: Rewrite | None,
        tapped: "Tapped | None",
    ) -> None:
        self._tapped = tapped
        self._live = live
        self._wire = wire
        self._upstream = upstream
        self._response = response
        self._keep_alive = keep_alive
        self._rewrite = rewrite
        self._dropped: frozenset[bytes] = frozenset()
        self._hash = hashlib.sha256()
        self.length = 0
        self.media = media_type(response.headers)
        self.is_event_stream = self.media == "text/event-stream"

    def digest(self) -> bytes:
        """SHA-256 of the body so far."""
        return self._hash.digest()

    async def run(self, max_held: int, idle_seconds: float) -> bytes:
        """Relays all but the returned tail."""
        response, upstream = self._response, self._upstream
        self._idle_seconds = idle_seconds
        length = response.content_length
        if length is not None and length > max_held and not response.bodyless:
            return await self._counted(length)
        held: list[bytes] = []
        if upstream.response_complete or response.content_length is not None:
            # Whole already, or short and of known length: held. Anything else is a stream, and the agent gets its head.
            while piece := await self._next():
                held.append(piece)
            return self._head(content_length=self._whole_length()) + b"".join(held)
        return await self._chunked()

    def _whole_length(self) -> int | None:
        """The length to declare for a held answer; a HEAD's, 204's and 304's stays what the origin said."""
        if self._response.bodyless:
            return self._response.content_length
        return self.length

    async def _next(self) -> bytes:
        """The next piece, which the agent gets as it is."""
        return self._counting(await self._received())

    def _counting(self, data: bytes) -> bytes:
        self._hash.update(data)
        self.length += len(data)
        return data

    async def _received(self) -> bytes:
        live = self._live
        live.enter_phase("body", self._idle_seconds)
        if not self._upstream.response_complete:
            live.turn.give_back()
        data = await self._upstream.next_body()
        await live.turn.take(first=True)
        if self._tapped is not None:
            self._tapped.feed(data)
        return data

    async def _counted(self, total: int) -> bytes:
        """A large answer of declared length: all but its last byte."""
        self._begin(self._head(content_length=total))
        while True:
            data = await self._next()
            if self.length >= total:
                self._wire.write(data[:-1])
                await self._drained()
                await self._live.turn.take(first=True)
                return data[-1:]
            self._wire.write(data)
            await self._drained()

    async def _chunked(self) -> bytes:
        """A stream: all but its last chunk."""
        self._begin(self._head(content_length=None))
        while data := await self._next():
            self._wire.write(emit_chunk(data))
            await self._drained()
        return LAST_CHUNK

    async def run_filtered(self, judge: Judge, idle_seconds: float) -> bytes:
        """As `run`, through a filter. Raises `UpstreamBroken` where nothing of the answer is passed on."""
        self._idle_seconds = idle_seconds
        self._dropped = DROPPED
        return await (self._filtered_stream(judge) if judge.filter.streams else self._filtered_whole(judge))

    async def _filtered_whole(self, judge: Judge) -> bytes:
        """An answer that is judged whole: held, and all of it is tail."""
        while judge.filter.refused is None and (piece := await self._received()):
            await judge.feed(piece)
        body = self._counting(await judge.end())
        if judge.filter.refused is not None:
            raise UpstreamBroken(f"the service's answer is not passed on: {judge.filter.refused}")
        return self._head(content_length=self.length) + body

    async def _filtered_stream(self, judge: Judge) -> bytes:
        """A stream, as far as its filter gives it: all but its last chunk, and but what a refusal ends it with."""
        self._begin(self._head(content_length=None))
        while data := await self._received():
            given = self._counting(await judge.feed(data))
            if judge.filter.refused is not None:
                return emit_chunk(given) + LAST_CHUNK
            if given:
                self._wire.write(emit_chunk(given))
                await self._drained()
        return emit_chunk(self._counting(await judge.end())) + LAST_CHUNK

    async def _drained(self) -> None:
        """The agent has taken enough; a large answer gives others their turn after each piece."""
        self._live.turn.give_back()
        await self._wire.drain()

    def _begin(self, head: bytes) -> None:
        self._live.answering = True
        self._wire.write(head)

    def _head(self, *, content_length: int | None) -> bytes:
        return emit_response_head(
            self._response,
            content_length=content_length,
            chunked=content_length is None and not self._response.bodyless,
            close=not self._keep_alive,
            add=((b"exeat-call", self._live.id.encode()),),
            rewrite=self._rewrite,
            drop=self._dropped,
        )
