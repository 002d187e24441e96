"""Where reading may begin at the next opening: the state of the log before one of its segments, signed by the log.

Without it an opening reads the whole log, which takes as long as the log is. A resume point is derived, and no part of
the log: whoever has lost it reads everything. Of what it says the segment's own header confirms chain, tree, tenants'
trees and open intents; no header says which calls ended lately, which policies and which keys there are.

The file is kept outside the ledger's directory, as the lock store is (docs/formats/ledger-resume.md).
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, cast

from ledger import canonical
from ledger.directory import segment_files
from ledger.files import Files
from ledger.lifecycle import CallBook, OpenIntent
from ledger.note import NoteInvalid, Signer, Verifier
from ledger.state import LogState
from ledger.tenants import TenantTree
from ledger.tree import Frontier

FORMAT: Final = "ledger-resume/v1"
"""Can be no log's name: a signature under it is none of a checkpoint or a group."""


class ResumeStore(Protocol):
    """Keeps the newest resume point. Both may raise OSError: nothing is lost then but time."""

    def load(self) -> bytes | None:
        """The newest one; None when there is none."""
        ...

    def save(self, point: bytes) -> None:
        """It is the newest one, durably."""
        ...


class FileResumeStore:
    """A file beside the ledger's directory."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def load(self) -> bytes | None:
        """As the protocol says."""
        try:
            return self._files.read(self._path)
        except FileNotFoundError:
            return None

    def save(self, point: bytes) -> None:
        """As the protocol says."""
        self._files.replace(self._path, point)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The log before record `first`, which begins a segment. `state` is nobody else's."""

    first: int
    state: LogState
    earlier: tuple[tuple[int, int], ...] = ()
    """(first seq, bytes) of every segment before it."""

    @classmethod
    def of(cls, state: LogState) -> "ResumePoint":
        """The log as it is now. Takes a copy: a few milliseconds once a segment."""
        return cls(state.size, state.copy())

    def encode(self, directory: Path, signer: Signer) -> bytes:
        """The signed point, with the earlier segments as they lie in the directory. Raises OSError."""
        earlier = [[first, path.lstat().st_size] for first, path in segment_files(directory) if first < self.first]
        body = canonical.encode({**_values(self.state), "format": FORMAT, "segments": earlier})
        return body + b"\n" + signer.sign(_statement(self.state.origin, body)).hex().encode("ascii") + b"\n"

    @classmethod
    def parse(cls, data: bytes, key: Verifier, origin: str, blinding: bytes) -> "ResumePoint | None":
        """The point that this key signed for this log; None for anything else, which is not an error."""
        body, _, rest = data.partition(b"\n")
        try:
            signature = bytes.fromhex(rest.decode("ascii").removesuffix("\n"))
            if not key.verify(_statement(origin, body), signature):
                return None
            value = cast("dict[str, Any]", canonical.parse_typed(body))
            if value["format"] != FORMAT or value["origin"] != origin:
                return None
            earlier = tuple((first, size) for first, size in value["segments"])
            return cls(value["size"], _state(value, blinding), earlier)
        except (ValueError, KeyError, TypeError, NoteInvalid):
            return None

    def fits(self, segments: list[tuple[int, Path]]) -> bool:
        """The segments before it are there, as long as they were, and it begins one."""
        before = tuple((first, path.lstat().st_size) for first, path in segments if first < self.first)
        return before == self.earlier and any(first == self.first for first, _ in segments)


def _statement(origin: str, body: bytes) -> bytes:
    return f"{FORMAT}\n{origin}\n{sha256(body).hexdigest()}\n".encode("ascii")


def _values(state: LogState) -> dict[str, object]:
    calls = state.calls
    return {
        "origin": state.origin,
        "size": state.size,
        "prev": state.prev,
        "nodes": _hex(state.frontier),
        "tenants": {
            name: {"size": tree.size, "last": tree.last, "nodes": _hex(tree.frontier)}
            for name, tree in state.tenants.items()
        },
        "open": [
            [one.seq, one.tenant, one.call, one.attempt, one.cost, one.streamed, one.worker]
            for one in calls.open.values()
        ],
        "ended": [_by_attempt(calls.recent), _by_attempt(calls.older)],
        "policies": sorted(state.policies),
        "policy": state.policy,
        "last_us": state.last_us,
        "keys": [key.vkey for key in state.keys],
        "types": list(state.last_types),
    }


def _state(value: dict[str, Any], blinding: bytes) -> LogState:
    state = LogState(value["origin"], blinding)
    state.frontier = _frontier(value["size"], value["nodes"])
    state.prev = value["prev"]
    for name, kept in value["tenants"].items():
        tree = state.tenants[name] = TenantTree(name, blinding)
        tree.frontier = _frontier(kept["size"], kept["nodes"])
        tree.last = kept["last"]
    recent, older = value["ended"]
    state.calls = CallBook.of([OpenIntent(*one) for one in value["open"]], _calls(recent), _calls(older))
    state.policies = set(value["policies"])
    state.policy = value["policy"]
    state.last_us = value["last_us"]
    state.keys = [Verifier.parse(key) for key in value["keys"]]
    before, last = value["types"]
    state.last_types = (before, last)
    return state


def _hex(frontier: Frontier) -> list[str]:
    return [node.hex() for node in frontier.nodes]


def _frontier(size: int, nodes: list[str]) -> Frontier:
    return Frontier(size, [bytes.fromhex(node) for node in nodes])


def _by_attempt(calls: dict[str, int]) -> dict[str, str]:
    """Nearly all have the same one: tens of thousands of names are one text."""
    found: dict[str, list[str]] = {}
    for call, attempt in calls.items():
        found.setdefault(str(attempt), []).append(call)
    return {attempt: " ".join(names) for attempt, names in found.items()}


def _calls(by_attempt: dict[str, str]) -> dict[str, int]:
    return {call: int(attempt) for attempt, names in by_attempt.items() for call in names.split(" ")}
