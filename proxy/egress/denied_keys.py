"""Keys that no chain to an origin may hold, whoever trusts them: their private halves are public, or were misused.

A key is known by the SHA-256 of its SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), as RFC 7469 and browsers' lists
know it: one row covers every certificate over the key, roots and cross-signed ones too. The public bundle has dropped
these authorities; the table is for the chains that a connection's own authorities would still vouch for. A row is
added by a change of code, with its source, or by a policy (`denied_keys`).
"""

import hashlib
import ssl
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


@dataclass(frozen=True, slots=True)
class DeniedKey:
    """One row of the table."""

    sha256: str
    """Of the DER SubjectPublicKeyInfo: 64 lower-case hexadecimal digits."""
    name: str
    """The subject that is known by the key."""
    reason: str
    source: str
    """Where to read it up."""


class KeyDenied(Exception):
    """The chain holds a denied key, or cannot be examined. The message is for operators."""


_BROWSERS: Final = "chromium, net/data/ssl/blocklist/README.md"
_SHIPPED: Final = "its private key came with a product"

TABLE: Final[tuple[DeniedKey, ...]] = tuple(
    DeniedKey(*row)
    for row in (
        (
            "63ecefee431d49523bc1136c4e72d0206a477086caf606cd5cf025686c109cf8",
            "EM OV TLS CA - G3C (eMudhra)",
            "its private key is a small number, and published",
            "https://emudhra.we-have-a-problem.com/; mitmproxy 12.3, certs.py",
        ),
        # In bundles exported from machines that had the products, these still turn up.
        ("130ad4e0633521290531b6651f5759b0bc7bc656709ff8f365c2143b0389b6f6", "eDellRoot (Dell)", _SHIPPED, _BROWSERS),
        ("cdee9f3305572a677e1a6c82dc1e02a35b11cae6a684338c9f37fe1ac8daec23", "DSDTestProvider", _SHIPPED, _BROWSERS),
        ("4bb8f35ba1e126f8dde1b0c420625ed86dce61a7bddadbdea9aba578ff13145e", "Superfish", _SHIPPED, _BROWSERS),
        ("1af56c98ff043ef92bebff54cebb4dd67a25ba956c817f3e6dd3c1e52eb584c1", "Cyberoam", _SHIPPED, _BROWSERS),
        ("0c43ea8bcde9fc3bca165664ac8215567e3489d5393a0c81e1a79141992e1953", "Sennheiser", _SHIPPED, _BROWSERS),
        ("8f591f7aa4dc3efe9490c38a4692c9011ed128f1de595569406d77b6fa1f6b4c", "Sennheiser", _SHIPPED, _BROWSERS),
        ("707d364e72ae521431dd953897f9c4846d5b8c324298fe53fbd4ada1f2d1157f", "Mitel", _SHIPPED, _BROWSERS),
        ("6adb8e3e055460922d1501cb97f94c6a02e39c8f2774ca408825b7b58379dc14", "Mitel", _SHIPPED, _BROWSERS),
        ("490b6ec6beb2d6034720b5149b6b29cd35515988cc16af854148b07b9b1f8a11", "Mitel", _SHIPPED, _BROWSERS),
        ("ef551284715232de92e246c323329362b132493bb16b589e4775520beb871a56", "Mitel", _SHIPPED, _BROWSERS),
        (
            "a903af8c07bb91b0d9e3f3a30c6d53339fc5bd47e5d6bdb476598860c068a024",
            "DigiNotar Root CA",
            "the authority was broken into (2011)",
            _BROWSERS,
        ),
        (
            "32ecc96f912f96d889e73088cd031c7ded2c651c805016157a23b6f32f798a3b",
            "Trustwave",
            "issued to intercept other people's connections",
            _BROWSERS,
        ),
        (
            "b5ba8dd7f89564c2889d3d6453c84998c77824919b64ea0835aa62986591be50",
            "Qaznet",
            "issued to intercept other people's connections",
            _BROWSERS,
        ),
    )
)

_KNOWN: Final = MappingProxyType({row.sha256: row for row in TABLE})


def verify_keys(session: ssl.SSLObject, denied: AbstractSet[str] = frozenset()) -> None:
    """No certificate of the session's verified chain, leaf and root included, is over a denied key.

    `denied` are SHA-256 in hexadecimal, beside the table. Raises KeyDenied; the caller must not send a byte then. Fails
    closed: a chain that cannot be had, or a key that cannot be read, is refused.
    """
    chain = verified_chain(session)
    if not chain:
        raise KeyDenied("the verified chain is not to be had")
    for certificate in chain:
        for sha256 in key_hashes(certificate):
            row = _KNOWN.get(sha256)
            if row is not None:
                raise KeyDenied(f"{row.name}: {row.reason} (SPKI sha256:{sha256})")
            if sha256 in denied:
                raise KeyDenied(f"the policy denies the key SPKI sha256:{sha256}")


def verified_chain(session: ssl.SSLObject) -> list[bytes]:
    """The chain that was verified, from leaf to root, as DER; empty where this Python cannot say.

    `SSLObject.get_verified_chain` is public from Python 3.13 on. 3.12 has it one layer down, with objects for bytes.
    What the peer *sent* (`get_unverified_chain`) will not do: it may be other certificates, in any order.
    """
    inner: Any = getattr(session, "_sslobj", None)
    get: Any = getattr(session, "get_verified_chain", None) or getattr(inner, "get_verified_chain", None)
    if get is None:
        return []
    chain: list[Any] = get() or []
    return [part if isinstance(part, bytes) else part.public_bytes(_ENCODING_DER) for part in chain]


_ENCODING_DER: Final = 2
"""`_ssl.ENCODING_DER`: X509_FILETYPE_ASN1 of OpenSSL."""


def key_hashes(certificate: bytes) -> tuple[str, ...]:
    """SHA-256 of the certificate's SubjectPublicKeyInfo: as it stands, and in the one canonical encoding.

    Two, because one key can be encoded in several ways (compressed points, absent parameters): the holder of a denied
    key must not get around the table by having another encoding of it certified. Raises KeyDenied.
    """
    try:
        as_it_stands = _subject_public_key_info(certificate)
        key = x509.load_der_x509_certificate(certificate).public_key()
        canonical = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyDenied(f"a certificate's key cannot be read: {error}") from None
    hashes = (hashlib.sha256(as_it_stands).hexdigest(), hashlib.sha256(canonical).hexdigest())
    return hashes[:1] if hashes[0] == hashes[1] else hashes


def _subject_public_key_info(certificate: bytes) -> bytes:
    """The bytes of the seventh member of TBSCertificate (the sixth without its optional version). Raises ValueError."""
    _, at, _ = _element(certificate, 0)  # Certificate
    _, at, _ = _element(certificate, at)  # TBSCertificate
    tag, _, end = _element(certificate, at)
    # version, serialNumber, signature, issuer, validity, subject
    for _ in range(6 if tag == 0xA0 else 5):
        at = end
        _, _, end = _element(certificate, at)
    return certificate[at:end]


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, where the content begins and where it ends, of the DER element at `at`. Raises ValueError."""
    if at + 2 > len(data):
        raise ValueError("DER ends early")
    length, begin = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, begin = int.from_bytes(data[begin : begin + size], "big"), begin + size
    if begin + length > len(data):
        raise ValueError("DER ends early")
    return data[at], begin, begin + length
