"""A door to rehearse at: it answers every host itself, dials nobody, and remembers how far each client got.

A client under test gets the same variables as in `exeat run`, with this in the place of the relay and with an authority
that lives as long as the rehearsal. So it needs no process, no policy and no credential, and a call that works here has
reached nobody.
"""

import contextlib
import secrets
import socket
import socketserver
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.relay_head import MAX_HEAD_BYTES, Form, HeadRefused, RelayHead, parse_relay_head
from control.relay_password import PasswordMissing, PasswordWrong, without_password

ACCOUNT = "rehearsal"
SECONDS = 10.0
"""How long a client may pause."""
_BODY = b'{"code": "rehearsal", "error": {"type": "rehearsal", "message": "a rehearsal: nothing was called"}}\n'
_ANSWER = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nExeat-Code: rehearsal\r\nX-Should-Retry: false\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Seen(StrEnum):
    """How far one connection of a client got."""

    ASKED = "asked"
    """Its request was read: it obeys the proxy and trusts the authority, or used the base URL."""
    UNTRUSTED = "untrusted"
    """It ended the handshake, most often with an alert about the certificate."""
    SILENT = "silent"
    """It finished the handshake and then left without a word: it looked at the certificate again and disliked it."""
    HTTP2 = "http2"
    CHALLENGED = "challenged"
    """It came without the password of the proxy's URL."""
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection that a client made."""

    host: str
    seen: Seen
    detail: str = ""


class Rehearsal:
    """The door, on loopback; use it as a context manager. `folder`: of its own, for certificates."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_urlsafe(32)
        self._folder = folder
        self._visits: list[Visit] = []
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority = _certificate("Exeat rehearsal", self._key, self._key, None)
        door = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    door._meet(self.request)

        class Server(socketserver.ThreadingTCPServer):
            # Left by `server_close`, so that a client that has ended has been seen to its end.
            daemon_threads = False
            block_on_close = True

        self._server = Server(("127.0.0.1", 0), Handler)

    @property
    def port(self) -> int:
        """The listening port."""
        return int(self._server.server_address[1])

    @property
    def authority_pem(self) -> str:
        """What a client has to trust."""
        return self._authority.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self) -> tuple[Visit, ...]:
        """What was seen; all of it once the rehearsal is over."""
        with self._lock:
            visits, self._visits = tuple(self._visits), []
        return visits

    def _note(self, host: str, seen: Seen, detail: str = "") -> None:
        with self._lock:
            self._visits.append(Visit(host, seen, detail))

    def _meet(self, client: socket.socket) -> None:
        client.settimeout(SECONDS)
        head = self._head(client)
        if head is None:
            return
        if head.form is not Form.TUNNEL:
            self._note(head.target.decode("ascii"), Seen.ASKED)
            client.sendall(_ANSWER)
            return
        client.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        host = head.target.rpartition(b":")[0].decode("ascii").strip("[]")
        if host in ("127.0.0.1", "localhost"):  # the base URL, through a client that tunnels plain http as well
            if (inner := self._head(client)) is not None:
                self._note(inner.target.decode("ascii"), Seen.ASKED)
                client.sendall(_ANSWER)
            return
        try:
            secured = self._context(host).wrap_socket(client, server_side=True)
        except (ssl.SSLError, OSError) as error:
            self._note(host, Seen.UNTRUSTED, getattr(error, "reason", None) or "it hung up in the handshake")
            return
        with secured:
            self._inside(host, secured)

    def _inside(self, host: str, secured: ssl.SSLSocket) -> None:
        """(TLS 1.3) The server is done before the client has judged: its alert may come only now."""
        try:
            first = secured.recv(MAX_HEAD_BYTES)
        except ssl.SSLError as error:
            self._note(host, Seen.UNTRUSTED, error.reason or "it hung up after the handshake")
            return
        except OSError:
            # Reset without an alert: it closed with our session tickets unread, so it had finished the handshake.
            first = b""
        if not first:
            self._note(host, Seen.SILENT)
        elif first.startswith(b"PRI * HTTP/2"):
            self._note(host, Seen.HTTP2)
        else:
            self._note(host, Seen.ASKED)
            secured.sendall(_ANSWER)

    def _head(self, client: socket.socket) -> RelayHead | None:
        """A head with the password, which has been taken out; None after the client was refused or has left."""
        raw = b""
        while True:
            while b"\r\n\r\n" not in raw:
                data = client.recv(4096)
                if not data or len(raw) > MAX_HEAD_BYTES:
                    return None
                raw += data
            own = tuple(f"{name}:{self.port}".encode() for name in ("127.0.0.1", "localhost"))
            try:
                head = parse_relay_head(raw.partition(b"\r\n\r\n")[0])
                return without_password(head, ACCOUNT.encode(), self.password.encode(), own)
            except (PasswordMissing, PasswordWrong):
                self._note("", Seen.CHALLENGED)
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=rehearsal\r\n"
                    b"Content-Length: 0\r\n\r\n"
                )
                raw = b""
            except HeadRefused as refused:
                self._note("", Seen.MALFORMED, str(refused))
                return None

    def _context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                key = ec.generate_private_key(ec.SECP256R1())
                leaf = _certificate(host, key, self._key, self._authority)
                path = self._folder / f"leaf-{len(self._contexts)}.pem"
                secret = key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
                path.touch(mode=0o600)
                path.write_bytes(secret + leaf.public_bytes(serialization.Encoding.PEM))
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(path)
                context.set_alpn_protocols(["http/1.1"])
                path.unlink()
                self._contexts[host] = context
            return self._contexts[host]


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None
) -> x509.Certificate:
    """An authority without an issuer, else a leaf for the host. Good for a day around now."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        # RFC 5280 section 4.2.1.3; Python 3.13 verifies strictly and wants an authority's.
        .add_extension(_usage(signs=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(signer, hashes.SHA256())
