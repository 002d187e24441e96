"""A listener that speaks TLS: every door behind it, for real clients; and what happens to those who do not speak it."""

import asyncio
import contextlib
import os
import random
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from credentials.revocation import Target, TargetKind
from proxy.config import GateConfig, Timeouts
from proxy.engine.authority import Authority, Permitted
from proxy.gate import own_names
from tests.worlds.gate import Agent, Answer
from tests.worlds.origin import Peer, Request
from tests.worlds.tls13 import HandMade
from tests.worlds.towns import SECRET, Town, town

pytestmark = pytest.mark.anyio

NAME = "exeat.test"


@asynccontextmanager
async def tls_town(folder: Path, script=None, **options) -> AsyncIterator[Town]:
    settings = {"names": (NAME,), **options.pop("settings", {})}
    config = GateConfig(listen=(), listen_tls=(("127.0.0.1", 0),), **settings)
    async with town(folder, script, config=config, **options) as here:
        yield here


class TlsAgent(Agent):
    """Reaches the gate through TLS, and the service through TLS inside that."""

    async def reach(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._world.port, ssl=self._world.client_context(), server_hostname=NAME
        )


def agent(here: Town) -> TlsAgent:
    return TlsAgent(here.gate, here.gate.world.token())


async def client(*command: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def plain_bytes(port: int, sent: bytes) -> bytes:
    """What a TLS listener answers to bytes that are no TLS, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    received = b""
    with contextlib.suppress(ConnectionError):
        received = await asyncio.wait_for(reader.read(), 15)
    writer.transport.abort()
    return received


async def test_a_call_goes_through_tls_inside_tls(tmp_path: Path) -> None:
    async with tls_town(tmp_path) as here:
        async with agent(here) as one:
            body = bytes(range(256)) * 2048
            answer = await one.request("POST", "/things/7", body)
            assert answer.status == 200
            assert (await one.request("GET", "/other")).code == "not_allowed"
        first = here.origin.requests[0]
        assert first.body == body
        assert first.header("authorization") == f"Bearer {SECRET}"
        assert [r.body["result"]["status"] for r in await here.gate.records("call.outcome")] == ["confirmed"]


@pytest.mark.wants("curl")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl_and_requests_and_urllib3_go_through_it(tmp_path: Path) -> None:
    """With the proxy's URL beginning with https:// and our authority's file; nothing else is set."""
    async with tls_town(tmp_path) as here:
        bundle = tmp_path / "ca.pem"
        bundle.write_bytes(here.gate.authority.pem)
        proxy = f"https://agent:{here.gate.world.token()}@127.0.0.1:{here.gate.port}"
        code, out = await client(
            "curl", "-sS", "--proxy-cacert", str(bundle), "--cacert", str(bundle), "-x", proxy,
            "https://saas.test/things/curl",
        )  # fmt: skip
        assert (code, out) == (0, '{"ok":true}')
        script = "import requests, sys; print(requests.get(sys.argv[1]).text)"
        code, out = await client(
            sys.executable, "-c", script, "https://saas.test/things/requests",
            HTTPS_PROXY=proxy, REQUESTS_CA_BUNDLE=str(bundle),
        )  # fmt: skip
        assert (code, out.strip()) == (0, '{"ok":true}')
        script = (
            "import sys, ssl, urllib3; c = ssl.create_default_context(cafile=sys.argv[3]);"
            "from urllib.parse import urlsplit; u = urlsplit(sys.argv[1]);"
            "h = urllib3.make_headers(proxy_basic_auth=f'{u.username}:{u.password}');"
            "p = urllib3.ProxyManager(sys.argv[1], proxy_headers=h, proxy_ssl_context=c, ssl_context=c);"
            "print(p.request('GET', sys.argv[2], retries=False).data.decode())"
        )
        code, out = await client(sys.executable, "-c", script, proxy, "https://saas.test/things/urllib3", str(bundle))
        assert (code, out.strip()) == (0, '{"ok":true}')
        assert [r.target for r in here.origin.requests] == ["/things/curl", "/things/requests", "/things/urllib3"]


@pytest.mark.parametrize("name", [NAME, "127.0.0.1"])
async def test_the_certificate_is_for_the_name_and_the_address_and_for_no_other(tmp_path: Path, name: str) -> None:
    async with tls_town(tmp_path) as here:
        context = here.gate.client_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", here.gate.port, ssl=context, server_hostname=name)
        tls = writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() == "TLSv1.3"
        writer.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                "127.0.0.1", here.gate.port, ssl=here.gate.client_context(), server_hostname="saas.test"
            )


def test_a_wildcard_address_is_loopback_in_the_certificate() -> None:
    assert own_names((NAME,), (("0.0.0.0", 1), ("::", 2), ("127.0.0.1", 3))) == (NAME, "127.0.0.1", "::1")


async def test_old_tls_is_refused(tmp_path: Path) -> None:
    async with tls_town(tmp_path) as here:
        context = here.gate.client_context()
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSVersion"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", here.gate.port, ssl=context, server_hostname=NAME)


async def test_plain_http_is_told_so_and_recorded_and_nothing_of_it_is_read(tmp_path: Path) -> None:
    async with tls_town(tmp_path) as here:
        token = here.gate.world.token()
        head = f"GET http://saas.test/things/1 HTTP/1.1\r\nHost: saas.test\r\nProxy-Authorization: Bearer {token}"
        answer = await plain_bytes(here.gate.port, f"{head}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"https://" in answer
        assert token.encode() not in answer
        while not (records := await here.gate.records("call.rejected")):
            await asyncio.sleep(0.02)
        (rejected,) = records
        assert rejected.body["reason"]["code"] == "protocol_refused"
        assert here.origin.requests == []


async def test_tls_on_the_plain_listener_is_refused_at_once(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.wait_for(
                asyncio.open_connection(
                    "127.0.0.1", here.gate.port, ssl=here.gate.client_context(), server_hostname="exeat.test"
                ),
                10,
            )


async def test_any_first_bytes_end_the_connection_and_leave_the_gate_serving(tmp_path: Path) -> None:
    """Random bytes, mutilated ClientHellos, hellos in pieces: each ends within its time, the next agent is served."""
    dice = random.Random(20261125)
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=NAME).do_handshake()
    hello = outgoing.read()
    cases = [b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\xff\xff" + bytes(40_000), b"\x15\x03\x01\x00\x02\x02\x28", b"\0"]
    cases += [dice.randbytes(dice.randint(1, 600)) for _ in range(60)]
    cases += [b"\x16\x03\x01" + dice.randbytes(dice.randint(1, 400)) for _ in range(60)]
    for _ in range(120):
        mutant = bytearray(hello)
        for _ in range(dice.randint(1, 6)):
            mutant[dice.randrange(len(mutant))] = dice.randrange(256)
        cases.append(bytes(mutant[: dice.randint(5, len(mutant))]))
    async with tls_town(tmp_path, settings={"timeouts": Timeouts(handshake=0.3)}) as here:
        for begin in range(0, len(cases), 20):
            await asyncio.gather(*(plain_bytes(here.gate.port, case) for case in cases[begin : begin + 20]))
        async with agent(here) as one:
            assert (await one.request("GET", "/things/1")).status == 200
        assert len(here.gate.gate._handshakes) == 0


async def test_a_handshake_has_its_time_and_the_oldest_gives_way(tmp_path: Path) -> None:
    """Silent and dripping connections are cut; however many there are, an honest agent gets in."""
    settings = {"timeouts": Timeouts(handshake=20.0), "max_handshakes": 4}
    async with tls_town(tmp_path, settings=settings) as here:
        opened = [await asyncio.open_connection("127.0.0.1", here.gate.port) for _ in range(12)]
        for _, writer in opened:
            writer.write(b"\x16\x03")
        async with agent(here) as one:
            assert (await one.request("GET", "/things/1")).status == 200
        assert len(here.gate.gate._handshakes) <= 4
        assert await asyncio.wait_for(opened[0][0].read(), 10) == b""
        for _, writer in opened:
            writer.transport.abort()
    async with tls_town(tmp_path / "2", settings={"timeouts": Timeouts(handshake=0.2)}) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.gate.port)
        writer.write(b"\x16\x03\x01")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.transport.abort()


async def test_a_revocation_cuts_through_both_layers(tmp_path: Path) -> None:
    """What the agent reads after the cut is at most what was on its way, and no goodbye of either layer."""
    begun = asyncio.Event()

    async def endless(request: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"5\r\ndata:\r\n")
            begun.set()
            await asyncio.sleep(0.01)

    async with tls_town(tmp_path, endless) as here, agent(here) as one:
        await one.send("GET", "/things/stream")
        await begun.wait()
        await one.read_head()
        target = Target(TargetKind.ACCOUNT, "acme", "agent")
        report = await asyncio.to_thread(here.gate.gate.cut, target)
        assert report.cut == 1
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)):
            await asyncio.wait_for(one.reader.readexactly(1 << 30), 10)


async def test_an_agent_that_pushes_through_tls_inside_tls_costs_its_own_memory(tmp_path: Path) -> None:
    """A gigabyte for an origin that never reads: nothing of it beyond the bounds is held."""
    async with tls_town(tmp_path) as here, agent(here) as one:
        await one.send("POST", "/things/1", None, {"Content-Length": str(1 << 30)})
        answer: Answer | None = None
        reading = asyncio.create_task(one.read_answer("POST"))
        pushed, block = 0, bytes(1 << 18)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(3):
                # Until it is answered: behind the outer layer's goodbye, asyncio throws away what the inner one writes.
                while pushed < 1 << 30 and not reading.done():
                    one.writer.write(block)
                    pushed += len(block)
                    await one.writer.drain()
                    await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError):
            answer = await asyncio.wait_for(reading, 5)
        assert pushed < 64 << 20
        assert all(wire.unread < 2 << 20 for _, wire in here.gate.gate._sessions.values())
        assert answer is None or answer.status == 413


async def test_both_layers_say_goodbye(tmp_path: Path) -> None:
    """An answer that ends the connection can be told from a cut, inside and outside."""
    async with tls_town(tmp_path) as here:
        async with agent(here) as one:
            answer = await one.request("GET", "/things/1", headers={"Connection": "close"})
            assert answer.status == 200
            assert await asyncio.wait_for(one.reader.read(), 10) == b""
        # Outside: read by ssl itself, which tells a goodbye (the empty read) from a cut (an error).
        context = here.gate.client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.gate.port)

        async def through(work):
            while True:
                try:
                    return work()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    data = await asyncio.wait_for(reader.read(65536), 10)
                    incoming.write(data) if data else incoming.write_eof()

        await through(tls.do_handshake)
        tls.write(b"nonsense\r\n\r\n")
        writer.write(outgoing.read())
        assert (await through(lambda: tls.read(65536))).startswith(b"HTTP/1.1 400 ")
        assert await through(lambda: tls.read(65536)) == b"", "a cut would be an SSLEOFError here"
        writer.transport.abort()


async def test_a_constrained_authority_vouches_for_its_hosts_alone(tmp_path: Path) -> None:
    """A CONNECT to another host is refused outright with a code; ssl and curl would refuse such a certificate."""
    async with tls_town(tmp_path) as here:
        narrow = Authority.create("narrow", permitted=Permitted.of(["api.example", NAME, "127.0.0.1"]))
        await asyncio.to_thread(here.gate.gate.sign_with, narrow)
        here.gate.authority = narrow
        one = agent(here)
        answer = await one.connect()
        assert (answer.status, answer.code) == (403, "destination_unknown")
        one.writer.transport.abort()


@pytest.mark.parametrize(("updates", "answered"), [(20, True), (600, False)])
async def test_keys_are_not_changed_without_end(tmp_path: Path, updates: int, answered: bool) -> None:
    """Each change costs the loop some 90 µs for 27 bytes: 300 KB a second would hold it, and every revocation."""
    async with tls_town(tmp_path) as here:
        client = HandMade(here.gate.client_context(), tmp_path)
        await client.connect(here.gate.port, NAME)
        client.writer.write(b"".join(client.key_update() for _ in range(updates)))
        client.writer.write(
            client.data(b"GET /to/saas/things/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        )
        said = b""
        with contextlib.suppress(ConnectionError):
            said = await asyncio.wait_for(client.read(), 15)
        client.writer.transport.abort()
        assert said.startswith(b"HTTP/1.1 401 ") == answered, said
        async with agent(here) as other:
            assert (await other.request("GET", "/things/1")).status == 200


async def test_beyond_all_connections_the_refusal_is_read_through_tls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with tls_town(tmp_path, settings={"max_connections": 1}) as here:
        async with agent(here) as one:
            late = TlsAgent(here.gate, None)
            await late.reach()
            late.writer.write(b"what comes now is thrown away")
            answer = await late.read_answer("GET")
            assert (answer.status, answer.code) == (503, "overloaded")
            assert await late.reader.read() == b"", "a cut is not an end"
            late.writer.close()
            assert (await one.request("GET", "/things/1")).status == 200
        assert here.gate.gate.metrics.connections_refused == 1
    assert "Fatal error" not in caplog.text
