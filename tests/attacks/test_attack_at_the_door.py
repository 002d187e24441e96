"""Everything an agent can try before and instead of a request: other names, other protocols, bytes that come early."""

import asyncio
import contextlib
import logging
import os
import random
import ssl
from pathlib import Path

import pytest

from tests.worlds.towns import Town, town

pytestmark = pytest.mark.anyio


async def say(here: Town, raw: str, *, with_credential: bool = True) -> bytes:
    """The head at the door, and what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.gate.port)
    credential = f"Proxy-Authorization: Basic {here.agent().authorization()}\r\n" if with_credential else ""
    writer.write(f"{raw}\r\n{credential}\r\n".encode())
    answer = b""
    with contextlib.suppress(TimeoutError, OSError):
        answer = await asyncio.wait_for(reader.read(4096), 2)
    writer.transport.abort()
    return answer


def code_of(answer: bytes) -> str:
    return answer.partition(b"Exeat-Code: ")[2].partition(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}", "destination_unknown"),
        ("GET http://saas.test/things/1 HTTP/1.1\r\nHost: saas.test", "destination_unknown"),
        ("GET http://saas.test:443/things/1 HTTP/1.1\r\nHost: saas.test:443", "destination_unknown"),
        ("GET https://saas.test/things/1 HTTP/1.1\r\nHost: saas.test", "protocol_refused"),
        ("GET ftp://saas.test/ HTTP/1.1\r\nHost: saas.test", "protocol_refused"),
        ("GET /things/1 HTTP/1.1\r\nHost: saas.test", "destination_mismatch"),
        ("OPTIONS * HTTP/1.1\r\nHost: saas.test", "ambiguous_target"),
        ("GET http://saas.test@evil/ HTTP/1.1\r\nHost: evil", "ambiguous_target"),
        ("GET http://evil/ HTTP/1.1\r\nHost: saas.test", "destination_mismatch"),
        ("CONNECT 2130706433:443 HTTP/1.1\r\nHost: 2130706433:443", "ambiguous_target"),
        ("CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: 0x7f.1:443", "ambiguous_target"),
        ("CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:443", "ambiguous_target"),
        ("CONNECT saas.test.:443 HTTP/1.1\r\nHost: saas.test.:443", "ambiguous_target"),
        ("CONNECT saas.test:0443 HTTP/1.1\r\nHost: saas.test:443", "ambiguous_target"),
        ("CONNECT saas.test HTTP/1.1\r\nHost: saas.test", "ambiguous_target"),
        ("CONNECT http://saas.test:443/ HTTP/1.1\r\nHost: saas.test:443", "ambiguous_target"),
        ("CONNECT saas.test:443 HTTP/1.1\r\nHost: evil:443", "destination_mismatch"),
        ("CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:444", "destination_mismatch"),
        ("CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\nProxy-Authorization: Bearer x", "malformed_request"),
        ("CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\nContent-Length: 5", "ambiguous_framing"),
        ("CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\nTransfer-Encoding: chunked", "ambiguous_framing"),
    ],
)
async def test_a_destination_that_is_not_one_thing(tmp_path: Path, raw: str, code: str) -> None:
    async with town(tmp_path) as here:
        assert code_of(await say(here, raw.format(port=here.gate.port))) == code
        assert here.origin.connections == []


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "localhost", "[::1]", "100.100.100.200", "saas.test"])
async def test_a_tunnel_to_ourselves_or_to_metadata_ends_inside(tmp_path: Path, host: str) -> None:
    """Any port but the connection's: accepted so that the denial can be read, and nothing is dialled."""
    async with town(tmp_path) as here:
        agent = here.agent(host=host, port=here.gate.port)
        assert (await agent.connect()).status == 200
        await agent.start_tls(host.strip("[]"))
        answer = await agent.request("GET", "/things/1")
        assert (answer.status, answer.code) == (403, "destination_unknown")
        agent.writer.transport.abort()
        assert here.origin.connections == []


async def test_bytes_after_connect_that_are_no_tls(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        for early in (
            b"GET /things/1 HTTP/1.1\r\nHost: saas.test\r\n\r\n",
            b"\x00" * 64,
            b"SSH-2.0-x\r\n",
            b"\x17\x03\x03\x00\x05hello",
        ):
            agent = here.agent()
            await agent.connect()
            agent.writer.write(early)
            with contextlib.suppress(OSError):
                assert await asyncio.wait_for(agent.reader.read(), 3) == b""
            agent.writer.transport.abort()
        assert here.origin.connections == []
        codes = [record.body["reason"]["code"] for record in await here.gate.records("call.rejected")]
        assert codes == ["protocol_refused"] * 4


@pytest.mark.parametrize("server_name", ["evil.test", None])
async def test_tls_for_another_name_than_connect(tmp_path: Path, server_name: str | None) -> None:
    async with town(tmp_path) as here:
        agent = here.agent()
        await agent.connect()
        context = here.gate.client_context()
        context.check_hostname = False
        with pytest.raises((OSError, ssl.SSLError)):
            await agent.writer.start_tls(context, server_hostname=server_name)
        agent.writer.transport.abort()
        assert here.origin.connections == []
        (record,) = await here.gate.records("call.rejected")
        assert record.body["reason"]["code"] == "destination_mismatch"


async def test_requests_pipelined_behind_a_refused_connect_are_not_read(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        good = here.agent()
        reader, writer = await asyncio.open_connection("127.0.0.1", here.gate.port)
        writer.write(
            b"CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\nProxy-Authorization: Basic bm9wZTpub3Bl\r\n\r\n"
            b"CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\nProxy-Authorization: Basic "
            + good.authorization().encode()
            + b"\r\n\r\n"
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 407 " in answer
        assert b"200 Connection" not in answer + await asyncio.wait_for(reader.read(4096), 2)
        writer.transport.abort()


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="saas.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    return outgoing.read()


async def test_mutated_client_hellos_crash_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every one ends as a refusal: no exception reaches the loop or the log, and no session stays."""
    chance = random.Random(7)
    unhandled: list[object] = []
    async with town(tmp_path) as here:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        for number in range(60):
            hello = bytearray(_client_hello())
            if number % 3 == 0:
                hello = bytearray(b"\x16\x03\x01\x00\x28\x01\x00\x00\x24" + os.urandom(36))
            elif number % 3 == 1:
                for _ in range(chance.randrange(1, 40)):
                    hello[chance.randrange(5, len(hello))] = chance.randrange(256)
            else:
                cut = chance.randrange(9, len(hello))
                del hello[cut : cut + chance.randrange(1, 20)]
                hello[3:5] = (len(hello) - 5).to_bytes(2, "big")
                hello[6:9] = (len(hello) - 9).to_bytes(3, "big")
            agent = here.agent()
            await agent.connect()
            agent.writer.write(bytes(hello))
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(agent.reader.read(1024), 0.02)
            agent.writer.transport.abort()
        async with here.agent() as agent:
            assert (await agent.request("GET", "/things/1")).status == 200
        assert unhandled == []
        assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR] == []
