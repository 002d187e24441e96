"""The few system calls that would lead around a network namespace, refused by a seccomp filter.

- `socket` of a family that network namespaces do not hold: AF_VSOCK reaches the hypervisor, others reach hardware.
  Unix, IPv4, IPv6 and netlink sockets stay.
- `io_uring_setup`: a ring opens sockets without the system call `socket`, so without this filter.
- `ioctl` TIOCSTI: puts characters into the terminal's input, as if the person had typed them (CVE-2017-5226); and
  TIOCLINUX, which pastes there on a console (CVE-2023-28100).
- Every call of a foreign ABI (32 bits, x32): the numbers above would mean something else there.

Refused means EPERM; `io_uring_setup` answers ENOSYS, which libraries take for an old kernel and do without.
"""

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

TIOCSTI: Final = 0x5412
TIOCLINUX: Final = 0x541C
FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
"""seccomp(2): SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO."""
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENT_0: Final = 16
_ARGUMENT_1: Final = 24
"""Offsets in struct seccomp_data; of an argument its low half, little endian."""
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
"""BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K (linux/filter.h)."""
_X32_BIT: Final = 0x40000000


@dataclass(frozen=True, slots=True)
class Numbers:
    """An architecture's number (linux/audit.h) and its numbers of the calls."""

    architecture: int
    socket: int
    ioctl: int
    io_uring_setup: int
    keyctl: int


NUMBERS: Final = {
    "x86_64": Numbers(0xC000003E, 41, 16, 425, 250),
    "aarch64": Numbers(0xC00000B7, 198, 29, 425, 219),
}


def known_machine() -> bool:
    """True when there is a filter for this machine."""
    return os.uname().machine in NUMBERS


def build(numbers: Numbers) -> bytes:
    """The filter as instructions of eight bytes."""

    def statement(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("=HBBI", code, yes, no, value)

    refused = statement(_RETURN, _ERRNO | errno.EPERM)
    lines = [
        statement(_LOAD, _ARCHITECTURE),
        statement(_EQUAL, numbers.architecture, yes=1),
        refused,
        statement(_LOAD, _NUMBER),
        statement(_AT_LEAST, _X32_BIT, no=1),
        refused,
        statement(_EQUAL, numbers.io_uring_setup, no=1),
        statement(_RETURN, _ERRNO | errno.ENOSYS),
        # ioctl(fd, request): the kernel takes the low half of `request` alone.
        statement(_EQUAL, numbers.ioctl, no=5),
        statement(_LOAD, _ARGUMENT_1),
        statement(_EQUAL, TIOCSTI, yes=1),
        statement(_EQUAL, TIOCLINUX, no=1),
        refused,
        statement(_RETURN, _ALLOW),
        statement(_EQUAL, numbers.socket, no=len(FAMILIES) + 2),
        statement(_LOAD, _ARGUMENT_0),
        *(statement(_EQUAL, int(family), yes=len(FAMILIES) - index) for index, family in enumerate(FAMILIES)),
        refused,
        statement(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def for_this_machine() -> bytes:
    """The filter for this machine's architecture. Raises KeyError where there is none."""
    return build(NUMBERS[os.uname().machine])
