"""The scripted origin itself, held against a client that is not ours."""

import asyncio
import ssl

import pytest

from tests.worlds.authority import Authority
from tests.worlds.origin import Action, Origin, answers, reply

pytestmark = pytest.mark.anyio


async def ask(origin: Origin, authority: Authority, sent: bytes) -> bytes:
    context = ssl.create_default_context(cadata=authority.pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.port, ssl=context, server_hostname="saas.test")
    writer.write(sent)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


async def test_it_records_every_byte_and_answers_by_its_script() -> None:
    authority = Authority()
    script = answers(reply(b"{}"), Action.CLOSE)
    async with Origin(authority.issue("saas.test"), script) as origin:
        sent = (
            b"POST /a?b HTTP/1.1\r\nHost: saas.test\r\nX: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        )
        assert (await ask(origin, authority, sent)).endswith(b"\r\n\r\n{}")
        (connection,) = origin.connections
        assert bytes(connection.received) == sent
        assert connection.sni == "saas.test"
        (request,) = origin.requests
        assert (request.method, request.target, request.body) == ("POST", "/a?b", b"hi")
        assert request.header("x") == "1"
        await asyncio.wait_for(connection.closed.wait(), 5)
