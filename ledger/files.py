"""The file layer: everything the writer asks of a disk, as a port, so that a test can make any of it fail.

A failed sync is final: the kernel may have dropped the pages and marked them clean, so a second attempt would succeed
without the data being anywhere (PostgreSQL's fsync finding, 2018). Callers stop; they do not retry.

Too many open files are another matter: where a file could not be opened, nothing was written. That is tried again.
"""

import errno
import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """What the writer asks of a disk. Every method raises OSError."""

    def create(self, path: Path) -> int:
        """A new file, 0600, for appending; its name is durable. Its descriptor."""
        ...

    def write(self, descriptor: int, data: bytes) -> None:
        """All bytes are handed to the kernel, or OSError is raised and any part may have been."""
        ...

    def sync(self, descriptor: int) -> None:
        """What was written is durable once this returns. Never called again on a descriptor where it failed."""
        ...

    def truncate(self, descriptor: int, size: int) -> None:
        """The file has this size; what lay behind is gone."""
        ...

    def replace(self, path: Path, data: bytes) -> None:
        """The file has exactly these bytes, durably, or still its old ones."""
        ...

    def remove(self, path: Path) -> None:
        """The name is gone, durably. No error when it was not there."""
        ...

    def allocate(self, path: Path, size: int) -> None:
        """The file exists with this size, zeros, its blocks reserved."""
        ...

    def free_bytes(self, directory: Path) -> int:
        """What an ordinary user may still write on the directory's file system."""
        ...

    def read(self, path: Path) -> bytes:
        """The whole file."""
        ...


def no_descriptor(error: BaseException) -> bool:
    """True when a file could not be opened because too many are: no fault of the disk, and over when others close."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def sync_directory(directory: Path) -> None:
    """Names in the directory are durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PosixFiles:
    """The operating system's files."""

    def create(self, path: Path) -> int:
        """As the protocol says."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            sync_directory(path.parent)
        except OSError:
            os.close(descriptor)
            path.unlink()  # empty; the next attempt makes it anew
            raise
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """As the protocol says; a short write is continued."""
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, data[written:])

    def sync(self, descriptor: int) -> None:
        """As the protocol says; fdatasync also writes the size."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """As the protocol says."""
        os.ftruncate(descriptor, size)

    def replace(self, path: Path, data: bytes) -> None:
        """As the protocol says: a new file, synced, renamed over the old one."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            self.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_directory(path.parent)

    def remove(self, path: Path) -> None:
        """As the protocol says."""
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

    def allocate(self, path: Path, size: int) -> None:
        """As the protocol says."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if size:
                os.posix_fallocate(descriptor, 0, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, directory: Path) -> int:
        """As the protocol says."""
        stats = os.statvfs(directory)
        return stats.f_bavail * stats.f_frsize

    def read(self, path: Path) -> bytes:
        """As the protocol says."""
        return path.read_bytes()
