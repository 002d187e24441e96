"""The pool and its connections against real origins, over real TLS."""

import asyncio
import gc
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509

from proxy.egress.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamForbidden,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from proxy.egress.pool import Pool
from proxy.egress.resolver import Resolver
from proxy.egress.route import PoolLimits, Route
from proxy.egress.upstream import Upstream
from rules.codes import Code
from tests.worlds.authority import Authority
from tests.worlds.origin import Action, Origin, Peer, Request, answers, reply

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\nhost: saas.test\r\n\r\n"
QUICK = PoolLimits(
    connect_timeout_seconds=0.3, handshake_timeout_seconds=0.3, head_timeout_seconds=0.3, body_timeout_seconds=0.3
)


def route_to(origin: Origin, authority: Authority | None) -> Route:
    return Route(
        tenant="acme",
        connection="lab",
        secret_version=1,
        scheme="https" if authority else "http",
        host="saas.test",
        port=origin.port,
        dial=(origin.host, origin.port),
        ca_pem=authority.pem if authority else None,
    )


@asynccontextmanager
async def pool_of(
    *,
    limits: PoolLimits | None = None,
    lookup: Callable[[str, int], tuple[str, ...]] | None = None,
    own: tuple[tuple[str, int], ...] = (),
) -> AsyncIterator[Pool]:
    def nothing(host: str, port: int) -> tuple[str, ...]:
        raise AssertionError("no name has to be resolved here")

    resolver = Resolver(lookup or nothing)
    pool = Pool(resolver, limits=limits, own_listeners=own)
    try:
        yield pool
    finally:
        pool.close()
        resolver.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert pool.open_count == 0, "a connection is still counted after everything was cut"


async def exchange(upstream: Upstream, request: bytes = REQUEST, method: str = "GET") -> tuple[int, bytes]:
    upstream.begin(method)
    upstream.write(request, last=True)
    return await receive(upstream)


async def receive(upstream: Upstream) -> tuple[int, bytes]:
    head = await upstream.next_head()
    body = b""
    while piece := await upstream.next_body():
        body += piece
    return head.status, body


async def test_an_exchange_and_its_reuse(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        first = await pool.acquire(route)
        assert (first.reused, first.peer) == (False, ("127.0.0.1", origin.port))
        assert await exchange(first) == (200, b'{"ok":true}')
        assert first.bytes_received > 0
        pool.release(first)
        assert (pool.open_count, pool.idle_count) == (1, 1)
        second = await pool.acquire(replace(route))
        assert second is first
        assert second.reused
        assert await exchange(second) == (200, b'{"ok":true}')
        pool.release(second)
        assert len(origin.connections) == 1
        assert bytes(origin.connections[0].received) == REQUEST * 2
        assert origin.connections[0].sni == "saas.test"


async def test_plain_http(authority: Authority) -> None:
    async with Origin(None) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, None))
        assert await exchange(upstream) == (200, b'{"ok":true}')
        pool.release(upstream)
        assert pool.idle_count == 1


@pytest.mark.parametrize(
    "other",
    [{"tenant": "other"}, {"connection": "other"}, {"secret_version": 2}, {"networks": (ip_network("10.0.0.0/8"),)}],
    ids=lambda other: next(iter(other)),
)
async def test_nothing_is_shared_between_routes(authority: Authority, other: dict[str, object]) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        first = await pool.acquire(route)
        await exchange(first)
        pool.release(first)
        second = await pool.acquire(replace(route, **other))  # type: ignore[arg-type]
        assert second is not first
        assert not second.reused


async def test_two_calls_at_once_have_two_connections(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        one, two = await asyncio.gather(pool.acquire(route), pool.acquire(route))
        assert one is not two
        assert await asyncio.gather(exchange(one), exchange(two)) == [(200, b'{"ok":true}')] * 2


# --- trust -----------------------------------------------------------------------------------------------------------


async def refused(pool: Pool, route: Route, kind: type[UpstreamError], code: Code) -> UpstreamError:
    with pytest.raises(kind) as raised:
        await pool.acquire(route)
    assert raised.value.code is code
    assert pool.open_count == 0
    assert "127.0.0.1" not in raised.value.detail, "an agent must not learn internal addresses"
    return raised.value


@pytest.mark.parametrize(
    "fault", ["expired", "not yet valid", "self-signed", "another name", "unknown authority", "common name"]
)
async def test_a_bad_certificate_gets_no_byte_of_a_request(authority: Authority, fault: str) -> None:
    leaf = {
        "expired": lambda: authority.issue("saas.test", not_before=timedelta(-9), not_after=timedelta(-1)),
        "not yet valid": lambda: authority.issue("saas.test", not_before=timedelta(1)),
        "self-signed": lambda: authority.issue("saas.test", self_signed=True),
        "another name": lambda: authority.issue("evil.test"),
        "common name": lambda: authority.issue("saas.test", alternative_names=False),
        "unknown authority": lambda: Authority().issue("saas.test"),
    }[fault]()
    async with Origin(leaf) as origin, pool_of() as pool:
        error = await refused(pool, route_to(origin, authority), UpstreamUntrusted, Code.UPSTREAM_UNTRUSTED)
        assert error.operator_detail != error.detail
        assert not any(connection.received for connection in origin.connections)


async def test_a_private_authority_is_not_trusted_without_being_named(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        await refused(
            pool, replace(route_to(origin, authority), ca_pem=None), UpstreamUntrusted, Code.UPSTREAM_UNTRUSTED
        )


async def test_a_wildcard_certificate_covers_one_label(authority: Authority) -> None:
    async with Origin(authority.issue("*.saas.test")) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        upstream = await pool.acquire(replace(route, host="a.saas.test"))
        assert (await exchange(upstream))[0] == 200
        upstream.abort()
        await asyncio.sleep(0)
        for host in ("saas.test", "a.b.saas.test"):
            await refused(pool, replace(route, host=host), UpstreamUntrusted, Code.UPSTREAM_UNTRUSTED)


async def test_an_address_is_verified_as_an_address(authority: Authority) -> None:
    async with Origin(authority.issue("127.0.0.1")) as origin, pool_of() as pool:
        route = replace(route_to(origin, authority), host="127.0.0.1", networks=(ip_network("127.0.0.0/8"),), dial=None)
        upstream = await pool.acquire(route)
        assert (await exchange(upstream))[0] == 200
        upstream.abort()
        await asyncio.sleep(0)
        with pytest.raises(UpstreamUntrusted):
            await pool.acquire(replace(route, host="127.0.0.2", dial=("127.0.0.1", origin.port)))


async def test_an_unreadable_authority_is_an_operators_fault(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = replace(route_to(origin, authority), ca_pem="no certificate")
        await refused(pool, route, UpstreamUntrusted, Code.UPSTREAM_UNTRUSTED)
        assert origin.connections == []


async def test_revocation_is_not_checked_and_the_threat_model_says_so(authority: Authority) -> None:
    """A certificate that must be stapled and is not (RFC 7633) is taken: neither OCSP nor lists are consulted."""
    leaf = authority.issue("saas.test", extensions=[x509.TLSFeature([x509.TLSFeatureType.status_request])])
    async with Origin(leaf) as origin, pool_of() as pool:
        assert (await exchange(await pool.acquire(route_to(origin, authority))))[0] == 200
    assert "OCSP (also\n  must-staple)" in (Path(__file__).parents[3] / "docs" / "threat-model.md").read_text()


async def test_old_tls_is_refused(authority: Authority) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1

    async with Origin(authority.issue("saas.test"), configure=old) as origin, pool_of() as pool:
        await refused(pool, route_to(origin, authority), UpstreamUnreachable, Code.UPSTREAM_UNREACHABLE)
        assert not any(connection.received for connection in origin.connections)


async def test_tls_1_2_is_spoken(authority: Authority) -> None:
    def only_1_2(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    async with Origin(authority.issue("saas.test"), configure=only_1_2) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        for _ in range(2):
            assert (await exchange(upstream))[0] == 200


async def test_an_origin_without_tls_is_not_trusted(authority: Authority) -> None:
    async with Origin(None, greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as origin, pool_of() as pool:
        await refused(pool, route_to(origin, authority), UpstreamUntrusted, Code.UPSTREAM_UNTRUSTED)


# --- destinations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [("93.184.216.34", "10.0.0.1"), ("127.0.0.1",), ("169.254.169.254",), ("::ffff:127.0.0.1",), ("64:ff9b::7f00:1",)],
    ids=str,
)
async def test_one_forbidden_answer_forbids_the_name(
    authority: Authority, answer: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a packet would leave")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", no_socket)
    async with pool_of(lookup=lambda host, port: answer) as pool:
        error = await refused(
            pool,
            Route("acme", "lab", 1, "https", "rebind.test", 443),
            UpstreamForbidden,
            Code.DESTINATION_FORBIDDEN,
        )
        assert not any(address in error.detail for address in answer)


async def test_a_declared_network_admits_its_addresses_alone(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin:
        answers_of = {"saas.test": ("127.0.0.1",), "mixed.test": ("127.0.0.1", "10.0.0.1")}
        async with pool_of(lookup=lambda host, port: answers_of[host]) as pool:
            route = replace(route_to(origin, authority), dial=None, networks=(ip_network("127.0.0.0/8"),))
            upstream = await pool.acquire(route)
            assert (await exchange(upstream))[0] == 200
            upstream.abort()
            await asyncio.sleep(0)
            await refused(pool, replace(route, host="mixed.test"), UpstreamForbidden, Code.DESTINATION_FORBIDDEN)


@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::", "192.0.2.1"])
async def test_our_own_listener_is_not_dialled(own: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with pool_of(own=((own, port),)) as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=("127.0.0.1", port))
            await refused(pool, route, UpstreamForbidden, Code.DESTINATION_FORBIDDEN)
            with pytest.raises(BlockingIOError):  # not even a handshake
                listener.accept()


async def test_our_own_wildcard_listener_is_not_used_by_another_address_of_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route_of:
        try:
            route_of.connect(("198.51.100.1", 9))  # sends nothing; asks which address would be used
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = route_of.getsockname()[0]
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        async with pool_of(own=(("0.0.0.0", port),)) as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=(address, port))
            await refused(pool, route, UpstreamForbidden, Code.DESTINATION_FORBIDDEN)


@pytest.mark.parametrize("dial", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "::", "224.0.0.1", "fe80::1"])
async def test_even_an_operator_cannot_name_metadata_or_no_peer(dial: str) -> None:
    async with pool_of() as pool:
        route = Route("acme", "lab", 1, "https", "saas.test", 443, dial=(dial, 80))
        await refused(pool, route, UpstreamForbidden, Code.DESTINATION_FORBIDDEN)


async def test_the_next_address_is_tried(authority: Authority) -> None:
    def two(host: str, port: int) -> tuple[str, ...]:
        return "127.9.9.9", "127.0.0.1"

    async with Origin(authority.issue("saas.test")) as origin, pool_of(lookup=two) as pool:
        route = replace(route_to(origin, authority), dial=None, networks=(ip_network("127.0.0.0/8"),))
        upstream = await pool.acquire(route)
        assert upstream.peer[0] == "127.0.0.1"
        assert (await exchange(upstream))[0] == 200


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with pool_of() as pool:
            route = Route("acme", "lab", 1, "https", "saas.test", 443, dial=unused.getsockname())
            error = await refused(pool, route, UpstreamUnreachable, Code.UPSTREAM_UNREACHABLE)
            assert "127.0.0.1" in error.operator_detail


async def test_an_origin_that_accepts_nothing_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):  # a full backlog swallows further SYNs
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        async with pool_of(limits=QUICK) as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=full.getsockname())
            await refused(pool, route, UpstreamTimeout, Code.UPSTREAM_TIMEOUT)
        for filler in fillers:
            filler.close()


async def test_a_silent_handshake_times_out(authority: Authority) -> None:
    async with Origin(None, answers(Action.HANG)) as origin, pool_of(limits=QUICK) as pool:
        await refused(pool, route_to(origin, authority), UpstreamTimeout, Code.UPSTREAM_TIMEOUT)
        await asyncio.wait_for(origin.connections[0].closed.wait(), 5)


# --- what origins do -------------------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize(
    ("steps", "outcome", "kept"),
    [
        pytest.param((b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 0.01, reply(b"x")), b"x", True, id="103 first"),
        pytest.param((b"HTTP/1.1 101 X\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n",), None, False, id="101"),
        pytest.param((b"garbage\r\n\r\n",), None, False, id="garbage"),
        pytest.param((OK + b"Content-Length: 1\r\n\r\nxy",), b"x", False, id="over-long body"),
        pytest.param((reply(b"x"), reply(b"y")), b"x", False, id="a second response"),
        pytest.param((OK + b"Content-Length: 5\r\n\r\nx", Action.CLOSE), None, False, id="under-long body"),
        pytest.param((OK + b"Content-Length: 5\r\n\r\nx", Action.ABORT), None, False, id="under-long body, cut"),
        pytest.param((OK + b"\r\nxyz", Action.CLOSE), b"xyz", False, id="delimited by close"),
        pytest.param((OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx",), b"x", False, id="connection close"),
        pytest.param((Action.CLOSE,), None, False, id="closed without an answer"),
        pytest.param((Action.ABORT,), None, False, id="cut without an answer"),
        pytest.param((OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",), b"x", True, id="chunked"),
        pytest.param(
            (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", Action.CLOSE), None, False, id="chunked, cut"
        ),
        pytest.param((OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), None, False, id="bad chunk"),
        pytest.param((OK, 0.01, b"Content-Length: 2\r\n", 0.01, b"\r\nx", 0.01, b"y"), b"xy", True, id="in pieces"),
        pytest.param((b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",), b"x", False, id="HTTP/1.0"),
    ],
)
async def test_what_an_origin_answers(
    authority: Authority, tls: bool, steps: tuple[bytes | float | Action, ...], outcome: bytes | None, kept: bool
) -> None:
    leaf = authority.issue("saas.test") if tls else None
    async with Origin(leaf, answers(*steps)) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority if tls else None))
        if outcome is None:
            with pytest.raises(UpstreamBroken) as raised:
                await exchange(upstream)
            assert raised.value.code is Code.UPSTREAM_PROTOCOL
        else:
            assert (await exchange(upstream))[1] == outcome
        if not kept:
            await asyncio.sleep(0.02)  # lets surplus bytes arrive: they may lie in another segment
        pool.release(upstream)
        assert pool.idle_count == kept
        if not kept:
            await asyncio.wait_for(origin.connections[0].closed.wait(), 5)


async def test_a_body_delimited_by_a_torn_connection_is_not_complete(authority: Authority) -> None:
    """Without close_notify anybody on the path may have cut the body short (RFC 8446 section 6.1)."""
    torn = answers(OK + b"\r\nxyz", 0.05, Action.ABORT)
    async with Origin(authority.issue("saas.test"), torn) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        with pytest.raises(UpstreamBroken):
            await exchange(upstream)


async def test_a_response_before_the_requests_end_is_handed_out_and_the_connection_is_not_kept(
    authority: Authority,
) -> None:
    script = answers(reply(b"too large", status="413 Content Too Large"))
    async with Origin(authority.issue("saas.test"), script, before_body=True) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        upstream.begin("POST")
        upstream.write(b"POST / HTTP/1.1\r\nhost: saas.test\r\ncontent-length: 1000\r\n\r\nx")
        assert await receive(upstream) == (413, b"too large")
        pool.release(upstream)
        assert pool.idle_count == 0


async def test_slow_origins_time_out(authority: Authority) -> None:
    leaf = authority.issue("saas.test")
    for steps in ((Action.HANG,), (OK + b"Content-Length: 5\r\n\r\nx", Action.HANG), (OK, Action.HANG)):
        async with Origin(leaf, answers(*steps)) as origin, pool_of(limits=QUICK) as pool:
            upstream = await pool.acquire(route_to(origin, authority))
            with pytest.raises(UpstreamTimeout) as raised:
                await exchange(upstream)
            assert raised.value.code is Code.UPSTREAM_TIMEOUT
            await asyncio.wait_for(origin.connections[0].closed.wait(), 5)


@pytest.mark.parametrize("start", [b"", OK + b"Transfer-Encoding: chunked\r\n\r\n1;"], ids=["head", "chunk extension"])
async def test_an_origin_that_trickles_without_getting_anywhere_times_out(authority: Authority, start: bytes) -> None:
    steps: list[bytes | float] = [start or OK + b"X: "]
    for _ in range(20):
        steps += [0.1, b"x"]
    async with Origin(authority.issue("saas.test"), answers(*steps)) as origin, pool_of(limits=QUICK) as pool:
        with pytest.raises(UpstreamTimeout):
            await exchange(await pool.acquire(route_to(origin, authority)))


async def test_each_piece_of_a_body_has_its_own_time(authority: Authority) -> None:
    steps: list[bytes | float] = [OK + b"Content-Length: 6\r\n\r\n"]
    for _ in range(6):
        steps += [0.1, b"x"]
    async with Origin(authority.issue("saas.test"), answers(*steps)) as origin, pool_of(limits=QUICK) as pool:
        assert (await exchange(await pool.acquire(route_to(origin, authority))))[1] == b"xxxxxx"


async def test_ipv6_is_dialled_like_ipv4(authority: Authority) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with Origin(authority.issue("saas.test", "::1"), host="::1") as origin, pool_of() as pool:
        route = replace(route_to(origin, authority), dial=None, host="::1", networks=(ip_network("::1/128"),))
        upstream = await pool.acquire(route)
        assert await exchange(upstream) == (200, b'{"ok":true}')
        assert upstream.peer == ("::1", origin.port)


# --- idle connections ------------------------------------------------------------------------------------------------


async def test_an_origin_that_closes_idle_connections_is_noticed(authority: Authority) -> None:
    leaving = answers(reply(), 0.02, Action.CLOSE)
    async with Origin(authority.issue("saas.test"), leaving) as origin, pool_of() as pool:
        for _ in range(2):
            upstream = await pool.acquire(route_to(origin, authority))
            assert not upstream.reused
            assert (await exchange(upstream))[0] == 200
            pool.release(upstream)
            await asyncio.wait_for(origin.connections[-1].closed.wait(), 5)
            await asyncio.sleep(0.02)
            assert (pool.idle_count, pool.open_count) == (0, 0)


async def test_a_close_that_only_the_kernel_knows_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with pool_of() as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=server.getsockname())
            upstream = await pool.acquire(route)
            peer, _ = server.accept()
            peer.sendall(reply(b"x"))
            assert await exchange(upstream) == (200, b"x")
            pool.release(upstream)
            peer.close()  # no turn of the loop between this and the next call
            again = await pool.acquire(route)
            assert again is not upstream
            assert not again.reused


async def test_a_word_nobody_asked_for_ends_an_idle_connection(authority: Authority) -> None:
    """Else it would be taken for the answer to the next request."""
    poison = answers(reply(b"mine"), 0.05, reply(b"poison"))
    async with Origin(authority.issue("saas.test"), poison) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        upstream = await pool.acquire(route)
        assert await exchange(upstream) == (200, b"mine")
        pool.release(upstream)
        await asyncio.wait_for(origin.connections[0].closed.wait(), 5)
        assert pool.idle_count == 0
        assert await exchange(await pool.acquire(route)) == (200, b"mine")


async def test_a_greeting_is_not_an_answer(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test"), greeting=reply(b"poison")) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamBroken):
            await exchange(upstream)


async def test_idle_connections_are_bounded_and_end(authority: Authority) -> None:
    limits = PoolLimits(max_idle_per_route=2, max_idle=3, idle_seconds=0.1)
    async with Origin(authority.issue("saas.test")) as origin, pool_of(limits=limits) as pool:
        route = route_to(origin, authority)
        other = replace(route, tenant="other")

        async def rest(of: Route, count: int) -> None:
            upstreams = [await pool.acquire(of) for _ in range(count)]
            for upstream in upstreams:
                await exchange(upstream)
            for upstream in upstreams:
                pool.release(upstream)

        await rest(route, 3)
        assert pool.idle_count == 2
        await rest(other, 2)
        assert pool.idle_count == 3
        await asyncio.sleep(0.3)
        assert (pool.idle_count, pool.open_count) == (0, 0)
        assert all(connection.closed.is_set() for connection in origin.connections)


async def test_an_old_connection_is_not_used_again(authority: Authority) -> None:
    limits = PoolLimits(max_age_seconds=0.0)
    async with Origin(authority.issue("saas.test")) as origin, pool_of(limits=limits) as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        await exchange(upstream)
        await asyncio.sleep(0.001)
        pool.release(upstream)
        assert pool.idle_count == 0


async def test_open_connections_are_bounded_for_all_and_for_each_tenant(authority: Authority) -> None:
    limits = PoolLimits(max_open=3, max_open_per_tenant=2)
    async with Origin(authority.issue("saas.test")) as origin, pool_of(limits=limits) as pool:
        route = route_to(origin, authority)
        ours = [await pool.acquire(route) for _ in range(2)]
        with pytest.raises(UpstreamUnreachable):
            await pool.acquire(route)
        theirs = await pool.acquire(replace(route, tenant="other"))
        with pytest.raises(UpstreamUnreachable):
            await pool.acquire(replace(route, tenant="third"))
        await exchange(theirs)
        pool.release(theirs)
        third = await pool.acquire(replace(route, tenant="third"))  # an idle one makes room
        assert (pool.open_count, pool.idle_count) == (3, 0)
        for upstream in (*ours, third):
            upstream.abort()


# --- cutting and cancelling ------------------------------------------------------------------------------------------


async def test_abort_cuts_at_once_and_wakes_every_waiter(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test"), answers(OK, Action.HANG)) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        waiter = asyncio.create_task(exchange(upstream))
        await asyncio.sleep(0.05)
        upstream.abort()
        with pytest.raises(UpstreamBroken):
            await waiter
        await asyncio.wait_for(origin.connections[0].closed.wait(), 5)
        with pytest.raises(UpstreamBroken):
            upstream.write(b"x")
        with pytest.raises(UpstreamBroken):
            upstream.begin("GET")


@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_a_cancelled_acquire_leaks_nothing(authority: Authority, turns: int) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        task = asyncio.create_task(pool.acquire(route_to(origin, authority)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result().abort()
        await asyncio.sleep(0.05)
        assert pool.open_count == 0
        for connection in origin.connections:
            await asyncio.wait_for(connection.closed.wait(), 5)
        gc.collect()  # an unclosed socket would warn, and warnings are errors


async def test_a_cancelled_wait_leaves_the_connection_to_its_caller(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test"), answers(0.1, reply(b"x"))) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        upstream.begin("GET")
        upstream.write(REQUEST, last=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await upstream.next_head()
        assert await receive(upstream) == (200, b"x")


async def test_a_closed_pool_opens_nothing(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        opening = asyncio.create_task(pool.acquire(route_to(origin, authority)))
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(UpstreamUnreachable):
            await opening
        with pytest.raises(UpstreamUnreachable):
            await pool.acquire(route_to(origin, authority))


async def test_under_cuts_and_cancellations_every_answer_belongs_to_its_question(authority: Authority) -> None:
    chance = random.Random(7)

    async def echo(request: Request, peer: Peer) -> None:
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005]))
        body = f"{request.target} {request.header('x-tenant')}".encode()
        match chance.randrange(8):
            case 0:
                peer.abort()
            case 1:
                await peer.send(reply(body))
                peer.close()
            case 2:
                await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
                await asyncio.sleep(0.001)
                await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            case _:
                await peer.send(reply(body))

    async with Origin(authority.issue("saas.test"), echo) as origin, pool_of() as pool:
        base = route_to(origin, authority)
        right = 0

        async def call(number: int) -> None:
            nonlocal right
            tenant = f"tenant-{number % 3}"
            upstream = await pool.acquire(replace(base, tenant=tenant))
            try:
                sent = f"GET /{number} HTTP/1.1\r\nhost: saas.test\r\nx-tenant: {tenant}\r\n\r\n".encode()
                assert await exchange(upstream, sent) == (200, f"/{number} {tenant}".encode())
                right += 1
            finally:
                pool.release(upstream)

        for start in range(0, 240, 12):
            tasks = [asyncio.create_task(call(number)) for number in range(start, start + 12)]
            for task in tasks:
                if chance.random() < 0.3:
                    asyncio.get_running_loop().call_later(chance.random() / 100, task.cancel)
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, UpstreamBroken | asyncio.CancelledError), result
        assert right > 60
        assert pool.open_count == pool.idle_count
        for connection in origin.connections:
            assert len({request.header("x-tenant") for request in connection.requests}) <= 1


# --- back-pressure ---------------------------------------------------------------------------------------------------


async def test_an_unread_response_stays_with_the_origin(authority: Authority) -> None:
    size = 30_000_000
    sent = 0

    async def flood(request: Request, peer: Peer) -> None:
        nonlocal sent
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(b"x" * 100_000)
            sent += 100_000

    async with Origin(authority.issue("saas.test"), flood) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        upstream.begin("GET")
        upstream.write(REQUEST, last=True)
        await upstream.next_head()
        await asyncio.sleep(0.3)
        assert sent < size, "everything was taken from the origin though nobody read it"
        assert upstream._parser is not None
        assert upstream._parser.buffered < PoolLimits().pause_bytes + 70_000
        total = 0
        while piece := await upstream.next_body():
            total += len(piece)
        assert total == size
        pool.release(upstream)
        assert pool.idle_count == 1


@pytest.mark.parametrize("size", [1, 16384, 16385, 1_000_000])
async def test_a_request_of_any_size_arrives_whole(authority: Authority, size: int) -> None:
    body = random.Random(size).randbytes(size)
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        upstream.begin("POST")
        upstream.write(b"POST / HTTP/1.1\r\nhost: saas.test\r\ncontent-length: %d\r\n\r\n" % size + body, last=True)
        await upstream.drain()
        assert await receive(upstream) == (200, b'{"ok":true}')
        assert origin.requests[0].body == body
        pool.release(upstream)
        assert pool.idle_count == 1


async def test_drain_waits_for_an_origin_that_does_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        async with pool_of() as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=server.getsockname())
            upstream = await pool.acquire(route)
            peer, _ = server.accept()
            peer.setblocking(False)
            upstream.begin("POST")
            upstream.write(b"x" * 20_000_000, last=True)
            draining = asyncio.create_task(upstream.drain())
            await asyncio.sleep(0.05)
            assert not draining.done()
            received = 0
            loop = asyncio.get_running_loop()
            while received < 20_000_000:
                received += len(await loop.sock_recv(peer, 1 << 20))
            await draining
            peer.close()


async def test_an_origin_that_never_reads_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with pool_of(limits=QUICK) as pool:
            route = Route("acme", "lab", 1, "http", "saas.test", 80, dial=server.getsockname())
            upstream = await pool.acquire(route)
            upstream.begin("POST")
            upstream.write(b"x" * 20_000_000)
            with pytest.raises(UpstreamTimeout):
                await upstream.drain()
