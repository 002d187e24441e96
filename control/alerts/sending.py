"""One alert to one destination, once. Whatever is at the other end: it ends in time, and reads little of it.

Addresses are vetted and peers verified as for calls (`proxy.egress`). Redirects are not followed: an answer that is not
2xx is a failure. Of an answer the head is read, which is bounded, and nothing else.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control.alerts.alert import Alert, Severity
from control.alerts.signature import signature
from control.alerts.syslog import counted, syslog_message
from credentials.secret import Secret
from proxy.egress.denied_keys import KeyDenied, verify_keys
from proxy.egress.dialling import Dialler
from proxy.egress.errors import UpstreamError
from proxy.egress.resolver import Resolver
from proxy.egress.route import PoolLimits, Route
from proxy.http.limits import HttpLimits
from rules.alerts.destination import SLACK, SYSLOG, AlertDestination
from rules.alerts.secrets import AlertSecretUnusable, HookAddress, hook_address, signing_key

logger = logging.getLogger("exeat.alert")

LIMITS: Final = PoolLimits(connect_timeout_seconds=5.0, handshake_timeout_seconds=5.0, head_timeout_seconds=10.0)
WHOLE_SECONDS: Final = 15.0
"""For everything together. Standard Webhooks: 15 to 30 s."""
GOODBYE_SECONDS: Final = 2.0
"""A syslog receiver says nothing; so long it may take to say that it refuses."""
USER_AGENT: Final = b"exeat-alerts"

type SecretOf = Callable[[str, str], tuple[Secret, int] | None]
"""By tenant and name: the secret and its version."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one attempt."""

    ok: bool
    told: str
    """For people and records: no secret, and nothing that the other end has written."""


class Sender:
    """Sends on one event loop; make it there, and `close` it there."""

    def __init__(self, secret_of: SecretOf, own_listeners: Callable[[], frozenset[tuple[str, int]]]) -> None:
        self._secret_of = secret_of
        self._own_listeners = own_listeners
        self._resolver = Resolver(threads=2)

    def close(self) -> None:
        """No look-up starts any more."""
        self._resolver.close()

    async def send(self, destination: AlertDestination, alert: Alert) -> Sent:
        """What became of it. Raises nothing but cancellation."""
        try:
            async with asyncio.timeout(WHOLE_SECONDS):
                if destination.kind == SYSLOG:
                    return await self._syslog(destination, alert)
                return await self._hook(destination, alert)
        except AlertSecretUnusable as error:
            return Sent(False, str(error))
        except UpstreamError as error:
            # Of a hook whose address is secret not even the host is said.
            return Sent(False, error.detail if destination.kind == SLACK else error.operator_detail)
        except TimeoutError:
            return Sent(False, f"no answer within {WHOLE_SECONDS:.0f} s")
        except KeyDenied:
            return Sent(False, "the receiver's chain is over a denied key")
        except ssl.SSLCertVerificationError as error:
            return Sent(False, f"the receiver's certificate does not verify: {error.verify_message}")
        except ssl.SSLError:
            return Sent(False, "the receiver broke TLS")
        except OSError as error:
            return Sent(False, f"the connection broke: {error.strerror or type(error).__name__}")

    def _dialler(self) -> Dialler:
        return Dialler(self._resolver, LIMITS, HttpLimits(), self._own_listeners())

    def _secret(self, destination: AlertDestination, name: str) -> Secret:
        found = self._secret_of(destination.tenant, name)
        if found is None:
            raise AlertSecretUnusable(f"the secret {name} is not set: exeat secret set {name}")
        return found[0]

    async def _hook(self, destination: AlertDestination, alert: Alert) -> Sent:
        signed: tuple[tuple[bytes, bytes], ...] = ()
        if destination.kind == SLACK:
            address = hook_address(self._secret(destination, destination.secrets[0]))
            body = alert.slack()
        else:
            address = HookAddress(destination.host, destination.port, destination.path)
            body, now = alert.json(), int(time.time())
            keys = [signing_key(self._secret(destination, name)) for name in destination.secrets]
            signed = (
                (b"webhook-id", alert.id.encode("ascii")),
                (b"webhook-timestamp", b"%d" % now),
                (b"webhook-signature", signature(keys, alert.id, now, body).encode("ascii")),
            )
        host = f"[{address.host}]" if ":" in address.host else address.host
        standard = 443 if destination.transport == "https" else 80
        head = [
            b"POST %b HTTP/1.1" % address.path.encode("ascii"),
            b"host: %b" % (host if address.port == standard else f"{host}:{address.port}").encode("ascii"),
            b"user-agent: " + USER_AGENT,
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            *(b"%b: %b" % field for field in signed),
            b"connection: close",
        ]
        upstream = await self._dialler().open(_route(destination, address.host, address.port))
        try:
            upstream.begin("POST")
            upstream.write(b"\r\n".join(head) + b"\r\n\r\n" + body, last=True)
            status = (await upstream.next_head()).status
        finally:
            upstream.abort()
        return Sent(200 <= status < 300, f"HTTP {status}")

    async def _syslog(self, destination: AlertDestination, alert: Alert) -> Sent:
        message = syslog_message(alert, os.getpid())
        route = _route(destination, destination.host, destination.port)
        dialler = self._dialler()
        if destination.transport == "udp":
            addresses, port = await dialler.vetted(route)
            family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect((addresses[0], port))
                sock.send(message)
            return Sent(True, "sent as a datagram; whether it came nobody says")
        tls = destination.transport == "tls"
        context = dialler.contexts.get(route.ca_pem, ca_added=route.ca_added) if tls else None
        sock = await dialler.connect(route)
        try:
            # Given TLS, asyncio owns the socket from here on, also when the handshake fails.
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=context,
                server_hostname=route.host if tls else None,
                ssl_handshake_timeout=LIMITS.handshake_timeout_seconds if tls else None,
                ssl_shutdown_timeout=GOODBYE_SECONDS if tls else None,
            )
        except BaseException:  # also cancellation: the socket must not outlive it
            sock.close()
            raise
        try:
            if tls:
                verify_keys(writer.get_extra_info("ssl_object"), route.denied_keys)
            writer.write(counted(message))
            await writer.drain()
            # It answers nothing. One that refuses breaks the connection, and that is seen here.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    if tls:
                        writer.close()
                        await writer.wait_closed()
                    else:
                        writer.write_eof()
                        await reader.read(1)
        finally:
            writer.transport.abort()
        return Sent(True, "taken by the connection; syslog confirms nothing")


def log(alert: Alert) -> None:
    """The alert stands in the log."""
    level = {Severity.NOTICE: logging.INFO, Severity.WARNING: logging.WARNING, Severity.CRITICAL: logging.ERROR}
    logger.log(level[alert.severity], "%s %s tenant=%s: %s", alert.id, alert.kind, alert.tenant, alert.text)


def _route(destination: AlertDestination, host: str, port: int) -> Route:
    dial = None if destination.dial is None else (destination.dial[0], destination.dial[1] or port)
    return Route(
        tenant=destination.tenant,
        connection=f"alerts/{destination.name}",
        secret_version=0,
        scheme="https" if destination.transport == "https" else "http",
        host=host,
        port=port,
        dial=dial,
        networks=destination.networks,
        ca_pem=destination.ca_pem,
        ca_added=destination.ca_added,
        denied_keys=destination.denied_keys,
    )
