"""The interception authority: a P-256 key, the certificate agents trust, and the names it may vouch for.

Key and certificate lie in one file, so that whoever replaces the file has replaced both; the certificate alone lies
beside it for agents.
"""

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from credentials.keyfile import KeyFileRefused, create_key_file, read_key_file

AUTHORITY_DAYS: Final = 365
BACKDATE: Final = timedelta(hours=1)
"""For agents whose clocks run behind."""
MAX_CERTIFICATE_BYTES: Final = 8 * 1024
"""Of DER. Every TLS handshake carries it; about 200 names of usual length fit."""
_EVERYWHERE: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class AuthorityInvalid(Exception):
    """The authority's files cannot be used; the message says which and how to mend it. Refuse to start."""


class TooManyNames(Exception):
    """The names do not fit into a certificate; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """Names that a constrained authority may vouch for (RFC 5280 4.2.1.10)."""

    domains: tuple[str, ...]
    """Each with everything below it: the RFC knows no exact name."""
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Permitted":
        """The smallest set that covers these host names, domains and IP literals."""
        domains: set[str] = set()
        networks: set[IPv4Network | IPv6Network] = set()
        for name in names:
            try:
                networks.add(ipaddress.ip_network(name))
            except ValueError:
                domains.add(name)
        kept = {name for name in domains if not any(_below(name, other) for other in domains if other != name)}
        return cls(tuple(sorted(kept)), tuple(sorted(networks, key=str)))

    def admits(self, host: str) -> bool:
        """True for a normalised host that the authority may vouch for."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return any(_below(host, domain) for domain in self.domains)
        return any(address in network for network in self.networks)

    def extension(self) -> x509.NameConstraints:
        """As X.509. A kind of address of which none is permitted is excluded: a missing kind would be unbounded."""
        versions = {network.version for network in self.networks}
        excluded = [x509.IPAddress(network) for network in _EVERYWHERE if network.version not in versions]
        permitted: list[x509.GeneralName] = [x509.DNSName(domain) for domain in self.domains]
        permitted += [x509.IPAddress(network) for network in self.networks]
        return x509.NameConstraints(permitted or None, excluded or None)

    @classmethod
    def from_extension(cls, constraints: x509.NameConstraints) -> "Permitted":
        """What `extension` wrote."""
        subtrees = constraints.permitted_subtrees or ()
        return cls(
            tuple(str(name.value) for name in subtrees if isinstance(name, x509.DNSName)),
            tuple(name.value for name in subtrees if isinstance(name, x509.IPAddress)),  # type: ignore[misc]
        )

    def __str__(self) -> str:
        return ", ".join([*self.domains, *(str(network) for network in self.networks)])


def _below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority that agents are told to trust."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate alone, for agents' bundles. Holds no key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def permitted(self) -> Permitted | None:
        """The names it may vouch for; None when it may for all."""
        return permitted_by(self.certificate)

    @property
    def made_at(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + BACKDATE

    @property
    def expires_at(self) -> datetime:
        """When clients stop trusting it."""
        return self.certificate.not_valid_after_utc

    @classmethod
    def create(
        cls, name: str = "Exeat interception", *, permitted: Permitted | None = None, days: float = AUTHORITY_DAYS
    ) -> "Authority":
        """A new P-256 authority, valid for a year. Raises `TooManyNames`."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Exeat"),
                # Two authorities in one bundle must not share a subject: some clients try the first of a name only.
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {secrets.token_hex(4)}"),
            ]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=days))
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
        )
        if permitted is not None:
            # RFC 5280 4.2.1.10: conforming authorities mark it critical, so that no client overlooks it.
            builder = builder.add_extension(permitted.extension(), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        if len(certificate.public_bytes(serialization.Encoding.DER)) > MAX_CERTIFICATE_BYTES:
            raise TooManyNames(
                "the names do not fit into one certificate; name domains that cover them: --permit DOMAIN"
            )
        return cls(certificate, key)

    def save_new(self, path: Path) -> None:
        """Key and certificate are durable in a new file, mode 0600. Raises `FileExistsError`."""
        create_key_file(path, self.to_pem())

    def to_pem(self) -> bytes:
        """Key and certificate: a secret."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + self.pem

    @classmethod
    def from_pem(cls, raw: bytes) -> "Authority":
        """What `to_pem` wrote. Raises `AuthorityInvalid`."""
        try:
            key = serialization.load_pem_private_key(raw, None)
            certificate = x509.load_pem_x509_certificate(raw)
        except (ValueError, TypeError) as error:
            raise AuthorityInvalid(f"not an authority ({type(error).__name__})") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise AuthorityInvalid("certificate and key do not belong together")
        return cls(certificate, key)

    @classmethod
    def load(cls, path: Path, certificate_path: Path | None = None) -> "Authority":
        """The authority of a file; its certificate may lie in another one, as earlier versions wrote it.

        Raises `AuthorityInvalid` for a file that others can read, or that does not hold what belongs together. An
        expired authority is loaded.
        """
        try:
            raw = read_key_file(path)
        except KeyFileRefused as refused:
            raise AuthorityInvalid(str(refused)) from refused
        try:
            key = serialization.load_pem_private_key(raw, None)
            if b"BEGIN CERTIFICATE" not in raw and certificate_path is not None:
                raw = certificate_path.read_bytes()
            certificate = x509.load_pem_x509_certificate(raw)
        except (OSError, ValueError, TypeError) as error:
            raise AuthorityInvalid(
                f"{path}: cannot be read ({type(error).__name__}); restore the folder from a backup, or remove "
                f"{' and '.join(str(p) for p in (path, certificate_path) if p is not None)} to make a new authority"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
            raise AuthorityInvalid(f"{path}: certificate and key do not belong together; restore them from one backup")
        return cls(certificate, key)

    @classmethod
    def load_or_create(cls, path: Path, certificate_path: Path) -> "Authority":
        """The authority of these files, made on first use. Raises `AuthorityInvalid` as `load` does."""
        if not path.exists() and not certificate_path.exists():
            authority = cls.create()
            authority.save_new(path)
            return authority
        return cls.load(path, certificate_path)


def permitted_by(certificate: x509.Certificate) -> Permitted | None:
    """The names that the certificate's constraints permit; None when it has none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return None
    return Permitted.from_extension(found.value)
