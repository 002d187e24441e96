"""The leaf certificates that the interception authority signs for the names agents ask for.

The authority's key signs leaves and nothing else; the TLS handshakes use another key, so that the key that could
impersonate every host is touched once a host and not once a connection.
"""

import ipaddress
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from proxy.engine.authority import BACKDATE, Authority

LEAF_DAYS: Final = 7
"""Short: a leaf is minted again when it is needed, and nobody has to revoke one."""
_RENEW_BEFORE: Final = timedelta(days=1)
_OWN: Final = ""
"""No tenant has this name: the contexts of the gate's own certificate."""


class Certificates:
    """TLS contexts for the names agents connect to; each minted once and kept while it is fresh."""

    def __init__(self, authority: Authority, *, capacity: int = 2048) -> None:
        self._authority = authority
        self._permitted = authority.permitted
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._capacity = capacity
        self._contexts: OrderedDict[tuple[str, str], tuple[datetime, SSL.Context]] = OrderedDict()
        """By tenant and host: a certificate's age must not tell one tenant when another first called a host."""
        self.minted = 0
        """Certificates signed since start."""

    def sign_with(self, authority: Authority) -> None:
        """Every certificate from now on is another authority's; those in use end with their connections."""
        self._authority = authority
        self._permitted = authority.permitted
        self._contexts.clear()

    def may_vouch(self, host: str) -> bool:
        """False for a host outside the authority's name constraints: agents would refuse its certificate."""
        return self._permitted is None or self._permitted.admits(host)

    def knows(self, tenant: str, host: str) -> bool:
        """True if `context(tenant, host)` costs no signature."""
        return (tenant, host) in self._contexts

    def context(self, tenant: str, host: str) -> SSL.Context:
        """The server-side TLS context for a tenant's connections to a normalised host name or IP literal."""
        return self._fresh((tenant, host), (host,))

    def own_context(self, names: tuple[str, ...]) -> SSL.Context:
        """The server-side TLS context of the gate itself, for all names and addresses under which it is reached."""
        return self._fresh((_OWN, " ".join(names)), names)

    def _fresh(self, key: tuple[str, str], names: tuple[str, ...]) -> SSL.Context:
        now = datetime.now(UTC)
        cached = self._contexts.get(key)
        if cached is not None and cached[0] > now:
            self._contexts.move_to_end(key)
            return cached[1]
        leaf = self._mint(names, now)
        context = server_context(leaf, self._leaf_key, (self._authority.certificate,))
        ends = leaf.not_valid_after_utc
        # A leaf that ends with its authority, within the day, is used for half of what is left: not minted each time.
        self._contexts[key] = (max(ends - _RENEW_BEFORE, now + (ends - now) / 2), context)
        self._contexts.move_to_end(key)
        while len(self._contexts) > self._capacity:
            self._contexts.popitem(last=False)
        return context

    def _mint(self, names: tuple[str, ...], now: datetime) -> x509.Certificate:
        self.minted += 1
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
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._leaf_key.public_key()), critical=False)
            .sign(authority.key, hashes.SHA256())
        )


def server_context(
    leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, chain: tuple[x509.Certificate, ...]
) -> SSL.Context:
    """A server's context with this certificate: TLS 1.2 or later, no renegotiation, HTTP/1.1 only."""
    # Not mitmproxy's create_client_proxy_context: that one writes TLS secrets to a file when SSLKEYLOGFILE is set
    # in the environment, and nobody who can set a variable shall read the traffic.
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_NONE)
    context.use_certificate(leaf)
    context.use_privatekey(key)
    for certificate in chain:
        context.add_extra_chain_cert(certificate)
    context.set_alpn_select_callback(_select_http11)
    return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _select_http11(_connection: SSL.Connection, offers: list[bytes]) -> "bytes | SSL._NoOverlappingProtocols":
    """HTTP/1.1 or nothing: every downgrade from HTTP/2 is a chance for two parsers to disagree."""
    if b"http/1.1" in offers:
        return b"http/1.1"
    return SSL.NO_OVERLAPPING_PROTOCOLS
