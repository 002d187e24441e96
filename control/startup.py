"""What is looked at before anything listens: our own packages, the addresses, the environment."""

import ctypes
import importlib.util
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

OUR_PACKAGES = ("control", "proxy", "rules", "credentials", "ledger")
KEY_LOGS = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")
"""Variables that make TLS libraries write every session's keys to a file."""

_PR_SET_DUMPABLE = 4
"""linux/prctl.h"""
MIN_FILES = 256
MAX_AGENTS = 10_000
"""Agents' connections at once, where the machine lets us have as many files."""
RESERVED_FILES = 1_600
"""1,024 for connections to origins (`PoolLimits.max_open`); the rest for ledger, database, operators and health."""


class StartRefused(Exception):
    """Nothing was started. `cure` says how to mend it."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """True when only this machine can reach it."""
        return ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`127.0.0.1:8080` or `[::1]:8080`; port 0 takes a free one. Raises ValueError with what is wrong.

    Names are refused: a name's address can change between two starts, from loopback to anything.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is no ADDRESS:PORT")
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is no IP address; write 127.0.0.1:{port}") from None
    return Address(host, int(port))


def foreign_packages() -> tuple[tuple[str, str], ...]:
    """Packages with our names that are not ours, with where they were found.

    `proxy.py`, `rules` and `credentials` on PyPI install the same top-level names. One of them in front of ours would
    be imported, and run, in our place.
    """
    home = Path(__file__).resolve().parent.parent
    found: list[tuple[str, str]] = []
    for name in OUR_PACKAGES:
        specification = importlib.util.find_spec(name)
        places = list(specification.submodule_search_locations or ()) if specification is not None else []
        if [Path(place).resolve() for place in places] != [home / name]:
            found.append((name, ", ".join(places) or "nowhere"))
    return tuple(found)


def refuse_foreign_packages() -> None:
    """Our packages are our own. Raises `StartRefused`."""
    if foreign := foreign_packages():
        name, place = foreign[0]
        raise StartRefused(
            f"the package {name} comes from {place} and is not ours",
            "Install Exeat in an environment of its own (uv tool, pipx or the container).",
        )


def key_log_variables(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Variables that would write TLS session keys to a file, if any is set."""
    return tuple(name for name in KEY_LOGS if environment.get(name))


def refuse_key_logs() -> None:
    """No variable asks for TLS keys to be written down. Raises `StartRefused`.

    With them whoever reads that file reads every request that leaves, secrets included.
    """
    if names := key_log_variables():
        raise StartRefused(
            f"{names[0]} is set: the keys of every TLS connection would be written to {os.environ[names[0]]}",
            f"Unset it: unset {' '.join(names)}",
        )


def unsafe_listeners(addresses: tuple[Address, ...], *, allowed: bool) -> tuple[str, ...]:
    """Names of the unsafe switches that these addresses need. Raises `StartRefused` when they are not allowed."""
    exposed = [str(address) for address in addresses if not address.loopback]
    if not exposed:
        return ()
    if not allowed:
        raise StartRefused(
            f"{exposed[0]} can be reached from other machines, and agents would send their credentials in plain text",
            "Say --listen-tls instead of --listen, with --name NAME; or listen on 127.0.0.1; or say "
            "--unsafe-plaintext-listener where the network is yours alone (and for --health, which carries no secret).",
        )
    return ("unsafe_plaintext_listener",)


def hide_memory() -> None:
    """No other process of this user can read this one's memory, and no crash writes it to disk. Children are as others.

    prctl(2): a process that is not dumpable cannot be traced (ptrace(2)) and /proc/PID/mem and environ belong to root.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise StartRefused(
            f"this process's memory cannot be hidden: {os.strerror(ctypes.get_errno())}",
            "The seccomp profile of a container may forbid prctl; allow PR_SET_DUMPABLE.",
        )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def raise_file_limit() -> int:
    """The number of files this process may have open, now as many as it may ask for. Raises `StartRefused`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MIN_FILES and hard != resource.RLIM_INFINITY:
        raise StartRefused(
            f"this process may open {hard} files, and needs {MIN_FILES} at the least",
            "Raise the limit: ulimit -n 4096, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def agents_at_once(files: int) -> int:
    """How many connections of agents are taken where so many files may be open.

    Whoever reaches the door can fill this number with idle connections. What is left must do for the calls' own
    connections and for the ledger, whose next file must open. With few files each call gets one for the agent, one for
    the origin, and one to spare.
    """
    if files == resource.RLIM_INFINITY:
        return MAX_AGENTS
    return min(MAX_AGENTS, max(files // 3, files - RESERVED_FILES))
