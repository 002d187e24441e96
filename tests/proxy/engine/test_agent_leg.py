"""The agent's leg on real sockets: TLS as the asked-for name or not at all, back-pressure, and cuts that cut."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.engine.authority import Authority, AuthorityInvalid
from proxy.engine.certificates import Certificates
from proxy.engine.connection import HIGH_WATER, AgentConnection
from proxy.wire import HandshakeRefused, WireClosed

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@asynccontextmanager
async def door(certificates: Certificates, serve) -> AsyncIterator[int]:
    """A listener whose connections are handed to `serve`."""
    tasks: set[asyncio.Task[None]] = set()
    accepted: list[AgentConnection] = []

    def accept(wire: AgentConnection) -> None:
        accepted.append(wire)
        task = asyncio.get_running_loop().create_task(serve(wire))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.get_running_loop().create_server(
        lambda: AgentConnection(certificates.context, accept), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wire in accepted:
            wire.abort()
        while not all(wire.lost for wire in accepted):
            await asyncio.sleep(0)


def trusting(authority: Authority, *, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


async def echo(wire: AgentConnection) -> None:
    await wire.start_tls("api.example", "acme")
    while data := await wire.read():
        wire.write(data)
        await wire.drain()
    wire.close()


async def test_tls_is_established_as_the_name_that_was_asked_for(authority: Authority) -> None:
    """A strict X.509 verifier accepts the minted certificate, and megabytes survive both ways."""
    async with door(Certificates(authority), echo) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting(authority), server_hostname="api.example"
        )
        sent = bytes(range(256)) * 8192

        async def push() -> None:
            writer.write(sent)
            await writer.drain()

        pushing = asyncio.create_task(push())
        assert await reader.readexactly(len(sent)) == sent
        await pushing
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("server_name", ["evil.example", None])
async def test_another_server_name_inside_than_outside_is_refused(
    authority: Authority, server_name: str | None
) -> None:
    """CONNECT good + SNI evil, and no SNI at all: no handshake."""
    refused: asyncio.Future[HandshakeRefused] = asyncio.get_running_loop().create_future()

    async def serve(wire: AgentConnection) -> None:
        try:
            await wire.start_tls("api.example", "acme")
        except HandshakeRefused as error:
            refused.set_result(error)
        wire.abort()

    context = trusting(authority)
    context.check_hostname = False
    async with door(Certificates(authority), serve) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name or "")
        assert (await refused).mismatch


async def test_bytes_that_are_no_tls_are_refused(authority: Authority) -> None:
    refused: asyncio.Future[HandshakeRefused] = asyncio.get_running_loop().create_future()

    async def serve(wire: AgentConnection) -> None:
        try:
            await wire.start_tls("api.example", "acme")
        except HandshakeRefused as error:
            refused.set_result(error)
        wire.abort()

    async with door(Certificates(authority), serve) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\x01\x02binary protocol")
        assert not (await refused).mismatch
        writer.transport.abort()


async def test_http2_is_never_negotiated(authority: Authority) -> None:
    """Every HTTP/2 downgrade is a chance for two parsers to disagree, so only HTTP/1.1 is offered."""
    async with door(Certificates(authority), echo) as port:
        for offered, expected in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(authority, alpn=offered), server_hostname="api.example"
            )
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == expected
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("inside_tls", [False, True])
async def test_an_agent_that_pushes_costs_its_own_memory(authority: Authority, inside_tls: bool) -> None:
    """While nobody reads, what is held stays near the high-water mark, however much is pushed."""
    wires: list[AgentConnection] = []
    done = asyncio.Event()

    async def serve(wire: AgentConnection) -> None:
        wires.append(wire)
        if inside_tls:
            await wire.start_tls("api.example", "acme")
        await done.wait()
        wire.abort()

    async with door(Certificates(authority), serve) as port:
        tls = {"ssl": trusting(authority), "server_hostname": "api.example"} if inside_tls else {}
        _, writer = await asyncio.open_connection("127.0.0.1", port, **tls)
        pushed = 0
        block = bytes(1 << 20)
        try:
            async with asyncio.timeout(1.0):
                while pushed < 1 << 30:
                    writer.write(block)
                    pushed += len(block)
                    await writer.drain()
        except TimeoutError:
            pass
        assert pushed < 64 << 20, "the socket never filled: nothing pushed back"
        assert HIGH_WATER < wires[0].unread < HIGH_WATER + (1 << 20)
        done.set()
        writer.transport.abort()


async def test_a_cut_cuts(authority: Authority) -> None:
    """After abort the agent reads at most what its kernel already had: no buffer of ours is flushed."""
    begun = asyncio.Event()
    wires: list[AgentConnection] = []

    async def serve(wire: AgentConnection) -> None:
        wires.append(wire)
        await wire.start_tls("api.example", "acme")
        wire.write(bytes(50 << 20))
        begun.set()
        with pytest.raises(WireClosed):
            await wire.drain()

    async with door(Certificates(authority), serve) as port:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting(authority), server_hostname="api.example"
        )
        await begun.wait()
        wires[0].abort()
        received = 0
        try:
            while data := await reader.read(1 << 16):
                received += len(data)
        except (ConnectionError, ssl.SSLError):
            pass
        assert received < 16 << 20
        writer.transport.abort()


async def test_a_lost_agent_is_noticed_while_nobody_reads(authority: Authority) -> None:
    lost = asyncio.Event()

    async def serve(wire: AgentConnection) -> None:
        wire.on_lost = lost.set
        await asyncio.sleep(30)

    async with door(Certificates(authority), serve) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await lost.wait()


async def test_the_authority_survives_a_restart_and_refuses_an_exposed_key(tmp_path) -> None:
    key, certificate = tmp_path / "ca.pem", tmp_path / "ca-cert.pem"
    made = Authority.load_or_create(key, certificate)
    assert key.stat().st_mode & 0o777 == 0o600
    assert Authority.load_or_create(key, certificate).pem == made.pem
    key.chmod(0o640)
    with pytest.raises(AuthorityInvalid, match="chmod 600"):
        Authority.load_or_create(key, certificate)


async def test_a_leaf_key_is_not_the_authoritys(authority: Authority) -> None:
    """The key that signs certificates answers no handshake."""
    async with door(Certificates(authority), echo) as port:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting(authority), server_hostname="api.example"
        )
        from cryptography import x509

        leaf = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        assert leaf.public_key() != authority.certificate.public_key()
        writer.close()
        await writer.wait_closed()


_HANDSHAKE = """
import ssl
from OpenSSL import SSL
from proxy.engine.authority import Authority
from proxy.engine.certificates import Certificates

authority = Authority.create()
server = SSL.Connection(Certificates(authority).context("acme", "api.example"))
server.set_accept_state()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations(cadata=authority.pem.decode())
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context.wrap_bio(incoming, outgoing, server_hostname="api.example")
for _ in range(4):
    for handshake in (client.do_handshake, server.do_handshake):
        try:
            handshake()
        except (ssl.SSLWantReadError, SSL.WantReadError):
            pass
        if data := outgoing.read():
            server.bio_write(data)
        try:
            incoming.write(server.bio_read(65536))
        except SSL.WantReadError:
            pass
print(client.version())
"""


async def test_tls_secrets_are_never_logged(tmp_path) -> None:
    """mitmproxy writes session keys to $SSLKEYLOGFILE; whoever can set a variable must not read the traffic."""
    log = tmp_path / "keys.log"
    environment = {**os.environ, "SSLKEYLOGFILE": str(log), "MITMPROXY_SSLKEYLOGFILE": str(log)}
    done = subprocess.run(
        [sys.executable, "-c", _HANDSHAKE], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("TLSv1.3")
    assert not log.exists()
