"""Where the verifier reads a ledger from."""

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, cast


class Source(Protocol):
    """The files of one ledger by relative name. Methods raise OSError."""

    def names(self) -> list[str]:
        """All files, and directories that are empty or no part of the layout (with a trailing slash).

        What is no regular file, a link above all, is named with `@` at the end: it is never opened.
        """
        ...

    def read(self, name: str) -> bytes:
        """The whole of a small file."""
        ...

    def map(self, name: str) -> AbstractContextManager[bytes]:
        """A context whose value can be sliced like bytes, for big files."""
        ...


class DirectorySource:
    """A ledger's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """As the protocol says; links are never followed."""
        found: list[str] = []
        for folder, folders, files in os.walk(self._directory, onerror=_raise):
            base = Path(folder).relative_to(self._directory)
            for name in files:
                found.append(f"{base / name}{'' if is_regular(Path(folder) / name) else '@'}")  # noqa: PERF401
            found.extend(f"{base / name}@" for name in folders if (Path(folder) / name).is_symlink())
            if base.parts and not files and not folders:
                found.append(f"{base}/")
        return sorted(found)

    def read(self, name: str) -> bytes:
        """As the protocol says."""
        return (self._directory / name).read_bytes()

    @contextmanager
    def map(self, name: str) -> Iterator[bytes]:
        """As the protocol says."""
        with (self._directory / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield cast("bytes", data)


class MemorySource:
    """A ledger's files in memory: for exports, and for tests that damage them a bit at a time."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def names(self) -> list[str]:
        """As the protocol says."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """As the protocol says."""
        return self._files[name]

    @contextmanager
    def map(self, name: str) -> Iterator[bytes]:
        """As the protocol says."""
        yield self._files[name]


def is_regular(path: Path) -> bool:
    """False for a link, device, pipe or socket; true for what is gone meanwhile: opening it says so."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def _raise(error: OSError) -> None:
    raise error
