"""System calls that Python's library does not have, each raising `OSError`. Standard library only; Linux only."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
"""mount(2)"""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
"""prctl(2)"""
_SECCOMP_MODE_FILTER: Final = 2
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
"""keyctl(2)"""
_CAPABILITY_VERSION_3: Final = 0x20080522
"""capget(2)"""
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
"""netdevice(7)"""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, *arguments: int) -> None:
    filled = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *filled))


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]))


def loopback_up() -> None:
    """The loopback interface of this network namespace is up, with 127.0.0.1 and ::1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def die_with_parent(number: int) -> None:
    """This process gets the signal when its parent ends, however that happens. Forgotten by fork and by setuid."""
    _prctl(_PR_SET_PDEATHSIG, number)


def unreadable() -> None:
    """Nobody but root reads this process's memory or traces it, not even its own uid."""
    _prctl(_PR_SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    """From now on nothing that is executed gains a privilege: set-uid bits and file capabilities are void."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """No capability can ever be had again by this process or its children."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="utf-8") as last:
        highest = int(last.read())
    for capability in range(highest + 1):
        _prctl(_PR_CAPBSET_DROP, capability)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def drop_capabilities() -> None:
    """This process holds no capability: none effective, permitted or inheritable."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)))


def new_session_keyring(keyctl: int) -> None:
    """This process possesses none of the keys of the session it came from. `keyctl`: the number of that call here."""
    if _libc.syscall(ctypes.c_long(keyctl), ctypes.c_ulong(_KEYCTL_JOIN_SESSION_KEYRING), None, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        if number not in (
            errno.ENOSYS,
            errno.EPERM,
        ):  # a kernel or a container without keyrings: there is none to leave
            raise OSError(number, os.strerror(number))


def filter_system_calls(program: bytes) -> None:
    """The BPF program judges every later system call of this process and its children. Needs no_new_privileges."""

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    wanted = _Program(len(program) // 8, program)
    _check(
        _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(wanted), ctypes.c_ulong(0), 0)
    )
