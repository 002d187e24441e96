"""`/healthz`, `/readyz`, `/metrics`: for orchestrators and scrapers, on their own listener. Nothing secret here."""

import asyncio
import json
from asyncio import BaseTransport, Transport
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

HEARTBEAT_SECONDS = 2.0
"""A proxy loop that does not turn once in this time is hung. Orchestrators ask every 10 s and act on the third no."""

MAX_CONNECTIONS = 64
"""Probes and scrapers come one by one. Each connection is a file that the ledger may need."""


class ProbeProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, for a few connections at a time; one that says nothing is closed soon."""

    def connection_made(self, transport: BaseTransport) -> None:
        stream = cast("Transport", transport)
        super().connection_made(stream)
        if len(self.connections) > MAX_CONNECTIONS:
            stream.abort()
            return
        # uvicorn sets this timer after the first answer only: whoever never asks would stay.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether calls can be let out now."""

    ready: bool
    why_not: str | None
    policy: str
    """Digest, or `none`: then every call is denied, readably."""
    draining: bool
    ledger_halted: str | None
    unsafe: tuple[str, ...]
    degraded: Mapping[str, str] = field(default_factory=dict)
    """Control: why it cannot do its work. Not each of them keeps calls from being let out."""


def health_app(
    readiness: Callable[[], Readiness], metrics: Callable[[], str], proxy_loop: asyncio.AbstractEventLoop
) -> Starlette:
    """The app. `readiness` may be called from any thread and does not block; `metrics` may wait for other processes."""

    async def healthz(_: Request) -> Response:
        beat: asyncio.Future[None] = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_nothing(), proxy_loop))
        try:
            await asyncio.wait_for(beat, HEARTBEAT_SECONDS)
        except TimeoutError:
            return PlainTextResponse("the proxy's loop does not turn\n", 503)
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        now = readiness()
        document = {
            "ready": now.ready,
            "why_not": now.why_not,
            "policy": now.policy,
            "draining": now.draining,
            "ledger_halted": now.ledger_halted,
            "unsafe": list(now.unsafe),
            "degraded": dict(now.degraded),
        }
        return Response(json.dumps(document) + "\n", 200 if now.ready else 503, media_type="application/json")

    async def scrape(_: Request) -> Response:
        return Response(await run_in_threadpool(metrics), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)],
    )


async def _nothing() -> None:
    """One turn of the loop."""
