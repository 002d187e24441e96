"""The filter of system calls in a real process, and the cure for each refusal."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from control.isolation.program import cure_of
from control.isolation.system_calls import NUMBERS, build, known_machine

ROOT = Path(__file__).resolve().parents[3]
TRIES = """
import ctypes, errno, fcntl, os, pty, socket, sys
from control.isolation import kernel, system_calls

def attempt(name, what):
    try:
        what()
        print(name, "done")
    except OSError as error:
        print(name, errno.errorcode[error.errno])

def ring():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(425, 1, ctypes.create_string_buffer(200)) < 0:
        raise OSError(ctypes.get_errno(), "")

master, slave = pty.openpty()
if sys.argv[1] == "filtered":
    kernel.no_new_privileges()
    kernel.filter_system_calls(system_calls.for_this_machine())
for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
    attempt(family.name, lambda: socket.socket(family, socket.SOCK_DGRAM).close())
attempt("AF_PACKET", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close())
attempt("AF_ALG", lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close())
attempt("TIOCSTI", lambda: fcntl.ioctl(slave, 0x5412, b"x"))
attempt("TIOCLINUX", lambda: fcntl.ioctl(slave, 0x541C, bytes([3])))
attempt("TIOCGWINSZ", lambda: fcntl.ioctl(slave, 0x5413, bytes(8)))
attempt("ring", ring)
"""
pytestmark = pytest.mark.skipif(not known_machine(), reason="there is no filter for this machine")


def tries(how: str) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", TRIES, how], capture_output=True, text=True, cwd=ROOT, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def test_what_leads_around_a_network_namespace_is_refused_and_nothing_else() -> None:
    filtered, free = tries("filtered"), tries("free")
    refused = {"AF_PACKET": "EPERM", "AF_ALG": "EPERM", "TIOCSTI": "EPERM", "TIOCLINUX": "EPERM", "ring": "ENOSYS"}
    assert {name: filtered[name] for name in refused} == refused
    assert {name: said for name, said in filtered.items() if name not in refused} == {
        name: said for name, said in free.items() if name not in refused
    }
    assert free["AF_INET"] == filtered["AF_INET"] == "done"


def test_other_machines_have_their_own_numbers() -> None:
    programs = {build(numbers) for numbers in NUMBERS.values()}
    assert len(programs) == len(NUMBERS)


@pytest.mark.parametrize(
    ("settings", "step", "number", "cure"),
    [
        ({"user/max_net_namespaces": "0"}, "namespaces", errno.ENOSPC, "user.max_net_namespaces"),
        ({}, "user namespace", errno.ENOSPC, "user.max_*_namespaces"),
        ({"kernel/unprivileged_userns_clone": "0"}, "user namespace", errno.EPERM, "unprivileged_userns_clone=1"),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, "mounts", errno.EACCES, "AppArmor"),
        ({}, "user namespace", errno.EINVAL, "kernel was built without"),
        ({}, "namespaces", errno.EPERM, "CAP_SYS_ADMIN"),
    ],
)
def test_every_refusal_says_what_would_let_it(
    tmp_path: Path, settings: dict[str, str], step: str, number: int, cure: str
) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}{os.linesep}")
    assert cure in cure_of(step, number, tmp_path)
