"""A request body that is streamed because a rule says so: from the agent to the origin, counted and digested.

The intent was written before a byte of it was here, and commits to the head alone; the outcome commits to what of the
body was really sent. Nothing is sent twice: a streamed request goes out on a connection of its own.
"""

import asyncio
import hashlib
from typing import Final

from ledger import commitment
from proxy.egress.errors import UpstreamError
from proxy.egress.upstream import Upstream
from proxy.exchange import Exchange
from proxy.http.emit import LAST_CHUNK, emit_chunk
from proxy.live import LiveCall
from proxy.records import Content
from proxy.wire import WireClosed
from rules.bodies import Handling

PHASE: Final = "upload"
"""The phase in which the agent's next bytes are waited for."""
SLOWEST: Final = 1024
"""Bytes a second that an agent has to send on average, after its first pause; any modem had more."""


class Upload:
    """One body on its way."""

    def __init__(self, exchange: Exchange, most: int) -> None:
        self._exchange = exchange
        self._most = most
        self._hash = hashlib.sha256()
        self._cut_short = False
        self.length = 0
        """Bytes of the body that were handed to the origin's connection."""
        self.complete = False
        """True once all of it was."""

    @property
    def most(self) -> int:
        """How long it can become: what the agent declared, or what its rule allows."""
        return self._most if self.declared is None else self.declared

    @property
    def declared(self) -> int | None:
        """The length that the agent declared; None for a chunked body."""
        return self._exchange.head.content_length

    def content(self, key: bytes, call: str) -> Content:
        """The outcome's `upload`: what was sent."""
        return {
            "commit": commitment(key, call, "body", self._hash.digest()),
            "len": self.length,
            "complete": self.complete,
        }

    async def run(self, live: LiveCall, upstream: Upstream, idle_seconds: float) -> None:
        """The body has been sent, or the origin has answered before all of it was and wants no more.

        Raises `RequestRefused` for a body that breaks its coding or is longer than the rule lets it be, `WireClosed`
        when the agent leaves, `UpstreamError` when the origin does without having answered.
        """
        pump = asyncio.get_running_loop().create_task(self._pump(live, upstream, idle_seconds))

        def heard() -> None:
            if not upstream.awaits_body and not pump.done():
                self._cut_short = True
                pump.cancel()

        upstream.on_news = heard
        try:
            heard()
            await pump
        except asyncio.CancelledError:
            pump.cancel()
            if not self._cut_short or live.stopped is not None:
                raise
        except UpstreamError:
            # RFC 9112 section 9.3: an origin may answer and close while we still write; then its answer counts.
            if not upstream.answered:
                raise
        finally:
            upstream.on_news = None

    async def _pump(self, live: LiveCall, upstream: Upstream, idle_seconds: float) -> None:
        exchange = self._exchange
        parser, wire, chunked = exchange.parser, exchange.wire, exchange.head.chunked
        exchange.ask_for_body()
        loop = asyncio.get_running_loop()
        waited = 0.0
        while True:
            exchange.refuse_longer(self._most)
            data = parser.take_body()
            if data or parser.complete:
                live.enter_phase("send", idle_seconds)
                self._hash.update(data)
                self.length += len(data)
                last = parser.complete
                if chunked:
                    upstream.write(emit_chunk(data) + (LAST_CHUNK if last else b""), last=last)
                else:
                    upstream.write(data, last=last)
                await upstream.drain()
                if last:
                    self.complete = True
                    return
            live.enter_phase(PHASE, max(0.0, min(idle_seconds, idle_seconds + self.length / SLOWEST - waited)))
            began = loop.time()
            live.turn.give_back()
            await wire.peek()
            waited += loop.time() - began  # for the agent, not for the origin or a turn
            await live.turn.take(first=True)
            more = await wire.read()
            if not more:
                raise WireClosed
            parser.feed(more)


def begin_upload(exchange: Exchange, handling: Handling, held_bytes: int) -> Upload | None:
    """The body as an upload, where its rule lets it be streamed and it is not known to be short; None: hold it.

    Raises `RequestRefused` for one that is declared longer than its rule lets it be.
    """
    most, head = handling.stream_bytes, exchange.head
    if most is None or not head.has_body or exchange.parser.complete:
        return None
    if exchange.refusal is not None:
        raise exchange.refusal
    declared = head.content_length
    if declared is not None and declared <= held_bytes:
        return None
    exchange.refuse_longer(most)
    return Upload(exchange, most)
