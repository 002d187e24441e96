"""TLS to origins: who is trusted, and a session over memory instead of a socket.

Python's own asyncio TLS hides whether the peer said goodbye, and costs twice as much an exchange; this is the small
part of it that one client connection needs.
"""

import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Set as AbstractSet
from functools import cache

import certifi

from proxy.egress.denied_keys import verify_keys
from proxy.egress.errors import UpstreamUntrusted


class TlsContexts:
    """One client context for each set of trust anchors, made once. Bounded: the least recently used one goes."""

    def __init__(self, max_contexts: int = 256) -> None:
        self._max = max_contexts
        self._contexts: OrderedDict[tuple[str, bool], ssl.SSLContext] = OrderedDict()

    def get(self, ca_pem: str | None, *, ca_added: bool = False) -> ssl.SSLContext:
        """The context that trusts `ca_pem` alone, or beside the certifi bundle where it is `ca_added`; for None the
        bundle. Raises UpstreamUntrusted."""
        if ca_pem is None:
            return public_context()
        key = (ca_pem, ca_added)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _client_context(ca_pem, public=ca_added)
            if len(self._contexts) > self._max:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return context


@cache
def public_context() -> ssl.SSLContext:
    """The context that trusts the certifi bundle; one for the process, because reading it takes 60 ms."""
    return _client_context(None, public=True)


def _client_context(ca_pem: str | None, *, public: bool) -> ssl.SSLContext:
    # PROTOCOL_TLS_CLIENT verifies chain and name. Not create_default_context: that one obeys SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 deprecates what is older
    # Sessions are never resumed: a ticket would carry state from one connection to another.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.hostname_checks_common_name = False  # RFC 9525 section 2: names stand in subjectAltName alone
    context.set_alpn_protocols(["http/1.1"])
    try:
        if public:
            context.load_verify_locations(cafile=certifi.where())
        if ca_pem is not None:
            context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise UpstreamUntrusted(
            "the connection's own authority cannot be read", f"CA file of the connection: {error}"
        ) from None
    return context


class TlsSession:
    """One TLS client session over two memory buffers. What `outgoing()` returns has to be sent after every call."""

    __slots__ = ("_denied", "_in", "_object", "_out", "established")

    def __init__(
        self, context: ssl.SSLContext, server_hostname: str, denied_keys: AbstractSet[str] = frozenset()
    ) -> None:
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        self._denied = denied_keys
        self.established = False

    def receive(self, data: memoryview) -> None:
        """Take ciphertext."""
        self._in.write(data)

    def handshake(self) -> bool:
        """One step; True once the session is up, the certificate verified and no key of its chain denied.

        Raises ssl.SSLError and KeyDenied; then no byte may be written.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        verify_keys(self._object, self._denied)
        self.established = True
        return True

    def read(self) -> bytes | None:
        """The next plaintext, at most a record; b"" for the peer's goodbye, None for nothing yet. Raises SSLError."""
        if not self._in.pending and not self._object.pending():
            return None
        try:
            return self._object.read(16384)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def write(self, data: bytes) -> None:
        """Encrypt all of `data`. Raises ssl.SSLError."""
        if len(data) <= 16384:
            self._object.write(data)
            return
        view = memoryview(data)
        while view:  # a write takes one record
            view = view[self._object.write(view) :]

    def outgoing(self) -> bytes:
        """Ciphertext to send; often empty."""
        return self._out.read() if self._out.pending else b""

    def goodbye(self) -> bytes:
        """The close_notify to send before the connection is closed in order."""
        with contextlib.suppress(ssl.SSLError):  # the peer's answer is not waited for
            self._object.unwrap()
        return self.outgoing()
