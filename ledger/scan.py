"""Reading a ledger's own files back into the state they imply: what opening needs, and no more.

This is for the process that owns the directory. It raises at the first thing that is wrong, for it must not continue
from a log it does not understand. An auditor's reading is `ledger.verify`, which trusts nothing and names everything.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from ledger import canonical
from ledger.batch import statement
from ledger.clock import parse_stamp
from ledger.directory import Description, segment_files
from ledger.errors import LedgerRefused
from ledger.files import Files
from ledger.lifecycle import LifecycleBroken
from ledger.note import Verifier
from ledger.resume import ResumePoint
from ledger.schema import explain_record
from ledger.segment import FrameBad, Group, any_frame_after, groups, read_header
from ledger.sources import is_regular
from ledger.state import LogState
from ledger.tenants import NO_LEAF, TenantTree, state_digest
from ledger.tree import leaf_hash, root_of

_ORDERLY: Final = ("ledger.stop", "seal")


@dataclass(frozen=True, slots=True)
class Tail:
    """Bytes after the last committed group of the last segment: an interrupted write, never acknowledged."""

    path: Path
    first: int
    """The segment's first seq."""
    offset: int
    data: bytes


class Scanned:
    """What a directory's segments say."""

    def __init__(self, state: LogState, watch: frozenset[int]) -> None:
        self.state = state
        self.begun = state.size
        """Records that were not read: a resume point says what they come to."""
        self.roots: dict[int, bytes] = {}
        """Root at each watched size that the log reaches."""
        self.tail: Tail | None = None
        self.stopped = state.last_types == _ORDERLY
        """True when the last records are an orderly stop: ledger.stop and its seal."""
        self.checkpoint: tuple[int, bytes, bool] | None = None
        self._watch = watch
        if self.begun in watch:
            self.roots[self.begun] = state.frontier.root()

    @property
    def keys(self) -> list[Verifier]:
        """The log's keys in the order they were added; the last one signs."""
        return self.state.keys

    def add(self, group: Group, *, signed: bool) -> None:
        """The group continues the log; raises `LedgerRefused`."""
        leaves: list[bytes] = []
        for offset, data in enumerate(group.records):
            leaves.append(self._record(group.first + offset, data))
        key = self.keys[-1]
        # A key.add is the last record of its group, which the key before it still signs.
        if self.state.last_types[1] == "key.add" and len(self.keys) > 1:
            key = self.keys[-2]
        text = statement(self.state.origin, group.first, group.last, root_of(leaves), leaves[-1])
        if group.key_id != key.key_id or (signed and not key.verify(text.encode("ascii"), group.signature)):
            raise LedgerRefused(f"the group of records {group.first} to {group.last} is not signed by the log's key")

    def _record(self, seq: int, data: bytes) -> bytes:
        state = self.state
        try:
            record = cast("dict[str, object]", canonical.parse_typed(data))
        except canonical.NotCanonical as error:
            raise LedgerRefused(f"record {seq}: {error}") from None
        problem = explain_record(record)
        if problem is not None:
            raise LedgerRefused(f"record {seq}: {problem}")
        type_, tenant = cast("str", record["type"]), cast("str", record["tenant"])
        tree = state.tenants.get(tenant) or TenantTree(tenant, state.blinding)
        if (
            record["log"] != state.origin
            or record["seq"] != seq
            or seq != state.size
            or record["prev"] != state.prev
            or record["tseq"] != tree.size
            or record["tprev"] != tree.last
        ):
            raise LedgerRefused(f"record {seq} does not continue the log")
        try:
            state.admit(type_, seq, tenant, record)
            state.last_us = parse_stamp(cast("str", record["ts"]))
        except (LifecycleBroken, ValueError) as error:
            raise LedgerRefused(f"record {seq}: {error}") from None
        state.tenants[tenant] = tree
        leaf = leaf_hash(data)
        state.extend(tree, leaf, leaf.hex())
        self._note(seq, type_, record)
        if state.size in self._watch:
            self.roots[state.size] = state.frontier.root()
        return leaf

    def _note(self, seq: int, type_: str, record: dict[str, object]) -> None:
        if (seq == 0) != (type_ == "genesis"):
            raise LedgerRefused("a log has one genesis, its first record")
        if type_ == "seal" and record["checkpoint"] is not None:
            named = cast("dict[str, object]", record["checkpoint"])
            self.checkpoint = (
                cast("int", named["size"]),
                bytes.fromhex(cast("str", named["root"])),
                cast("bool", named["kept"]),
            )
        self.stopped = self.state.last_types == _ORDERLY


def scan(
    directory: Path, description: Description, files: Files, watch: frozenset[int], point: ResumePoint | None = None
) -> Scanned:
    """The state of the log in a directory, its last segment checked with signatures; raises `LedgerRefused`.

    With a resume point the segments before it are taken to be what it says.
    """
    scanned = Scanned(LogState(description.origin, description.blinding) if point is None else point.state, watch)
    segments = [(first, path) for first, path in segment_files(directory) if first >= scanned.begun]
    state = scanned.state
    for index, (first, path) in enumerate(segments):
        final = index == len(segments) - 1
        if not is_regular(path):
            raise LedgerRefused(f"segment {path.name} is a link or no file: a ledger holds its own bytes")
        data = files.read(path)
        try:
            end = 0
            header, end = read_header(data)
            digest = state_digest(state.tenants, state.calls.open)
            if (header.origin, header.first, header.prev, header.frontier, header.state) != (
                state.origin,
                first,
                state.prev if first else NO_LEAF,
                tuple(state.frontier.nodes),
                digest,
            ):
                raise LedgerRefused(f"segment {path.name} does not continue the log")
            for group in groups(data, end):
                scanned.add(group, signed=final)
                end = group.end
        except FrameBad as bad:
            valid = any_frame_after(data, bad.offset)
            if not final or valid is not None or (first == 0 and end == 0):
                where = "" if valid is None else f"; valid data follows at offset {valid}"
                raise LedgerRefused(f"segment {path.name} is damaged: {bad}{where}") from None
            committed = end if scanned.state.size > first else 0
            scanned.tail = Tail(path, first, committed, data[committed:])
    if state.size == 0:
        raise LedgerRefused("the ledger has no records; its creation did not finish or its segments were removed")
    return scanned
