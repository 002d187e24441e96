"""Ways out of where an agent runs, and how each is tried: one address, one packet or connection, one outcome.

A target is written `KIND/HOST:PORT`; HOST is an address, because looking up a name is itself a way out (kind `name`).
`open` is said only of what was shown: a connection that stands, a datagram that was answered.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final


class Outcome(StrEnum):
    """What trying a way has shown."""

    OPEN = "open"
    """Somebody out there answered."""
    CLOSED = "closed"
    """The system refused to send, or knows no way there."""
    UNCLEAR = "unclear"
    """Neither was shown."""
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, and how."""

    kind: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}/{host}:{self.port}" if self.port else f"{self.kind}/{self.host}"


@dataclass(frozen=True, slots=True)
class Way:
    """One way and what trying it has shown."""

    kind: str
    target: str
    outcome: Outcome
    text: str


PUBLIC: Final = (
    # Anycast resolvers that answer on all of these ports, so that silence means something.
    "tcp/1.1.1.1:443",
    "tcp/[2606:4700:4700::1111]:443",
    "tcp/8.8.8.8:443",
    "tcp/[2001:4860:4860::8888]:443",
    "tcp/1.1.1.1:80",
    "tcp/[2606:4700:4700::1111]:80",
    # GitHub's SSH.
    "tcp/140.82.121.4:22",
    "dns/1.1.1.1:53",
    "dns/8.8.8.8:53",
    "dns/[2606:4700:4700::1111]:53",
    "dns-tcp/1.1.1.1:53",
    "dns-tcp/8.8.8.8:53",
    "tcp/1.1.1.1:853",
    "tcp/[2606:4700:4700::1111]:853",
    "doh/1.1.1.1:443",
    "doh/8.8.8.8:443",
    "quic/1.1.1.1:443",
    "quic/[2606:4700:4700::1111]:443",
    "icmp/1.1.1.1",
    "icmp/2606:4700:4700::1111",
    # Metadata services, which hand out credentials: AWS, GCP, Azure, Oracle; ECS; AWS on IPv6; Alibaba; Azure.
    "tcp/169.254.169.254:80",
    "tcp/169.254.170.2:80",
    "tcp/[fd00:ec2::254]:80",
    "tcp/100.100.100.200:80",
    "tcp/168.63.129.16:80",
    # Whatever the machine's own resolving can be told to carry.
    "name/example.com",
)
"""Tried by default, besides what the machine names itself: resolvers, gateways, listeners, sockets."""


def parse_target(text: str) -> Target:
    """The target written as `[KIND/]HOST:PORT`, kind `tcp` by default. Raises ValueError that says what is wrong."""
    kind, slash, rest = text.partition("/")
    if not slash:
        kind, rest = "tcp", text
    if kind not in KINDS:
        raise ValueError(f"{text}: there is no kind {kind}; there are {', '.join(KINDS)}")
    if kind == "name":
        if not rest:
            raise ValueError(f"{text}: names nothing")
        return Target(kind, rest)
    if kind == "icmp":
        return Target(kind, _address(text, rest))
    host, _, port = rest.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text}: write HOST:PORT, for IPv6 [HOST]:PORT")
    return Target(kind, _address(text, host.removeprefix("[").removesuffix("]")), int(port))


def _address(text: str, host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError(f"{text}: write an IP address; a name's lookup is a way of its own (name/HOST)") from None


async def try_way(target: Target, seconds: float) -> Way:
    """The way was tried for at most so long. Raises nothing for what it finds."""
    try:
        async with asyncio.timeout(seconds):
            outcome, text = await KINDS[target.kind](target)
    except TimeoutError:
        outcome, text = Outcome.UNCLEAR, f"no answer in {seconds:g} s: a filter, or silence"
    except OSError as error:
        outcome, text = read_error(error)
    return Way(target.kind, str(target).partition("/")[2], outcome, text)


CLOSED_ERRORS: Final = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "unreachable, or a filter says so",
    errno.EADDRNOTAVAIL: "no address here to send from",
    errno.ENETDOWN: "the network is down",
    errno.EPERM: "not permitted",
    errno.EACCES: "not permitted",
    errno.EAFNOSUPPORT: "no such family of addresses here",
    errno.EPROTONOSUPPORT: "no such protocol here",
}


def read_error(error: OSError) -> tuple[Outcome, str]:
    """What a failed attempt has shown."""
    if error.errno in CLOSED_ERRORS:
        return Outcome.CLOSED, CLOSED_ERRORS[error.errno]
    if error.errno == errno.ECONNREFUSED:
        # The answer of a host with nothing there, so packets get out; and of a filter that rejects, so they do not.
        return Outcome.UNCLEAR, "refused: by a filter, or by the host itself, which can be reached then"
    return Outcome.UNCLEAR, error.strerror or str(error) or type(error).__name__


# How each kind is tried


async def _connected(target: Target, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, "_Writer"]:
    reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context)
    return reader, _Writer(writer)


class _Writer:
    """Aborted at the end of the block: nothing is owed to whoever answers."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    def __enter__(self) -> asyncio.StreamWriter:
        return self.writer

    def __exit__(self, *_: object) -> None:
        self.writer.transport.abort()


async def _tcp(target: Target) -> tuple[Outcome, str]:
    _, writer = await _connected(target)
    with writer:
        return Outcome.OPEN, "connected"


QUESTION: Final = b"\x07example\x03com\x00\x00\x01\x00\x01"
"""example.com, A, IN (RFC 1035 section 4.1.2)."""


def _query(identifier: bytes) -> bytes:
    # RFC 1035 section 4.1.1: recursion desired, one question.
    return identifier + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + QUESTION


async def _dns_tcp(target: Target) -> tuple[Outcome, str]:
    reader, writer = await _connected(target)
    with writer as out:
        query = _query(os.urandom(2))
        out.write(struct.pack("!H", len(query)) + query)
        answer = await reader.read(2)
        return Outcome.OPEN, "a query was answered" if answer else "connected"


async def _doh(target: Target) -> tuple[Outcome, str]:
    context = ssl.create_default_context()
    # Whether somebody answers is the question, not who.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        reader, writer = await _connected(target, context)
    except ssl.SSLError:
        return Outcome.OPEN, "connected; what answers speaks no TLS"
    with writer as out:
        out.write(b"GET /dns-query HTTP/1.1\r\nHost: dns\r\nConnection: close\r\n\r\n")
        return Outcome.OPEN, "answers in HTTP over TLS" if await reader.read(5) == b"HTTP/" else "TLS stands"


class _Answers(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        if not self.first.done():
            self.first.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.first.done():
            self.first.set_exception(error)


async def _ask(target: Target, packet: bytes) -> bytes:
    transport, answers = await asyncio.get_running_loop().create_datagram_endpoint(
        _Answers, remote_addr=(target.host, target.port)
    )
    with contextlib.closing(transport):
        transport.sendto(packet)
        return await answers.first


async def _dns(target: Target) -> tuple[Outcome, str]:
    await _ask(target, _query(os.urandom(2)))
    return Outcome.OPEN, "a query was answered"


async def _udp(target: Target) -> tuple[Outcome, str]:
    await _ask(target, b"exeat\n")
    return Outcome.OPEN, "a datagram was answered"


async def _quic(target: Target) -> tuple[Outcome, str]:
    # RFC 9000 section 6.3: a version of the form 0x?a?a?a?a forces a negotiation; 14.1: 1,200 bytes, or it is ignored.
    head = b"\xc0\x1a\x2a\x3a\x4a\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    await _ask(target, head.ljust(1200, b"\x00"))
    return Outcome.OPEN, "a QUIC packet was answered"


async def _icmp(target: Target) -> tuple[Outcome, str]:
    six = ":" in target.host
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
    loop = asyncio.get_running_loop()
    try:
        ping = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        return Outcome.CLOSED, "this process may not open such a socket (net.ipv4.ping_group_range)"
    with ping:
        ping.setblocking(False)
        ping.connect((target.host, 0))
        # RFC 792, RFC 4443 section 4.1: echo request; the kernel fills in identifier and checksum.
        await loop.sock_sendall(ping, bytes([128 if six else 8]) + bytes(5) + b"\x00\x01" + b"exeat")
        await loop.sock_recv(ping, 1500)
    return Outcome.OPEN, "an echo came back"


async def _name(target: Target) -> tuple[Outcome, str]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[tuple[Outcome, str]] = loop.create_future()

    def tell(result: tuple[Outcome, str]) -> None:
        if not found.done():
            found.set_result(result)

    def resolve() -> None:
        try:
            address = socket.getaddrinfo(target.host, 443, type=socket.SOCK_STREAM)[0][4][0]
            result = (Outcome.OPEN, f"resolves to {address}")
        except socket.gaierror as error:
            nobody = error.errno != socket.EAI_NONAME
            result = (Outcome.CLOSED if nobody else Outcome.UNCLEAR, (error.strerror or "no answer").lower())
        with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(tell, result)

    # A daemon, because the library's lookup cannot be cancelled and must not outlive the answer.
    threading.Thread(target=resolve, daemon=True).start()
    return await found


async def _unix(path: str, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, path)


async def try_socket(path: str, seconds: float, kind: int = socket.SOCK_STREAM) -> tuple[Outcome, str]:
    """Whether a Unix socket can be connected to; nothing is said to it. `path` of an abstract one begins with NUL."""
    try:
        async with asyncio.timeout(seconds):
            await _unix(path, kind)
    except TimeoutError:
        return Outcome.OPEN, "it is there and busy"
    except OSError as error:
        # A backlog that is full (EAGAIN) is somebody who can be reached, later.
        if error.errno == errno.EAGAIN:
            return Outcome.OPEN, "it is there and busy"
        return Outcome.CLOSED, os.strerror(error.errno or 0).lower()
    return Outcome.OPEN, "connected"


KINDS: Final[dict[str, Callable[[Target], Awaitable[tuple[Outcome, str]]]]] = {
    "tcp": _tcp,
    "udp": _udp,
    "dns": _dns,
    "dns-tcp": _dns_tcp,
    "doh": _doh,
    "quic": _quic,
    "icmp": _icmp,
    "name": _name,
}
"""By the word that a target begins with."""
