"""Keys that no chain may hold: over real handshakes, also where the connection trusts the very root."""

import asyncio
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import mitmproxy.certs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from proxy.egress.denied_keys import TABLE, KeyDenied, key_hashes, verified_chain, verify_keys
from proxy.egress.errors import UpstreamError, UpstreamUntrusted
from proxy.egress.pool import Pool
from proxy.egress.route import Route
from proxy.egress.tls import TlsContexts, public_context
from rules.codes import Code
from tests.proxy.egress.test_wire_pool import exchange, pool_of, route_to
from tests.worlds.authority import Authority
from tests.worlds.origin import Origin

pytestmark = pytest.mark.anyio


def leaked_keys() -> Iterator[ec.EllipticCurvePrivateKey]:
    """Every private key that the installed engine's certificate module carries."""
    for value in vars(mitmproxy.certs).values():
        if isinstance(value, bytes) and b"PRIVATE KEY-----" in value:
            key = load_pem_private_key(value, None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            yield key


async def untrusted(pool: Pool, route: Route, origin: Origin) -> UpstreamError:
    with pytest.raises(UpstreamUntrusted) as raised:
        await pool.acquire(route)
    assert raised.value.code is Code.UPSTREAM_UNTRUSTED
    assert pool.open_count == 0
    async with asyncio.timeout(5):  # until the origin has seen the end of it
        while not origin.connections or not all(connection.closed.is_set() for connection in origin.connections):
            await asyncio.sleep(0.001)
    assert not any(connection.received for connection in origin.connections), "a byte of a request was sent"
    return raised.value


async def test_the_leaked_key_in_the_engines_package_signs_nothing_for_us() -> None:
    """The key is taken out of the installed package, a leaf is signed with it, and its root is even trusted."""
    keys = list(leaked_keys())
    assert keys, "the package no longer carries one: this test has to look elsewhere"
    for key in keys:
        leaked = Authority("EM OV TLS CA - G3C", key)
        async with Origin(leaked.issue("saas.test")) as origin, pool_of() as pool:
            for added in (False, True):
                route = replace(route_to(origin, leaked), ca_added=added)
                error = await untrusted(pool, route, origin)
                assert "eMudhra" in error.operator_detail
                assert "eMudhra" not in error.detail


async def test_a_key_that_the_policy_denies_is_refused_and_every_other_goes_on(authority: Authority) -> None:
    other = Authority().key_sha256
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = route_to(origin, authority)
        await untrusted(pool, replace(route, denied_keys=frozenset({other, authority.key_sha256})), origin)
        kept = await pool.acquire(replace(route, denied_keys=frozenset({other})))
        assert (await exchange(kept))[0] == 200
        pool.release(kept)
        assert pool.idle_count == 1, "and what was connected before the key was denied is not used after it"
        with pytest.raises(UpstreamUntrusted):
            await pool.acquire(replace(route, denied_keys=frozenset({authority.key_sha256})))


async def test_the_origins_own_key_is_looked_at_too(authority: Authority) -> None:
    leaf = authority.issue("saas.test")
    own = x509.load_pem_x509_certificate(leaf.chain_pem)
    (sha256,) = key_hashes(own.public_bytes(Encoding.DER))
    async with Origin(leaf) as origin, pool_of() as pool:
        await untrusted(pool, replace(route_to(origin, authority), denied_keys=frozenset({sha256})), origin)


async def test_what_is_looked_at_is_what_was_verified_and_not_what_was_sent(authority: Authority) -> None:
    """The root is never sent by the origin; it is in the verified chain all the same."""
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        upstream = await pool.acquire(route_to(origin, authority))
        assert upstream._tls is not None
        chain = verified_chain(upstream._tls._object)
        assert len(chain) == 2
        assert [authority.key_sha256] == list(key_hashes(chain[1]))
        sent = cast("Any", upstream._tls._object)._sslobj.get_unverified_chain()
        assert len(sent) == 1


@pytest.mark.parametrize("chain", [None, [], "absent"])
def test_a_chain_that_cannot_be_had_is_refused(chain: list[bytes] | str | None) -> None:
    session = SimpleNamespace() if chain == "absent" else SimpleNamespace(get_verified_chain=lambda: chain)
    with pytest.raises(KeyDenied, match="not to be had"):
        verify_keys(cast("ssl.SSLObject", session))


@pytest.mark.parametrize("certificate", [b"", b"\x30", b"\x30\x03\x30\x01\xa0", b"\x30\x82", b"\x00" * 64], ids=repr)
def test_a_key_that_cannot_be_read_is_refused(certificate: bytes) -> None:
    session = SimpleNamespace(get_verified_chain=lambda: [certificate])
    with pytest.raises(KeyDenied, match="cannot be read"):
        verify_keys(cast("ssl.SSLObject", session))


def test_another_encoding_of_a_denied_key_is_the_same_key(authority: Authority) -> None:
    """A compressed point is another SubjectPublicKeyInfo over the same key; the table has only the usual one."""
    pem = authority.issue("saas.test").chain_pem
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    usual = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    short = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    at = der.index(usual)
    # BIT STRING (03, length, 00) within SEQUENCE within TBSCertificate within Certificate: all lengths shrink by 32.
    compressed = bytearray(der[:at] + short + der[at + len(usual) :])
    compressed[at - 2] -= 32
    spki = der.rindex(b"\x30\x59\x30\x13", 0, at)
    compressed[spki + 1] -= 32
    for header in (0, 4):
        assert compressed[header + 1] == 0x82
        length = int.from_bytes(compressed[header + 2 : header + 4], "big") - 32
        compressed[header + 2 : header + 4] = length.to_bytes(2, "big")
    (known,) = key_hashes(der)
    assert known in key_hashes(bytes(compressed))
    assert len(key_hashes(bytes(compressed))) == 2


def test_the_tables_rows_are_hashes_with_a_name_a_reason_and_a_source() -> None:
    assert len({row.sha256 for row in TABLE}) == len(TABLE) >= 14
    for row in TABLE:
        assert re.fullmatch("[0-9a-f]{64}", row.sha256)
        assert row.name
        assert row.reason
        assert row.source


async def test_an_authority_beside_the_public_ones_is_trusted_for_its_connection_alone(authority: Authority) -> None:
    async with Origin(authority.issue("saas.test")) as origin, pool_of() as pool:
        route = replace(route_to(origin, authority), ca_added=True)
        upstream = await pool.acquire(route)
        assert (await exchange(upstream))[0] == 200
        await untrusted_by_others(pool, replace(route, ca_pem=None, connection="other"))


async def untrusted_by_others(pool: Pool, route: Route) -> None:
    with pytest.raises(UpstreamUntrusted):
        await pool.acquire(route)


def test_the_public_ones_stay_trusted_beside_an_added_one_and_only_there(authority: Authority) -> None:
    contexts = TlsContexts()
    public = public_context().cert_store_stats()["x509_ca"]
    assert contexts.get(authority.pem).cert_store_stats()["x509_ca"] == 1
    assert contexts.get(authority.pem, ca_added=True).cert_store_stats()["x509_ca"] == public + 1
    assert contexts.get(None).cert_store_stats()["x509_ca"] == public > 50
