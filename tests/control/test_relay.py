"""The relay on real sockets: who gets through, with what, and what the door sees."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from control import relay as relay_module
from control.relay import DoorAccess, Relay
from control.relay_head import HeadRefused, parse_relay_head
from credentials.secret import Secret

pytestmark = pytest.mark.anyio

TOKEN = "token-canary-9f1"


class Door:
    """Records what each connection sent; answers with what the test says."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection Established\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.answer)
        body = bytearray()
        self.bodies.append(b"")
        index = len(self.bodies) - 1
        while data := await reader.read(65536):
            body += data
            self.bodies[index] = bytes(body)
            writer.write(b"echo:" + data)
        writer.close()


@asynccontextmanager
async def world(door: Door | None = None) -> AsyncIterator[tuple[Relay, Door]]:
    door = door or Door()
    server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    relay = Relay(DoorAccess("127.0.0.1", door.port, "support-agent", Secret(TOKEN)))
    await relay.start()
    try:
        yield relay, door
    finally:
        await relay.close()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def agent(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def basic(relay: Relay, *, account: str = "support-agent", password: bytes | None = None) -> bytes:
    secret = relay.password.reveal() if password is None else password
    return b"Proxy-Authorization: Basic " + base64.b64encode(account.encode() + b":" + secret)


async def exchange(relay: Relay, raw: bytes) -> bytes:
    """Everything the relay answers until it closes."""
    async with agent(relay) as (reader, writer):
        writer.write(raw)
        return await asyncio.wait_for(reader.read(), 10)


async def test_the_password_is_exchanged_for_the_credential_and_nothing_else_changes() -> None:
    async with world() as (relay, door), agent(relay) as (reader, writer):
        writer.write(
            b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n"
            + basic(relay)
            + b"\r\nX-Odd:  kept \r\n\r\nhello"
        )
        assert await reader.readuntil(b"\r\n\r\n") == door.answer
        assert await reader.readexactly(10) == b"echo:hello"
        expected = base64.b64encode(b"support-agent:" + TOKEN.encode())
        assert door.heads == [
            b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nX-Odd:  kept \r\nProxy-Authorization: Basic "
            + expected
            + b"\r\n\r\n"
        ]
        assert relay.password.reveal() not in door.heads[0]


async def test_an_absolute_form_request_is_the_only_one_of_its_connection() -> None:
    answering = Door(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with world(answering) as (relay, door), agent(relay) as (reader, writer):
        writer.write(b"GET http://plain.test/x HTTP/1.1\r\nHost: plain.test\r\n" + basic(relay) + b"\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert door.heads[0].endswith(b"\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("account", ["support-agent", "other"])
async def test_a_wrong_password_gets_407_and_no_connection_to_the_door(account: str) -> None:
    async with world() as (relay, door):
        password = b"wrong" if account == "support-agent" else None
        head = b"CONNECT a.test:443 HTTP/1.1\r\n" + basic(relay, account=account, password=password) + b"\r\n\r\n"
        answer = await exchange(relay, head)
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"\r\nProxy-Authenticate: Basic " in answer
        assert door.heads == []
        assert (relay.counts.refused, relay.counts.challenged) == (1, 0)


async def test_no_password_is_a_challenge_and_not_counted_as_a_wrong_one() -> None:
    async with world() as (relay, door):
        answer = await exchange(relay, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert (relay.counts.refused, relay.counts.challenged) == (0, 1)
        assert door.heads == []


async def test_a_refusal_can_be_read_by_a_client_that_is_still_sending_its_body() -> None:
    async with world() as (relay, _), agent(relay) as (reader, writer):
        writer.write(b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        await writer.drain()
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 407 ")


async def test_a_renewed_credential_is_used_by_the_next_connection() -> None:
    async with world() as (relay, door):
        for token in (TOKEN, "token-two"):
            relay.access.token = Secret(token)
            async with agent(relay) as (reader, writer):
                writer.write(b"CONNECT a.test:443 HTTP/1.1\r\n" + basic(relay) + b"\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
        assert [
            base64.b64encode(f"support-agent:{t}".encode()) in h
            for t, h in zip((TOKEN, "token-two"), door.heads, strict=True)
        ] == [True, True]


async def test_a_door_that_is_gone_is_said_readably() -> None:
    async with world() as (relay, _):
        relay.access.port = 1
        answer = await exchange(relay, b"CONNECT a.test:443 HTTP/1.1\r\n" + basic(relay) + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nExeat-Code: draining\r\n" in answer
        assert relay.counts.door_unreachable == 1


async def test_bytes_flow_no_faster_than_the_door_takes_them() -> None:
    """A client that pushes 64 MB at a door that does not read is stopped by TCP, not held in memory."""
    stop = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=4096)
    relay = Relay(DoorAccess("127.0.0.1", server.sockets[0].getsockname()[1], "a", Secret(TOKEN)))
    await relay.start()
    async with agent(relay) as (_, writer):
        writer.write(b"CONNECT a.test:443 HTTP/1.1\r\n" + basic(relay, account="a") + b"\r\n\r\n")
        pushed = 0
        try:
            for _ in range(1024):
                writer.write(b"x" * 65536)
                await asyncio.wait_for(writer.drain(), 0.5)
                pushed += 65536
        except TimeoutError:
            pass
        (side,) = relay._open
        assert side.other is not None
        assert side.other.transport is not None
        held = side.other.transport.get_write_buffer_size()
        stop.set()
        writer.transport.abort()
        await relay.close()
        server.close()
        assert pushed < 64 * 1024 * 1024, "the relay took everything"
        assert held < 1024 * 1024


async def test_an_end_is_passed_on_in_both_directions() -> None:
    async with world() as (relay, door), agent(relay) as (reader, writer):
        writer.write(b"CONNECT a.test:443 HTTP/1.1\r\n" + basic(relay) + b"\r\n\r\nlast words")
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer == door.answer + b"echo:last words"
        for _ in range(100):
            if not relay._open:
                break
            await asyncio.sleep(0.01)
        assert relay._open == set()


async def test_a_head_that_never_ends_is_refused_at_the_bound() -> None:
    async with world() as (relay, door):
        answer = await exchange(relay, b"CONNECT a.test:443 HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert door.heads == []


async def test_a_head_that_stalls_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "HEAD_TIMEOUT_SECONDS", 0.05)
    async with world() as (relay, _), agent(relay) as (reader, writer):
        writer.write(b"CONNECT a.test")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 10)


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_CONNECTIONS", 1)
    async with world() as (relay, _), agent(relay) as (_, first):
        first.write(b"CONNECT")
        await asyncio.sleep(0.05)
        assert (await exchange(relay, b"")).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"CONNECT a.test:443 HTTP/1.1\r\nproxy-authorization : Basic eA==",
        b"CONNECT a.test:443 HTTP/1.1\r\nX: 1\r\n Proxy-Authorization: Basic eA==",
        b"CONNECT a.test:443 HTTP/1.1\r\nX: 1\nProxy-Authorization: Basic eA==",
        b"CONNECT a.test:443 HTTP/1.1\r\nX: 1\rY: 2",
        b"CONNECT a.test:443 HTTP/1.1\r\nX: a\0b",
        b"CONNECT  a.test:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1\r\nHost: a.test",
        b"GET to/saas/x HTTP/1.1\r\nHost: a.test",
        b"GET https://a.test/ HTTP/1.1",
        b"\r\nCONNECT a.test:443 HTTP/1.1",
        b"CONNECT a.test:443 HTTP/2",
        b"",
    ],
)
def test_a_head_that_could_be_read_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(HeadRefused):
        parse_relay_head(raw)
