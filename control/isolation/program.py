"""The program in its namespaces, from outside: prepared, started, or refused with the cure."""

import asyncio
import errno
import json
import os
import pwd
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from control.isolation import system_calls

LAUNCHER: Final = "import sys; sys.path.append(sys.argv[1]); from control.isolation.launcher import main; main()"
"""Run with -I -S: neither environment nor folder decides what is imported before the uid is given up."""
ANSWER_SECONDS: Final = 30.0
UNPRIVILEGED: Final = "nobody"
"""Whom a program becomes that root isolates without naming a user."""


class IsolationRefused(Exception):
    """The program was not started, because it could not be isolated. `cure` says what would let it."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Identity:
    """A user of this machine that the program becomes."""

    name: str
    uid: int
    gid: int
    home: str

    @classmethod
    def of(cls, user: pwd.struct_passwd) -> "Identity":
        """From the machine's user database."""
        return cls(user.pw_name, user.pw_uid, user.pw_gid, user.pw_dir)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a program is to be kept from."""

    become: Identity | None
    """None: it keeps our uid, and a user namespace is made for the rights to make the others."""
    hide: tuple[Path, ...] = ()
    """Folders that are empty for the program."""
    isolate: bool = True
    """False: it runs without namespaces of its own."""

    def __str__(self) -> str:
        if not self.isolate:
            return "no namespaces of its own"
        uid = f"own uid {os.geteuid()}" if self.become is None else f"uid {self.become.name}"
        return f"own network, mount, process and IPC namespaces, {uid}"


class Prepared:
    """The namespaces exist and wait for the program. `close` unless `start` was called: then they end unused."""

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self._process = process
        self._channel = channel
        self.listener: socket.socket | None = None
        """Listens on 127.0.0.1 inside; for the relay. None without isolation."""

    async def start(self, command: tuple[str, ...], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
        """The program runs; the process that comes back ends with its code and passes signals on to it."""
        line = {"command": command, "environment": dict(environment)}
        with self._channel:
            await asyncio.to_thread(self._channel.sendall, json.dumps(line).encode() + b"\n")
        return self._process

    async def close(self) -> None:
        """Nothing of it is left, if the program was not started."""
        self._channel.close()
        if self.listener is not None:
            self.listener.close()
        await self._process.wait()


async def prepare(plan: Plan, stdout: int | None = None) -> Prepared:
    """Everything is made but the program. Raises `IsolationRefused`: then nothing is left."""
    if sys.platform != "linux":
        raise IsolationRefused("only Linux has the namespaces that isolation is made of", "Run it without --isolate.")
    if plan.isolate and not system_calls.known_machine():
        raise IsolationRefused(
            f"there is no filter of system calls for {os.uname().machine}",
            "Isolate it otherwise: docs/how-to/containment.md",
        )
    ours, theirs = socket.socketpair()
    ours.settimeout(ANSWER_SECONDS)
    root = str(Path(__file__).parents[2])
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", LAUNCHER, root, str(theirs.fileno()), str(os.getpid()),
            pass_fds=(theirs.fileno(),), stdout=stdout,
        )  # fmt: skip
    prepared = Prepared(process, ours)
    try:
        prepared.listener = await asyncio.to_thread(_ask, ours, plan)
    except IsolationRefused:
        await prepared.close()
        raise
    return prepared


def _ask(channel: socket.socket, plan: Plan) -> socket.socket | None:
    line = {
        "isolate": plan.isolate,
        "become": None if plan.become is None else [plan.become.uid, plan.become.gid],
        "hide": [os.path.realpath(folder) for folder in plan.hide],
    }
    try:
        channel.sendall(json.dumps(line).encode() + b"\n")
        answer, files, _, _ = socket.recv_fds(channel, 65536, 1)
    except OSError as error:
        raise IsolationRefused(f"the launcher does not answer: {error}", "Look at what it wrote above.") from error
    if files:
        return socket.socket(fileno=files[0])
    if answer == b"\n" and not plan.isolate:
        return None
    try:
        failed = json.loads(answer)
        step, number, text = str(failed["step"]), int(failed["errno"]), str(failed["error"])
    except (ValueError, KeyError, TypeError):
        raise IsolationRefused("the launcher ended without an answer", "Look at what it wrote above.") from None
    raise IsolationRefused(f"this system does not let it: {step}: {text}", cure_of(step, number))


SYSCTL: Final = Path("/proc/sys")


def cure_of(step: str, number: int, sysctl: Path = SYSCTL) -> str:
    """One sentence that says what would let this step be done."""

    def reads(name: str, value: str) -> bool:
        try:
            return (sysctl / name).read_text(encoding="ascii").strip() == value
        except OSError:
            return False

    if step == "working folder":
        return "Start it from a folder that the program may see: not below the state folder or /run."
    if number == errno.ENOSPC:
        none = [
            path.name for path in sorted((sysctl / "user").glob("max_*_namespaces")) if reads(f"user/{path.name}", "0")
        ]
        named = ", ".join(f"user.{name}" for name in none) or "user.max_*_namespaces"
        return f"This machine allows no more namespaces: raise {named} (sysctl -w)."
    if reads("kernel/unprivileged_userns_clone", "0"):
        return "sysctl -w kernel.unprivileged_userns_clone=1, or run this as root."
    if reads("kernel/apparmor_restrict_unprivileged_userns", "1"):
        return "AppArmor forbids it: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run this as root."
    if number in (errno.ENOSYS, errno.EINVAL) and step.endswith(("namespace", "namespaces")):
        return "This kernel was built without them. Isolate the program otherwise: docs/how-to/containment.md."
    return "As root it needs CAP_SYS_ADMIN, which containers take away; contain that one: docs/how-to/containment.md."
