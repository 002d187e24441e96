"""Which files of a directory are what; every one has to be something (class 22)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.directory import BALLAST, CHECKPOINTS, DESCRIPTION, LOCK, QUARANTINE, SEGMENTS
from ledger.sources import Source

_SEGMENT = re.compile(r"([0-9]{20})\.seg")
_NOTE = re.compile(r"([0-9]{20})\.note")

_WRITTEN_ASIDE: Final = {
    SEGMENTS: re.compile(r"[0-9]{20}\.seg\.tmp"),
    CHECKPOINTS: re.compile(r"[0-9]{20}\.note\.tmp"),
    QUARANTINE: re.compile(r"[0-9a-f-]+\.torn\.tmp"),
}
"""Names under which files are written before they are renamed; opening removes what a crash left of them."""

_FOLDERS: Final = (f"{SEGMENTS}/", f"{CHECKPOINTS}/", f"{QUARANTINE}/")


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a ledger by what they are."""

    described: bool
    segments: tuple[tuple[int, str], ...]
    """(first seq, name) in order."""
    notes: dict[int, bytes]
    """Checkpoint notes by size."""
    quarantine: frozenset[str]
    """Base names."""


def read_layout(source: Source, find: Callable[[str, str, str], None]) -> Layout:
    """The layout; whatever is no part of one is reported.

    Notes are read before segments are listed: while a log is being written, records are there before their checkpoint,
    and a note may be replaced by a newer one at any time.
    """
    segments: list[tuple[int, str]] = []
    notes = {size: note for size, name in note_names(source) if (note := _read_if_there(source, name)) is not None}
    quarantine: set[str] = set()
    names = source.names()
    for name in names:
        folder, _, base = name.rpartition("/")
        if name.endswith("@"):
            find("file_unexpected", name.removesuffix("@"), "a link, or no file at all: a ledger holds its own bytes")
        elif folder == SEGMENTS and (match := _SEGMENT.fullmatch(base)):
            segments.append((int(match[1]), name))
        elif folder == CHECKPOINTS and _NOTE.fullmatch(base):
            continue
        elif folder == QUARANTINE and base.endswith(".torn"):
            quarantine.add(base)
        elif folder in _WRITTEN_ASIDE and _WRITTEN_ASIDE[folder].fullmatch(base):
            find("recovery_unfinished", name, "a file that was never put in its place")
        elif name == BALLAST:
            with source.map(name) as data:
                if data[:] != bytes(len(data)):
                    find("file_unexpected", name, "the ballast is not all zeros")
        elif name == LOCK:
            if source.read(name):
                find("file_unexpected", name, "the lock file is not empty")
        elif name != DESCRIPTION and name not in _FOLDERS:
            find("file_unexpected", name, "no part of a ledger")
    return Layout(DESCRIPTION in names, tuple(sorted(segments)), notes, frozenset(quarantine))


def note_names(source: Source) -> list[tuple[int, str]]:
    """(size, name) of the checkpoint notes that are there now, in order."""
    found: list[tuple[int, str]] = []
    for name in source.names():
        folder, _, base = name.rpartition("/")
        if folder == CHECKPOINTS and (match := _NOTE.fullmatch(base)):
            found.append((int(match[1]), name))
    return sorted(found)


def _read_if_there(source: Source, name: str) -> bytes | None:
    try:
        return source.read(name)
    except FileNotFoundError:
        return None  # replaced by a newer one since it was listed
