"""The interception authority and the leaf certificates it signs for the names agents ask for.

The authority's key signs leaves and nothing else; the TLS handshakes use another key, so that the key that could
impersonate every host is touched once a host and not once a connection.
"""

import ipaddress
import os
import stat
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

AUTHORITY_DAYS: Final = 365
LEAF_DAYS: Final = 7
"""Short: a leaf is minted again when it is needed, and nobody has to revoke one."""
BACKDATE: Final = timedelta(hours=1)
"""For agents whose clocks run behind."""


class AuthorityInvalid(Exception):
    """The authority's files cannot be used; the message says which and how to mend it. Refuse to start."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority that agents are told to trust."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate alone, for agents' bundles. Holds no key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, name: str = "Exeat interception") -> "Authority":
        """A new P-256 authority, valid for a year."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Exeat"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load_or_create(cls, key_path: Path, certificate_path: Path) -> "Authority":
        """The authority of these two files, made on first use. The key file is 0600 or refused.

        Raises `AuthorityInvalid` for files that are readable by others, that do not belong together, or have expired.
        """
        if not key_path.exists() and not certificate_path.exists():
            authority = cls.create()
            _write_private(
                key_path,
                authority.key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
            certificate_path.write_bytes(authority.pem)
            return authority
        return cls._load(key_path, certificate_path)

    @classmethod
    def _load(cls, key_path: Path, certificate_path: Path) -> "Authority":
        try:
            mode = os.lstat(key_path).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise AuthorityInvalid(f"{key_path}: readable by others; run: chmod 600 {key_path}")
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise AuthorityInvalid(
                f"{key_path}, {certificate_path}: cannot be read ({type(error).__name__}); "
                "restore both from a backup, or remove both to make a new authority"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise AuthorityInvalid(f"{certificate_path} does not belong to {key_path}; restore both from one backup")
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            raise AuthorityInvalid(f"{certificate_path}: expired; remove it and {key_path} to make a new authority")
        return cls(certificate, key)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class Certificates:
    """TLS contexts for the names agents connect to; each minted once and kept while it is fresh."""

    def __init__(self, authority: Authority, *, capacity: int = 2048) -> None:
        self._authority = authority
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._capacity = capacity
        self._contexts: OrderedDict[tuple[str, str], tuple[datetime, SSL.Context]] = OrderedDict()
        """By tenant and host: a certificate's age must not tell one tenant when another first called a host."""
        self.minted = 0
        """Certificates signed since start."""

    def knows(self, tenant: str, host: str) -> bool:
        """True if `context(tenant, host)` costs no signature."""
        return (tenant, host) in self._contexts

    def context(self, tenant: str, host: str) -> SSL.Context:
        """The server-side TLS context for a tenant's connections to a normalised host name or IP literal."""
        now = datetime.now(UTC)
        key = (tenant, host)
        cached = self._contexts.get(key)
        if cached is not None and cached[0] > now:
            self._contexts.move_to_end(key)
            return cached[1]
        context = self._new_context(self._mint(host, now))
        self._contexts[key] = (now + timedelta(days=LEAF_DAYS - 1), context)
        self._contexts.move_to_end(key)
        while len(self._contexts) > self._capacity:
            self._contexts.popitem(last=False)
        return context

    def _mint(self, host: str, now: datetime) -> x509.Certificate:
        self.minted += 1
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        authority = self._authority
        identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return (
            x509.CertificateBuilder()
            # RFC 5280 4.2.1.6: with an empty subject the alternative name is critical; a common name is bounded to
            # 64 characters and nobody reads it any more.
            .subject_name(x509.Name([]))
            .issuer_name(authority.certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(now + timedelta(days=LEAF_DAYS), authority.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False)
            .sign(authority.key, hashes.SHA256())
        )

    def _new_context(self, leaf: x509.Certificate) -> SSL.Context:
        # Not mitmproxy's create_client_proxy_context: that one writes TLS secrets to a file when SSLKEYLOGFILE is set
        # in the environment, and nobody who can set a variable shall read the traffic.
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_verify(SSL.VERIFY_NONE)
        context.use_certificate(leaf)
        context.use_privatekey(self._leaf_key)
        context.add_extra_chain_cert(self._authority.certificate)
        context.set_alpn_select_callback(_select_http11)
        return context


def _select_http11(_connection: SSL.Connection, offers: list[bytes]) -> "bytes | SSL._NoOverlappingProtocols":
    """HTTP/1.1 or nothing: every downgrade from HTTP/2 is a chance for two parsers to disagree."""
    if b"http/1.1" in offers:
        return b"http/1.1"
    return SSL.NO_OVERLAPPING_PROTOCOLS
