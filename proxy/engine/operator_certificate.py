"""A certificate that the operator brings for the TLS listeners, in place of one of our own authority."""

import ipaddress
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto

from credentials.keyfile import KeyFileRefused, read_key_file
from proxy.engine.certificates import server_context

logger = logging.getLogger("exeat.gate")

MAX_CHAIN_BYTES: Final = 256 * 1024
LOOK_SECONDS: Final = 30.0
"""How often the files are looked at: whoever renews them need not restart anything."""
_UNREADABLE: Final = (
    ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType, crypto.Error,
)  # fmt: skip
"""What parsing raises; some of it only when a part is looked at."""


class CertificateRefused(Exception):
    """The certificate cannot be used; `cure` says how to mend it."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Loaded:
    """A certificate that was looked at, with its context."""

    context: SSL.Context
    chain: tuple[x509.Certificate, ...]

    @property
    def expires_at(self) -> datetime:
        """When the first of the chain ends."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names and addresses of the leaf, without wildcards."""
        return tuple(name for name in _names(self.chain[0]) if not name.startswith("*."))

    @property
    def pem(self) -> str:
        """The chain."""
        return "".join(c.public_bytes(serialization.Encoding.PEM).decode("ascii") for c in self.chain)


def load_certificate(chain_path: Path, key_path: Path, names: tuple[str, ...]) -> Loaded:
    """The certificate for `names` with its key. Raises `CertificateRefused`."""
    try:
        raw = read_key_file(key_path)
    except KeyFileRefused as refused:
        raise CertificateRefused(f"{key_path}: {refused.problem}", refused.fix) from refused
    try:
        key = serialization.load_pem_private_key(raw, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(
            f"{key_path} is no private key in PEM that can be read without a password",
            "Convert it: openssl pkey -in FILE -out FILE.pem",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateRefused(f"{key_path} is of another kind", "Use an RSA key or one on a NIST curve (P-256).")
    try:
        with chain_path.open("rb") as file:
            chain = tuple(x509.load_pem_x509_certificates(file.read(MAX_CHAIN_BYTES)))
    except OSError as error:
        raise CertificateRefused(f"{chain_path} cannot be read: {error.strerror}", "Name a readable file.") from error
    except _UNREADABLE as error:
        raise CertificateRefused(
            f"{chain_path} holds no certificate in PEM", "It begins with -----BEGIN CERTIFICATE-----, the leaf first."
        ) from error
    try:
        return _judged(chain, key, chain_path, key_path, names)
    except _UNREADABLE as error:
        raise CertificateRefused(
            f"{chain_path} holds a certificate that cannot be read: {error}", "Have it issued anew."
        ) from error


def _judged(
    chain: tuple[x509.Certificate, ...],
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    chain_path: Path,
    key_path: Path,
    names: tuple[str, ...],
) -> Loaded:
    leaf = chain[0]
    if leaf.public_key() != key.public_key():
        raise CertificateRefused(
            f"{key_path} is not the key of the first certificate in {chain_path}",
            "Name the pair that belongs together; in the chain the leaf comes first.",
        )
    now = datetime.now(UTC)
    if leaf.not_valid_after_utc <= now or leaf.not_valid_before_utc > now:
        ended = leaf.not_valid_after_utc <= now
        when = f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}" if ended else "is not valid yet"
        raise CertificateRefused(f"{chain_path} {when}", "Renew it, or look at this machine's clock.")
    has = _names(leaf)
    if missing := [name for name in names if not any(_covers(pattern, name) for pattern in has)]:
        raise CertificateRefused(
            f"{chain_path} is not for {', '.join(missing)}",
            f"It is for {', '.join(has[:5]) or 'no name at all'}: name those with --name, or have it issued anew.",
        )
    try:
        return Loaded(server_context(leaf, key, chain[1:]), chain)
    except SSL.Error as error:
        raise CertificateRefused(f"{chain_path} cannot be used: {error}", "Use RSA of 2048 bits or more.") from error


class OperatorCertificate:
    """The operator's certificate as its files are now; a bad replacement keeps the last good one."""

    def __init__(self, chain: Path, key: Path, names: tuple[str, ...]) -> None:
        """Raises `CertificateRefused`."""
        self._chain, self._key, self._names = chain, key, names
        self._seen = self._stamp()
        self.loaded = load_certificate(chain, key, names)
        self._look_at = time.monotonic() + LOOK_SECONDS

    def context(self) -> SSL.Context:
        """For the next handshake."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.look()
        return self.loaded.context

    def look(self) -> None:
        """What lies in the files now is used, if it is good."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.loaded = load_certificate(self._chain, self._key, self._names)
        except CertificateRefused as refused:
            logger.error("the new listener's certificate is refused, the old one stays: %s. %s", refused, refused.cure)
        else:
            logger.info("the listener's certificate was renewed, until %s", self.loaded.expires_at)

    def _stamp(self) -> tuple[object, ...]:
        try:
            found = [path.stat() for path in (self._chain, self._key)]
        except OSError:
            return ()
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    return (*names, *(str(address) for address in found.get_values_for_type(x509.IPAddress)))


def _covers(pattern: str, name: str) -> bool:
    """RFC 9525 6.3: a wildcard is the whole first label, and stands for exactly one."""
    if pattern.startswith("*."):
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.partition(".")[2] == pattern[2:]
        return False
    return pattern == name
