"""Issuing, remembering and re-judging of credentials."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credentials.actor import SYSTEM
from credentials.identifier import Identifier
from credentials.keyfile import KeyFileRefused
from credentials.revocation import Revocations, Target, TargetKind, lineage
from credentials.tokens import (
    MAX_LIFETIME_SECONDS,
    CredentialRejected,
    IssuedToken,
    SigningKey,
    TokenIssuer,
    TokenVerifier,
)

NOW = 1_800_000_000
AT = datetime(2026, 11, 20, tzinfo=UTC)
SIGNER = SigningKey(Ed25519PrivateKey.generate())
ISSUER = TokenIssuer(SIGNER, "exeat/i_test")


def identifier(size: int = 10) -> Identifier:
    return Identifier(TokenVerifier({SIGNER.kid: SIGNER.public}, "exeat/i_test"), size)


def issue(epoch: int = 0, account: str = "agent", renews: str | None = None, ttl: int = 300) -> IssuedToken:
    return ISSUER.issue(
        tenant="acme",
        account=account,
        workflow="w",
        run="r",
        epoch=epoch,
        ttl_seconds=ttl,
        now=NOW,
        renews=renews,
    )


def text(issued: IssuedToken) -> str:
    return issued.token.reveal().decode()


def code(subject: Identifier, token: str, revocations: Revocations, now: float = NOW) -> str:
    with pytest.raises(CredentialRejected) as rejection:
        subject.identify(token, revocations, now)
    return rejection.value.code


def test_the_principal_is_the_one_issued_for() -> None:
    issued = issue()
    assert identifier().identify(text(issued), Revocations(), NOW) == issued.principal


def test_a_remembered_token_expires_all_the_same() -> None:
    subject, issued = identifier(), issue()
    subject.identify(text(issued), Revocations(), NOW + 299)
    assert code(subject, text(issued), Revocations(), NOW + 300) == "credential_expired"
    assert len(subject) == 0


@pytest.mark.parametrize(
    "target",
    [
        Target(TargetKind.ALL),
        Target(TargetKind.TENANT, "acme"),
        Target(TargetKind.ACCOUNT, "acme", "agent"),
    ],
)
def test_a_remembered_token_is_dead_at_the_next_request_after_its_revocation(target: Target) -> None:
    subject, issued = identifier(), issue()
    subject.identify(text(issued), Revocations(), NOW)
    revoked = Revocations().revoke(target, AT, "INC-1", SYSTEM)
    assert code(subject, text(issued), revoked) == "credential_revoked"
    restored = revoked.restore(target, AT, "closed", SYSTEM)
    assert code(subject, text(issued), restored) == "credential_revoked"
    fresh = issue(epoch=restored.epoch)
    assert subject.identify(text(fresh), restored, NOW) == fresh.principal


def test_revoking_a_credential_stops_its_renewals_and_no_neighbour() -> None:
    first, neighbour = issue(), issue()
    renewed = issue(renews=first.principal.credential)
    again = issue(renews=renewed.principal.credential)
    assert len({t.principal.credential for t in (first, renewed, again)}) == 3
    for named in (first, renewed, again):
        target = Target(TargetKind.CREDENTIAL, "acme", named.principal.credential)
        revoked = Revocations().revoke(target, AT, "stolen", SYSTEM)
        for token in (first, renewed, again):
            assert code(identifier(), text(token), revoked) == "credential_revoked"
        assert identifier().identify(text(neighbour), revoked, NOW) == neighbour.principal


def test_a_token_from_an_epoch_that_we_do_not_know_is_refused() -> None:
    """The state was rolled back to before a revocation: what was issued after it must not slip through."""
    assert code(identifier(), text(issue(epoch=1)), Revocations()) == "credential_invalid"


def test_memory_is_bounded_and_the_forgotten_are_verified_again() -> None:
    subject = identifier(size=3)
    tokens = [issue() for _ in range(10)]
    for issued in tokens:
        subject.identify(text(issued), Revocations(), NOW)
        assert len(subject) <= 3
    for issued in tokens:
        assert subject.identify(text(issued), Revocations(), NOW) == issued.principal


def test_what_was_refused_is_not_remembered() -> None:
    subject = identifier()
    for number in range(5):
        assert code(subject, f"a.b.{number}", Revocations()) == "credential_invalid"
    assert len(subject) == 0


def test_a_remembered_token_does_not_vouch_for_one_that_differs_in_a_byte() -> None:
    subject, issued = identifier(), issue()
    subject.identify(text(issued), Revocations(), NOW)
    token = text(issued)
    changed = token[:-1] + ("A" if token[-1] != "A" else "Q")
    assert code(subject, changed, Revocations()) == "credential_invalid"


def test_no_rendering_shows_a_token() -> None:
    subject, issued = identifier(), issue()
    subject.identify(text(issued), Revocations(), NOW)
    assert text(issued) not in f"{subject!r} {issued!r} {issued}"


@pytest.mark.parametrize("ttl", [0, -1, MAX_LIFETIME_SECONDS + 1])
def test_a_lifetime_out_of_bounds_is_not_issued(ttl: int) -> None:
    with pytest.raises(ValueError, match="lives"):
        issue(ttl=ttl)


@pytest.mark.parametrize("account", ["", "-", "a b", "a\nb", "a" * 129, "ü"])
def test_a_name_that_no_token_may_carry_is_not_issued(account: str) -> None:
    with pytest.raises(ValueError, match="account"):
        issue(account=account)


def test_ids_are_unique_and_share_a_lineage_only_by_renewal() -> None:
    ids = {issue().principal.credential for _ in range(100)}
    assert len({lineage(name) for name in ids}) == 100


class TestSigningKeyFile:
    def test_is_made_once_and_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "token.pem"
        key = SigningKey.load_or_create(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert SigningKey.load_or_create(path).kid == key.kid
        assert [entry.name for entry in tmp_path.iterdir()] == ["token.pem"]

    def test_an_exposed_one_is_refused_with_the_fix_and_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "token.pem"
        SigningKey.load_or_create(path)
        content = path.read_bytes()
        path.chmod(0o640)
        with pytest.raises(KeyFileRefused, match=r"chmod 600"):
            SigningKey.load_or_create(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_what_is_no_key_is_refused_and_not_replaced(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "token.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeyFileRefused, match="PEM"):
            SigningKey.load_or_create(path)
        assert path.read_bytes() == content

    def test_another_kind_of_key_is_refused(self, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        path = tmp_path / "token.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        with pytest.raises(KeyFileRefused, match="Ed25519"):
            SigningKey.load(path)

    def test_the_key_is_not_shown_or_pickled(self) -> None:
        import pickle

        assert repr(SIGNER) == f"SigningKey(kid={SIGNER.kid})"
        with pytest.raises(TypeError):
            pickle.dumps(SIGNER)
