"""Reading records for showing, following and replaying: committed groups only, lightly checked.

Checked are frames, crc and canonical form. Proof is `ledger.verify`'s work.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from ledger import canonical
from ledger.batch import Batch, Receipt
from ledger.directory import segment_files
from ledger.errors import LedgerRefused
from ledger.note import Verifier
from ledger.segment import COMMIT, FRAME, MAGIC, RECORD, FrameBad, frame_at, groups, read_header
from ledger.tree import leaf_hash, root_of


class Record(NamedTuple):
    """One record as read from a segment."""

    seq: int
    type: str
    tenant: str
    ts: str
    body: dict[str, object]
    """All members, envelope and content."""
    data: bytes
    """The canonical bytes."""

    @property
    def leaf(self) -> bytes:
        """The record's leaf hash."""
        return leaf_hash(self.data)

    @classmethod
    def parse(cls, data: bytes) -> "Record":
        """The record of canonical bytes; raises ValueError."""
        body = canonical.parse_typed(data)
        if not isinstance(body, dict):
            raise ValueError("not a record")
        try:
            return cls(body["seq"], body["type"], body["tenant"], body["ts"], body, data)
        except KeyError as error:
            raise ValueError(f"a record without {error}") from None


class Cursor:
    """A place in a log that moves forward; cheap to ask again when there is nothing new.

    Safe beside the writer: it sees groups once they are committed.
    """

    def __init__(self, directory: Path, start: int = 0) -> None:
        self.next = start
        """Seq of the next record to be read."""
        self._directory = directory
        self._first = -1
        self._path: Path | None = None
        self._offset = 0

    def read(self, most: int = 1000) -> list[Record]:
        """Up to about so many further records (whole groups), empty when there are none now.

        Raises `LedgerRefused` when the files are damaged or records before the end are missing.
        """
        found: list[Record] = []
        while len(found) < most:
            if self._path is None and not self._find():
                break
            before = len(found)
            ended = self._read_segment(found, most)
            if ended and not self._advance():
                break
            if not ended and len(found) == before:
                break
        return found

    def _find(self) -> bool:
        """The segment that holds `next` is chosen."""
        segments = [(first, path) for first, path in segment_files(self._directory) if first <= self.next]
        if not segments:
            return False
        self._first, self._path = segments[-1]
        self._offset = len(MAGIC)
        return True

    def _advance(self) -> bool:
        """The next segment is chosen; False when there is none yet."""
        later = [(first, path) for first, path in segment_files(self._directory) if first > self._first]
        if not later:
            return False
        if later[0][0] > self.next:
            raise LedgerRefused(f"records {self.next} to {later[0][0] - 1} are missing")
        self._first, self._path = later[0]
        self._offset = len(MAGIC)
        return True

    def _read_segment(self, found: list[Record], most: int) -> bool:
        """Committed records from the current place on are added; True when the file holds no more."""
        if self._path is None:
            return True
        with self._path.open("rb") as file:
            if file.seek(0, 2) <= self._offset:
                return True
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return self._read_groups(cast("bytes", data), found, most)

    def _read_groups(self, data: bytes, found: list[Record], most: int) -> bool:
        offset, size = self._offset, len(data)
        group: list[Record] = []
        while offset < size and len(found) < most:
            head = data[offset : offset + FRAME.size]
            if len(head) == FRAME.size:
                length, type_, seq, _ = FRAME.unpack(head)
                if type_ == RECORD and seq < self.next and offset + FRAME.size + length <= size:
                    offset += FRAME.size + length  # before our place: skipped unread
                    continue
            try:
                type_, seq, payload, offset = frame_at(data, offset)
                if type_ == RECORD:
                    group.append(Record.parse(payload))
            except FrameBad:
                return True  # an unfinished write, or damage: `verify` tells which
            except ValueError as error:
                raise LedgerRefused(f"record {seq}: {error}") from None
            if type_ == COMMIT:
                found.extend(group)
                if group:
                    self.next = group[-1].seq + 1
                group = []
                self._offset = offset
            elif type_ != RECORD:
                self._offset = offset
        return offset >= size


def read_records(directory: Path, *, start: int = 0, types: frozenset[str] | None = None) -> Iterator[Record]:
    """Committed records from a seq on, in order, of the given types or all. Raises `LedgerRefused` on missing ones."""
    cursor = Cursor(directory, start)
    while records := cursor.read():
        for record in records:
            if types is None or record.type in types:
                yield record


def receipts_again(directory: Path, records: list[Record], key: Verifier) -> dict[int, Receipt]:
    """The receipts of records that were read, by seq, as their submitter would have got them; `key` signed them."""
    wanted = {record.seq: record for record in records}
    found: dict[int, Receipt] = {}
    for first, path in reversed(segment_files(directory)):
        here = {seq for seq in wanted if seq >= first and seq not in found}
        if not here:
            continue
        data = path.read_bytes()
        try:
            _, start = read_header(data)
            for group in groups(data, start):
                for seq in here & set(range(group.first, group.last + 1)):
                    leaves = tuple(leaf_hash(one) for one in group.records)
                    batch = Batch(
                        key,
                        str(wanted[seq].body["log"]),
                        group.first,
                        group.last,
                        root_of(leaves),
                        leaves,
                        group.signature,
                    )
                    found[seq] = _receipt(wanted[seq], batch)
        except FrameBad:
            continue  # the end of what is committed
    return found


def _receipt(record: Record, batch: Batch) -> Receipt:
    leaf = batch.leaves[record.seq - batch.first]
    call = str(record.body.get("call", ""))
    return Receipt(batch.origin, record.seq, leaf, record.ts, record.type, call, batch)


def find_call(directory: Path, call: str) -> list[Record]:
    """All records of one call, in order. Looks for its text in the files, newest first, parsing nothing else.

    A call's records lie close together, so older segments are left unread once a call's first record was found.
    """
    needle = canonical.encode({"call": call})[1:-1]
    found: list[Record] = []
    for _, path in reversed(segment_files(directory)):
        if not path.stat().st_size:
            continue  # begun just now
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data = cast("bytes", mapped)
            position = data.find(needle)
            here: list[Record] = []
            while position >= 0:
                payload = _payload_around(data, position)
                if payload is not None:
                    record = Record.parse(payload)
                    if record.body.get("call") == call:
                        here.append(record)
                position = data.find(needle, position + len(needle))
            found = here + found
        if any(record.body.get("attempt") == 1 or record.type == "call.rejected" for record in found):
            first = found[0]
            if first.type != "call.outcome":
                break
    return found


def _payload_around(data: bytes, position: int) -> bytes | None:
    """The payload of the record frame that contains a position, or None."""
    lowest = max(0, position - 64 * 1024)
    start = data.rfind(b"{", lowest, position)
    while start >= FRAME.size:
        try:
            type_, _, payload, after = frame_at(data, start - FRAME.size)
        except FrameBad:
            type_, payload, after = 0, b"", 0
        if type_ == RECORD and after > position:
            return payload
        start = data.rfind(b"{", lowest, start)
    return None
