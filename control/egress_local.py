"""What this machine itself offers a program that wants around the gate, as seen from where the program runs.

Nothing is said to what is found: a connection is made and ended.
"""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from control.egress_ways import Outcome, Target, Way, read_error, try_socket
from control.environment import MATRIX, Value
from control.remote import SOCKET_NAME
from control.separation import readable_keys

MAX_FOUND: Final = 200
"""Sockets of one kind that are tried; a machine with more is not better described by more."""

POWERS: Final = (
    # A command to one of these is a program outside, often as root.
    ("docker", "/run/docker.sock"),
    ("docker", "/var/run/docker.sock"),
    ("containerd", "/run/containerd/containerd.sock"),
    ("containerd", "/run/k3s/containerd/containerd.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
    ("podman", "/run/podman/podman.sock"),
    ("buildkit", "/run/buildkit/buildkitd.sock"),
    ("LXD", "/var/lib/lxd/unix.socket"),
    ("LXD", "/var/snap/lxd/common/lxd/unix.socket"),
    ("libvirt", "/run/libvirt/libvirt-sock"),
    ("systemd", "/run/systemd/private"),
    ("D-Bus", "/run/dbus/system_bus_socket"),
    ("snapd", "/run/snapd.socket"),
    ("name lookups", "/run/systemd/resolve/io.systemd.Resolve"),
    ("name lookups", "/run/nscd/socket"),
    ("kubelet", "/var/lib/kubelet/pod-resources/kubelet.sock"),
)

OF_THE_SESSION: Final = (
    ("SSH agent", "SSH_AUTH_SOCK", "", ""),
    ("D-Bus", "DBUS_SESSION_BUS_ADDRESS", "unix:path=", ""),
    ("docker", "DOCKER_HOST", "unix://", ""),
    ("D-Bus", "XDG_RUNTIME_DIR", "", "/bus"),
    ("systemd", "XDG_RUNTIME_DIR", "", "/systemd/private"),
    ("podman", "XDG_RUNTIME_DIR", "", "/podman/podman.sock"),
    ("docker", "XDG_RUNTIME_DIR", "", "/docker.sock"),
    ("GPG agent", "XDG_RUNTIME_DIR", "", "/gnupg/S.gpg-agent"),
)
"""Whose, the variable, what stands before the path in it, what comes behind."""

CAPABILITIES: Final = (
    # capabilities(7): with one of these a program changes its own network, or reads another's memory.
    (2, "CAP_DAC_READ_SEARCH"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (16, "CAP_SYS_MODULE"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
)


# Targets that the machine names


def resolvers(path: Path = Path("/etc/resolv.conf")) -> Iterator[Target]:
    """The name servers that programs here are told to ask."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for words in map(str.split, lines):
        if len(words) > 1 and words[0] == "nameserver" and (address := _address(words[1])) is not None:
            yield Target("dns", address, 53)
            yield Target("dns-tcp", address, 53)


def gateways(proc: Path = Path("/proc/net")) -> Iterator[Target]:
    """The default gateways: what else they serve is a way out too."""
    found = set()
    for line in _lines(proc / "route"):
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000" and words[2] != "00000000":
            found.add(socket.inet_ntop(socket.AF_INET, struct.pack("=I", int(words[2], 16))))
    for line in _lines(proc / "ipv6_route"):
        words = line.split()
        if len(words) > 9 and words[0] == "0" * 32 and words[1] == "00" and words[4] != "0" * 32:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(words[4]))
            found.add(f"{address}%{words[9]}" if address.startswith("fe80:") else address)
    for address in sorted(found):
        yield Target("dns", address, 53)
        for port in (22, 53, 80, 443, 8080):
            yield Target("tcp", address, port)


def cluster(environment: Mapping[str, str]) -> Iterator[Target]:
    """Kubernetes' own API, where its variables say that there is one."""
    host = _address(environment.get("KUBERNETES_SERVICE_HOST", ""))
    port = environment.get("KUBERNETES_SERVICE_PORT", "")
    if host is not None and port.isdigit() and 0 < int(port) < 65536:
        yield Target("tcp", host, int(port))


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


# Sockets


async def powers(
    environment: Mapping[str, str], seconds: float, table: tuple[tuple[str, str], ...] = POWERS
) -> list[Way]:
    """Whether one of the sockets can be reached whose owner acts for whoever speaks to it."""
    named = list(table)
    for whose, variable, before, behind in OF_THE_SESSION:
        value = environment.get(variable, "")
        if value.startswith(before) and value != "":
            named.append((whose, value.removeprefix(before).split(",")[0] + behind))
    wanted = list(dict.fromkeys(named))
    found = await asyncio.gather(*(try_socket(path, seconds) for _, path in wanted))
    return [Way("socket", f"{path} ({whose})", *seen) for (whose, path), seen in zip(wanted, found, strict=True)]


TYPES: Final = {"0001": socket.SOCK_STREAM, "0005": socket.SOCK_SEQPACKET}
LISTENING: Final = 0x10000
"""proc(5), net/unix: __SO_ACCEPTCON in the flags."""


async def found_sockets(known: set[str], seconds: float, proc: Path = Path("/proc/net")) -> list[Way]:
    """Unix sockets, abstract ones too, on which somebody in this network namespace listens, and who else takes us."""
    found: dict[str, int] = {}
    for words in (line.split(maxsplit=7) for line in _lines(proc / "unix")[1:]):
        if len(words) == 8 and words[4] in TYPES and int(words[3], 16) & LISTENING and words[7] not in known:
            found.setdefault(words[7], TYPES[words[4]])
    ways = await asyncio.gather(*(_found(name, kind, seconds) for name, kind in list(found.items())[:MAX_FOUND]))
    return list(ways) or [Way("socket", "others", Outcome.CLOSED, "nobody listens on any")]


async def _found(name: str, kind: int, seconds: float) -> Way:
    outcome, text = await try_socket("\0" + name[1:] if name.startswith("@") else name, seconds, kind)
    if outcome is Outcome.OPEN:
        outcome, text = Outcome.UNCLEAR, "somebody listens; whether that leads out is for you to know"
    return Way("socket", name.encode("utf-8", "backslashreplace").decode(), outcome, text)


async def listeners(door: tuple[str, int] | None, seconds: float, proc: Path = Path("/proc/net")) -> list[Way]:
    """TCP listeners of this network besides the door."""
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for words in map(str.split, _lines(proc / table)[1:]):
            if len(words) > 3 and words[3] == "0A":  # TCP_LISTEN
                address, _, port = words[1].rpartition(":")
                found.add((_kernel_address(address), int(port, 16)))
    places = [Target("tcp", host, port) for host, port in sorted(found) if (host, port) != door][:MAX_FOUND]
    seen = await asyncio.gather(*(_connects(place, seconds) for place in places))
    ways = [Way("listener", str(place).removeprefix("tcp/"), *how) for place, how in zip(places, seen, strict=True)]
    return ways or [Way("listener", "loopback", Outcome.CLOSED, "nothing listens there but the door")]


def _kernel_address(text: str) -> str:
    """An address as /proc/net writes it: words of 32 bits in the machine's order; "any" is reached on loopback."""
    packed = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    address = ip_address(packed)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)


async def _connects(place: Target, seconds: float) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(place.host, place.port)
    except TimeoutError:
        return Outcome.UNCLEAR, "no answer"
    except OSError as error:
        return read_error(error)
    writer.transport.abort()
    return Outcome.UNCLEAR, "it takes connections; whether it leads out is for you to know"


# What this process is and holds


def variables(environment: Mapping[str, str]) -> Iterator[Way]:
    """Whether the variables lead every client to one door, without exceptions."""
    unset = [row.name for row in MATRIX if row.value is Value.PROXY and not environment.get(row.name)]
    if unset:
        text = f"{len(unset)} proxy variables are not set ({unset[0]}): their clients go out directly, where they can"
        yield Way("environment", "proxies", Outcome.UNCLEAR, text)
    else:
        yield Way("environment", "proxies", Outcome.CLOSED, "all set")
    for name in ("NO_PROXY", "no_proxy", "GLOBAL_AGENT_NO_PROXY"):
        if value := environment.get(name):
            text = f"clients go out directly, where they can, to: {value[:200]}"
            yield Way("environment", name, Outcome.UNCLEAR, text)


async def gate_secrets(state: Path, seconds: float) -> list[Way]:
    """Whether this process could read the gate's keys, or give it orders."""
    readable = readable_keys(state)
    keys = (Outcome.OPEN, f"{readable[0]} can be read") if readable else (Outcome.CLOSED, "no key file can be opened")
    path = state / SOCKET_NAME
    orders = await try_socket(str(path), seconds)
    return [Way("gate", f"keys in {state}", *keys), Way("gate", f"{path} (operators)", *orders)]


def privileges(status: Path = Path("/proc/self/status")) -> Way:
    """Whether this process may change what holds it."""
    fields = dict(line.split(":", 1) for line in _lines(status) if ":" in line)
    try:
        held = int(fields["CapEff"], 16)
    except (KeyError, ValueError):
        return Way("privilege", "capabilities", Outcome.NOT_TRIED, "this system does not say which it has")
    names = [name for bit, name in CAPABILITIES if held >> bit & 1]
    if names:
        return Way("privilege", "capabilities", Outcome.OPEN, f"it holds {', '.join(names)}: it can undo a filter")
    return Way("privilege", "capabilities", Outcome.CLOSED, "none that changes networks or reads other programs")


def devices() -> Iterator[Way]:
    """Device files that lead around a network."""
    for path, what in (("/dev/net/tun", "makes interfaces"), ("/dev/vsock", "reaches the hypervisor")):
        try:
            is_device = stat.S_ISCHR(Path(path).stat().st_mode)
            if is_device and os.access(path, os.R_OK | os.W_OK):
                yield Way("device", path, Outcome.UNCLEAR, f"can be opened; with the privilege it {what}")
                continue
        except OSError:
            pass
        yield Way("device", path, Outcome.CLOSED, "cannot be opened")


def door_of(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Where the variables say that Exeat is."""
    url = urlsplit(environment.get("HTTPS_PROXY", ""))
    try:
        return None if url.hostname is None or url.port is None else (url.hostname, url.port)
    except ValueError:
        return None
