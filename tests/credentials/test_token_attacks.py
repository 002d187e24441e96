"""Every way known to us of getting a token accepted that we did not issue for this use."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from credentials.tokens import (
    MAX_LIFETIME_SECONDS,
    MAX_TOKEN_BYTES,
    CredentialRejected,
    SigningKey,
    TokenIssuer,
    TokenVerifier,
)

NOW = 1_800_000_000
ISSUER = "exeat/i_test"
KEY = Ed25519PrivateKey.generate()
SIGNER = SigningKey(KEY)
VERIFIER = TokenVerifier({SIGNER.kid: SIGNER.public}, ISSUER)
HEADER = {"alg": "EdDSA", "typ": "exeat+jwt", "kid": SIGNER.kid}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "exeat",
    "sub": "support-agent",
    "tenant": "acme",
    "workflow": "refunds",
    "run": "r_1",
    "jti": "k_1",
    "epoch": 3,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 300,
}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def signed(payload: bytes, header: bytes | None = None, key: Ed25519PrivateKey = KEY) -> str:
    """A token whose signature is right for exactly these bytes: the attacker has even stolen the key."""
    text = f"{b64(compact(HEADER) if header is None else header)}.{b64(payload)}"
    return f"{text}.{b64(key.sign(text.encode()))}"


def claims(**changes: object) -> bytes:
    return compact({**CLAIMS, **changes})


def refused(token: str, now: float = NOW, code: str = "credential_invalid") -> CredentialRejected:
    with pytest.raises(CredentialRejected) as rejection:
        VERIFIER.verify(token, now)
    assert rejection.value.code == code
    assert len(token) < 20 or token not in str(rejection.value)
    return rejection.value


def genuine() -> str:
    issued = TokenIssuer(SIGNER, ISSUER).issue(
        tenant="acme", account="support-agent", workflow="refunds", run="r_1", epoch=3, ttl_seconds=300, now=NOW
    )
    return issued.token.reveal().decode()


def test_the_forger_of_these_tests_writes_what_is_accepted() -> None:
    """Without this, every refusal below could be for the wrong reason."""
    assert VERIFIER.verify(signed(claims()), NOW).account == "support-agent"


def test_what_we_issue_is_accepted_and_read_alike_by_an_independent_library() -> None:
    token = genuine()
    principal = VERIFIER.verify(token, NOW)
    read = jwt.decode(
        token,
        SIGNER.public,
        algorithms=["EdDSA"],
        audience="exeat",
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    assert (read["tenant"], read["sub"], read["workflow"], read["run"], read["jti"], read["epoch"]) == (
        principal.tenant,
        principal.account,
        principal.workflow,
        principal.run,
        principal.credential,
        principal.epoch,
    )
    assert (read["iat"], read["exp"]) == (principal.issued_at, principal.expires_at) == (NOW, NOW + 300)
    assert len(token) < 1024


class TestAlgorithm:
    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "EdDSA ", "eddsa"])
    def test_another_algorithm_is_refused_even_with_our_signature(self, alg: str) -> None:
        refused(signed(claims(), compact({**HEADER, "alg": alg})))

    def test_alg_none_without_signature(self) -> None:
        for header in ({"alg": "none"}, {**HEADER, "alg": "none"}):
            refused(f"{b64(compact(header))}.{b64(claims())}.")

    def test_genuine_header_without_signature(self) -> None:
        refused(f"{b64(compact(HEADER))}.{b64(claims())}.")

    def test_public_key_used_as_hmac_secret(self) -> None:
        for form in (
            SIGNER.public.public_bytes(Encoding.Raw, PublicFormat.Raw),
            SIGNER.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ):
            text = f"{b64(compact({**HEADER, 'alg': 'HS256'}))}.{b64(claims())}"
            refused(f"{text}.{b64(hmac.digest(form, text.encode(), hashlib.sha256))}")

    def test_other_key_types_with_their_own_algorithm(self) -> None:
        for key, alg in (
            (rsa.generate_private_key(65537, 2048), "RS256"),
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        ):
            refused(jwt.encode(CLAIMS, key, algorithm=alg, headers={**HEADER, "alg": alg}))


class TestHeaderGames:
    @pytest.mark.parametrize(
        "extra",
        [
            {"jku": "https://evil.example/jwks"},
            {"x5u": "https://evil.example/cert.pem"},
            {"x5c": ["AAAA"]},
            {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}},
            {"crit": ["exp"]},
            {"crit": []},
            {"crit": ["b64"], "b64": False},
            {"b64": True},
            {"zip": "DEF"},
            {"cty": "JWT"},
            {"epk": {}},
        ],
    )
    def test_an_additional_parameter_is_refused_even_with_our_signature(self, extra: dict[str, object]) -> None:
        refused(signed(claims(), compact({**HEADER, **extra})))

    @pytest.mark.parametrize(
        "kid",
        [
            "",
            "../../../../dev/null",
            "/dev/null",
            "' OR 1=1 --",
            "x\x00y",
            pytest.param(SIGNER.kid + " ", id="with a space"),
            pytest.param(SIGNER.kid.lower(), id="in lower case"),
            1,
            None,
        ],
    )
    def test_kid_that_is_not_ours(self, kid: object) -> None:
        refused(signed(claims(), compact({**HEADER, "kid": kid})))

    def test_kid_of_ours_with_another_key(self) -> None:
        refused(signed(claims(), key=Ed25519PrivateKey.generate()))

    def test_kid_missing(self) -> None:
        refused(signed(claims(), compact({"alg": "EdDSA", "typ": "exeat+jwt"})))

    @pytest.mark.parametrize("typ", ["JWT", "at+jwt", "exeat+jwt ", "EXEAT+JWT", None])
    def test_a_token_of_another_type(self, typ: object) -> None:
        refused(signed(claims(), compact({**HEADER, "typ": typ})))

    def test_duplicate_members_in_the_header(self) -> None:
        written = compact(HEADER).decode()
        refused(signed(claims(), written.replace("{", '{"alg":"none",', 1).encode()))
        refused(signed(claims(), (written[:-1] + ',"alg":"EdDSA"}').encode()))

    @pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n"])
    def test_white_space_or_another_order_in_the_header(self, space: str) -> None:
        refused(signed(claims(), compact(HEADER).replace(b",", b"," + space.encode())))
        refused(signed(claims(), compact(dict(reversed(HEADER.items())))))

    def test_header_of_another_encoding(self) -> None:
        refused(signed(claims(), b"\xef\xbb\xbf" + compact(HEADER)))
        refused(signed(claims(), compact(HEADER).decode().encode("utf-16")))
        refused(signed(claims(), compact(HEADER).replace(b"alg", b"\\u0061lg")))


class TestClaims:
    @pytest.mark.parametrize("aud", [["exeat"], ["exeat", "other"], [], "EXEAT", "exeat ", "", None, {"exeat": 1}, 0])
    def test_audience_list_or_other(self, aud: object) -> None:
        refused(signed(claims(aud=aud)))

    @pytest.mark.parametrize("iss", [[ISSUER], "evil", "", None, ISSUER + "/", ISSUER.upper(), {}, True])
    def test_issuer_list_or_other(self, iss: object) -> None:
        refused(signed(claims(iss=iss)))

    @pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "epoch"])
    @pytest.mark.parametrize(
        "value", [True, False, None, "1800000300", -1, [], {}, 10**12, 2**53, 2**63, 10**40, float(NOW + 300), 1e10]
    )
    def test_a_time_or_epoch_that_is_no_integer_in_range(self, claim: str, value: object) -> None:
        refused(signed(claims(**{claim: value})))

    @pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1800000300.0", "0x6b49d200", "01"])
    def test_a_number_that_json_or_python_reads_loosely(self, text: str) -> None:
        payload = claims().replace(b'"exp":1800000300', f'"exp":{text}'.encode())
        assert payload != claims()
        refused(signed(payload))

    def test_absurd_expiry(self) -> None:
        refused(signed(claims(exp=NOW + MAX_LIFETIME_SECONDS + 1)))
        refused(signed(claims(exp=253_402_300_799)))
        assert VERIFIER.verify(signed(claims(exp=NOW + MAX_LIFETIME_SECONDS)), NOW)

    def test_absurd_issue_time_does_not_stretch_the_lifetime(self) -> None:
        refused(signed(claims(iat=0)))
        refused(signed(claims(iat=NOW + 3600, nbf=NOW, exp=NOW + 7200)))
        refused(signed(claims(iat=NOW + 300, exp=NOW + 300)))

    def test_not_valid_yet(self) -> None:
        refused(signed(claims()), now=NOW - 31)
        assert VERIFIER.verify(signed(claims()), NOW - 30)

    def test_expired_to_the_second_and_named(self) -> None:
        assert VERIFIER.verify(signed(claims()), NOW + 299.999)
        rejection = refused(signed(claims()), now=NOW + 300, code="credential_expired")
        assert rejection.principal is not None
        assert rejection.principal.account == "support-agent"

    def test_expired_and_forged_is_not_told_apart_from_forged(self) -> None:
        forged = signed(claims(exp=NOW - 1, iat=NOW - 100, nbf=NOW - 100), key=Ed25519PrivateKey.generate())
        assert refused(forged).principal is None

    @pytest.mark.parametrize("claim", sorted(CLAIMS))
    def test_a_missing_claim(self, claim: str) -> None:
        refused(signed(compact({name: value for name, value in CLAIMS.items() if name != claim})))

    @pytest.mark.parametrize("extra", [{"admin": True}, {"scope": "*"}, {"cnf": {}}, {"": 1}, {"Tenant": "globex"}])
    def test_an_unknown_claim(self, extra: dict[str, object]) -> None:
        refused(signed(compact({**CLAIMS, **extra})))

    @pytest.mark.parametrize("claim", ["tenant", "sub", "workflow", "run", "jti"])
    @pytest.mark.parametrize(
        "value",
        [
            "",
            "-",
            " acme",
            "acme ",
            "ac\nme",
            "ac\x1b[31mme",
            "acme\u202egro",
            "аcme",  # a Cyrillic letter
            "a" * 129,
            ["acme"],
            {"acme": 1},
            None,
            True,
            1,
        ],
    )
    def test_a_name_that_is_none(self, claim: str, value: object) -> None:
        refused(signed(claims(**{claim: value})))

    @pytest.mark.parametrize("claim", sorted(CLAIMS))
    def test_duplicate_members_in_the_payload(self, claim: str) -> None:
        written = claims().decode()
        again = json.dumps(CLAIMS[claim])
        refused(signed(written.replace("{", f'{{"{claim}":{again},', 1).encode()))
        refused(signed((written[:-1] + f',"{claim}":{again}}}').encode()))

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"null",
            b"[]",
            b'"x"',
            b"{}",
            b"{",
            claims() + b"{}",
            claims() + b"\x00",
            b"\xef\xbb\xbf" + claims(),
            claims().decode().encode("utf-16"),
            b"\xff" + claims(),
            b"[" * 2900,
            b'{"a":' * 500,
        ],
    )
    def test_a_payload_that_is_not_one_strict_object(self, payload: bytes) -> None:
        refused(signed(payload))


class TestForm:
    def test_missing(self) -> None:
        refused("", code="credential_missing")

    @pytest.mark.parametrize("token", [".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d.e", " ", "\x00"])
    def test_not_a_token(self, token: str) -> None:
        refused(token)

    def test_too_long_is_refused_before_it_is_read(self) -> None:
        refused("a" * (MAX_TOKEN_BYTES + 1))
        refused(genuine() + "A" * MAX_TOKEN_BYTES)
        refused("." * (MAX_TOKEN_BYTES + 1))

    @pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n", "\u00a0", "\u200b", "\x00"])
    def test_white_space_anywhere(self, space: str) -> None:
        header, payload, signature = genuine().split(".")
        for token in (
            f"{space}{header}.{payload}.{signature}",
            f"{header}.{payload}.{signature}{space}",
            f"{header}{space}.{payload}.{signature}",
            f"{header}.{payload[:9]}{space}{payload[9:]}.{signature}",
            f"{header}.{payload}.{signature[:9]}{space}{signature[9:]}",
        ):
            refused(token)

    def test_padding_and_the_other_alphabet(self) -> None:
        header, payload, signature = genuine().split(".")
        refused(f"{header}.{payload}.{signature}==")
        refused(f"{header}.{payload}=.{signature}")
        standard = signature.replace("-", "+").replace("_", "/")
        if standard != signature:
            refused(f"{header}.{payload}.{standard}")

    def test_the_signature_has_one_spelling(self) -> None:
        """The last of 86 characters carries four unused bits: sixteen spellings to a lax decoder."""
        token = genuine()
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        raw = urlsafe_b64decode(token.rsplit(".", 1)[1] + "==")
        twins = [
            token[:-1] + letter
            for letter in alphabet
            if urlsafe_b64decode(token.rsplit(".", 1)[1][:-1] + letter + "==") == raw
        ]
        assert len(twins) == 16
        for twin in twins:
            if twin != token:
                refused(twin)

    def test_a_signed_payload_under_an_appended_part(self) -> None:
        refused(genuine() + "." + b64(claims(tenant="globex")))

    def test_parts_of_two_tokens(self) -> None:
        one, two = genuine().split("."), genuine().split(".")
        refused(f"{one[0]}.{two[1]}.{one[2]}")

    @given(st.integers(min_value=0), st.integers(min_value=1, max_value=127))
    def test_any_changed_character(self, position: int, change: int) -> None:
        token = genuine()
        position %= len(token)
        changed = token[:position] + chr((ord(token[position]) + change) % 128) + token[position + 1 :]
        refused(changed)

    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        with pytest.raises(CredentialRejected):
            VERIFIER.verify(text, NOW)


def test_a_token_of_another_instance() -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    token = TokenIssuer(other, ISSUER).issue(
        tenant="acme", account="a", workflow="w", run="r", epoch=0, ttl_seconds=60, now=NOW
    )
    refused(token.token.reveal().decode())
    same_key = TokenIssuer(SIGNER, "exeat/i_other").issue(
        tenant="acme", account="a", workflow="w", run="r", epoch=0, ttl_seconds=60, now=NOW
    )
    refused(same_key.token.reveal().decode())
