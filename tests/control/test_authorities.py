"""The authorities' files: one follows another, a crash at any step loses none, and expiry is no dead end."""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from OpenSSL import SSL

from control import authorities as module
from control import doors
from control.authorities import Authorities, RotationRefused
from control.authority_life import ALWAYS_PERMITTED, outside
from proxy.engine.authority import Authority, AuthorityInvalid, Permitted, TooManyNames
from proxy.engine.certificates import Certificates


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


def names(keys: Path) -> list[str]:
    return sorted(path.name for path in keys.iterdir())


def test_one_authority_follows_another(keys: Path) -> None:
    first = Authorities.open(keys)
    old = first.active
    assert first.bundle_pem == old.pem.decode()
    following = first.begin(None)
    assert first.bundle_pem == old.pem.decode() + following.pem.decode()
    assert first.active is old
    again = Authorities.open(keys)
    assert (again.active.pem, again.next and again.next.pem) == (old.pem, following.pem)
    again.switch()
    assert again.active.pem == following.pem
    assert again.bundle_pem == following.pem.decode() + old.pem.decode()
    assert "PRIVATE" not in again.bundle_pem
    assert names(keys) == ["ca-cert.pem", "ca-old-cert.pem", "ca.pem"]
    assert (keys / "ca-cert.pem").read_bytes() == following.pem
    assert all((keys / name).stat().st_mode & 0o077 == 0 for name in names(keys))
    third = Authorities.open(keys)
    third.finish()
    assert Authorities.open(keys).bundle_pem == following.pem.decode()
    assert names(keys) == ["ca-cert.pem", "ca.pem"]


def test_steps_out_of_order_are_refused_with_the_one_that_fits(keys: Path) -> None:
    found = Authorities.open(keys)
    for step in (found.switch, found.cancel, found.finish):
        with pytest.raises(RotationRefused) as refused:
            step()
        assert "exeat ca" in refused.value.cure
    found.begin(None)
    with pytest.raises(RotationRefused):
        found.begin(None)
    found.cancel()
    assert names(keys) == ["ca-cert.pem", "ca.pem"]


class Crash(BaseException):
    """The power went off here."""


def test_a_crash_at_any_step_leaves_an_authority_that_signs_and_a_rotation_that_goes_on(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the disk fails in turn; whatever is found then is a state before or after a step."""
    calls = 0
    fails_at = -1
    changing = {"replace": Path.replace, "unlink": Path.unlink}
    link, mkstemp = os.link, module.tempfile.mkstemp

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise Crash

    monkeypatch.setattr(Path, "replace", lambda *a: (step(), changing["replace"](*a))[1])
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: (step(), changing["unlink"](*a, **k))[1])
    monkeypatch.setattr(os, "link", lambda *a: (step(), link(*a))[1])
    monkeypatch.setattr(module.tempfile, "mkstemp", lambda *a, **k: (step(), mkstemp(*a, **k))[1])
    monkeypatch.setattr(module, "_sync", lambda _: step())
    tried = 0
    while True:
        tried += 1
        shutil.rmtree(keys)
        keys.mkdir(mode=0o700)
        fails_at = -1
        first = Authorities.open(keys).active.pem
        calls, fails_at = 0, tried
        crashed = False
        try:
            found = Authorities.open(keys)
            found.begin(None)
            found.switch()
            found.finish()
        except Crash:
            crashed = True
        fails_at = -1
        found = Authorities.open(keys)
        if found.active.pem == first:
            assert found.previous is None
        else:
            assert found.next is None
        # What is there goes on to its end.
        if found.active.pem == first:
            if found.next is None:
                found.begin(None)
            found.switch()
        if found.previous is not None:
            found.finish()
        assert Authorities.open(keys).active.pem != first
        assert set(names(keys)) >= {"ca-cert.pem", "ca.pem"}
        assert not {"ca-next.pem", "ca-old-cert.pem"} & set(names(keys))
        if not crashed:
            break
    assert tried > 8, "the failures reached every step"


def test_files_of_an_earlier_version_are_read(keys: Path) -> None:
    """Key and certificate in two files."""
    old = Authority.create()
    old.save_new(keys / "ca.pem")
    text = (keys / "ca.pem").read_text()
    end = text.index("-----BEGIN CERTIFICATE-----")
    (keys / "ca.pem").write_text(text[:end])
    (keys / "ca-cert.pem").write_text(text[end:])
    found = Authorities.open(keys)
    assert found.active.pem == old.pem
    found.begin(None)
    found.switch()
    assert Authorities.open(keys).previous is not None


@pytest.mark.parametrize("with_next", [False, True])
def test_an_expired_authority_is_replaced_and_says_so(keys: Path, with_next: bool) -> None:
    expired = Authority.create(days=-0.001)
    expired.save_new(keys / "ca.pem")
    waiting = Authority.create()
    if with_next:
        waiting.save_new(keys / "ca-next.pem")
    found = Authorities.open(keys)
    assert found.active.expires_at > datetime.now(UTC) + timedelta(days=300)
    assert (found.active.pem == waiting.pem) is with_next
    assert "restart agents" in found.renewed
    assert Authorities.open(keys).renewed == ""


def test_what_cannot_be_used_is_refused_with_its_place(keys: Path) -> None:
    Authorities.open(keys)
    path = keys / "ca.pem"
    good = path.read_text()
    path.chmod(0o640)
    with pytest.raises(AuthorityInvalid, match="chmod 600"):
        Authorities.open(keys)
    path.chmod(0o600)
    of_another = good[: good.index("-----BEGIN CERT")] + Authority.create().pem.decode()
    for bad in ("nonsense", of_another):
        path.write_text(bad)
        with pytest.raises(AuthorityInvalid, match=r"ca\.pem"):
            Authorities.open(keys)


def handshake(authority: Authority, host: str) -> None:
    """A strict client and our server in memory; raises what the client raises."""
    server = SSL.Connection(Certificates(authority).context("acme", host))
    server.set_accept_state()
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=host)
    for _ in range(6):
        try:
            client.do_handshake()
            return
        except ssl.SSLWantReadError:
            server.bio_write(outgoing.read())
            with contextlib.suppress(SSL.WantReadError):
                server.do_handshake()
            incoming.write(server.bio_read(65536))


PERMITTED = ["api.example", "sub.api.example", "10.1.2.3", ALWAYS_PERMITTED]


@pytest.mark.parametrize("host", ["api.example", "sub.api.example", "10.1.2.3"])
def test_a_constrained_authority_is_believed_for_what_it_may_vouch_for(host: str) -> None:
    handshake(Authority.create(permitted=Permitted.of(PERMITTED)), host)


@pytest.mark.parametrize("host", ["evil.example", "notapi.example", "10.1.2.4", "2001:db8::1", "api.example.evil.test"])
def test_a_constrained_authority_is_believed_for_nothing_else(host: str) -> None:
    """The gate refuses such a CONNECT; were it to sign all the same, a client would not believe it."""
    authority = Authority.create(permitted=Permitted.of(PERMITTED))
    assert not Certificates(authority).may_vouch(host)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"permitted|excluded"):
        handshake(authority, host)


@pytest.mark.wants("openssl")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_the_constraints_as_critical_and_ours_alone(tmp_path: Path) -> None:
    authority = Authority.create(permitted=Permitted.of(PERMITTED))
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    text = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-text"], capture_output=True, text=True, check=True
    ).stdout
    assert "Name Constraints: critical" in text
    assert text.count("DNS:") == 2, "the host below another one adds nothing"
    assert "IP:10.1.2.3/255.255.255.255" in text
    assert "ASN1 OID: prime256v1" in text


def test_constraints_are_written_and_read_alike() -> None:
    permitted = Permitted.of(PERMITTED)
    assert Authority.create(permitted=permitted).permitted == permitted
    assert Authority.create().permitted is None
    assert outside(permitted, ["api.example", "other.example"]) == ("other.example",)
    assert outside(None, ["anything.example"]) == ()


def test_more_names_than_fit_are_refused_with_a_way_out() -> None:
    with pytest.raises(TooManyNames, match="--permit"):
        Authority.create(permitted=Permitted.of(f"host-{i}.some-service.example" for i in range(1000)))


def test_what_goes_wrong_once_ends_no_authoritys_life(monkeypatch: pytest.MonkeyPatch) -> None:
    tended: list[int] = []

    def tend(*_: object) -> None:
        tended.append(1)
        if len(tended) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(doors, "tend", tend)
    monkeypatch.setattr(doors, "tell_of_expiry", lambda *_: None)
    monkeypatch.setattr(doors, "LOOK_SECONDS", 0.0)

    async def look() -> None:
        keeping = asyncio.ensure_future(doors.Doors(None, (), None).keep(None, None))
        async with asyncio.timeout(10):
            while len(tended) < 3:
                await asyncio.sleep(0.01)
        keeping.cancel()

    asyncio.run(look())
