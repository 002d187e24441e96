"""The offline verifier: everything recomputed from the bytes, nothing believed but the trust file.

For each segment in order, and in it for each committed group:

(1) frames: lengths, crc, order; every byte belongs to one;
(2) the group's leaves, its root, and the signature of the key in force for it;
(3) each record: canonical bytes, schema, log, seq, chain, tenant sequence, calls' life-cycle, policy, times, runs;
(4) seals: size, counts, tenant heads, the checkpoint they quote;
(5) the root at every size that a checkpoint note names.

Then over the whole: notes, the kept checkpoint, uniqueness, files that do not belong, what is anchored.

The first contradiction in (1) to (3) ends the reading, for nothing behind it can be judged; others are collected.
"""

from collections import Counter, deque
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

from ledger import canonical
from ledger.batch import statement
from ledger.directory import CHECKPOINTS, DESCRIPTION, QUARANTINE, SEGMENTS, Description, note_name
from ledger.findings import Broken, Finding, Weight
from ledger.keyring import Keyring
from ledger.layout import note_names, read_layout
from ledger.lifecycle import LifecycleBroken
from ledger.note import Checkpoint, NoteInvalid, Verifier, open_note, unsafe_checkpoint_text
from ledger.report import Report, Tally
from ledger.runs import RunBook
from ledger.schema import explain_record
from ledger.segment import FrameBad, Group, any_frame_after, groups, read_header
from ledger.sources import DirectorySource, Source
from ledger.state import LogState, PolicyUnknown
from ledger.tenants import NO_LEAF, TenantTree, heads_root, state_digest
from ledger.tree import root_of
from ledger.trust import Trust
from ledger.uniqueness import Seen, begins_call, find_duplicates

MAX_OF_A_NAME: Final = 100
"""Findings of one name that are listed; a log with more is not better described by more."""


class WrongUse(ValueError):
    """What was asked makes no sense: exit code 2."""


def verify(
    directory: Path | Source,
    trust: Trust,
    *,
    expect_checkpoint: bytes | None = None,
    tenant: str | None = None,
    rung: int | None = None,
) -> Report:
    """What can be said of a ledger. Raises `WrongUse` (exit 2) and OSError (could not run, exit 3).

    `expect_checkpoint` is a note kept elsewhere: the log must contain what it covers. `rung` demands more than the
    trust file does. `tenant` adds that tenant's own figures to the report.
    """
    source = DirectorySource(directory) if isinstance(directory, Path) else directory
    if isinstance(directory, Path) and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is no directory")
    return _Verification(source, trust, expect_checkpoint, tenant).run(trust.rung if rung is None else rung)


class _Verification:
    """One run over one ledger."""

    def __init__(self, source: Source, trust: Trust, expect: bytes | None, tenant: str | None) -> None:
        self.source = source
        self.trust = trust
        self.findings: list[Finding] = []
        self._counts: Counter[str] = Counter()
        self.tally = Tally(tenant)
        self.keys = Keyring(trust)
        self.runs = RunBook(self.find)
        self.state = LogState(trust.origin, b"")
        self.nonces = Seen()
        self.calls = Seen()
        self.roots: dict[int, bytes] = {}
        self.seal_ends: deque[tuple[int, bytes]] = deque([(0, b"")])
        self.quoted = 0
        """Size of the newest checkpoint that a seal names."""
        self.kept: set[int] = set()
        self.layout = read_layout(source, self.find)
        self.recover_names: set[str] = set()
        self.blinding_digest = ""
        self.expected = self._parse_expected(expect)
        self.expect_note = expect

    def find(self, name: str, where: str, detail: str) -> None:
        """A finding that does not end the reading. Of each name some; so that many of one never hide another."""
        self._counts[name] += 1
        if self._counts[name] <= MAX_OF_A_NAME:
            self.findings.append(Finding(name, where, detail))

    def run(self, rung: int) -> Report:
        """The report."""
        try:
            self._describe()
            self._segments()
            self.runs.finish()
        except Broken as broken:
            self.findings.append(broken.finding)
        else:
            self._unique()
        self._notes()
        self._kept_checkpoint()
        self._quarantine_files()
        return self.tally.report(self, rung)

    # --- files ---

    def _describe(self) -> None:
        if not self.layout.described:
            raise Broken("description_damaged", DESCRIPTION, "missing")
        try:
            description = Description.parse(self.source.read(DESCRIPTION))
        except ValueError as error:
            raise Broken("description_damaged", DESCRIPTION, str(error)) from None
        trust = self.trust
        if description.genesis != trust.genesis:
            raise Broken("genesis_mismatch", DESCRIPTION, "another genesis record than the pinned one")
        if description.origin != trust.origin or description.root.vkey != trust.root.vkey:
            raise Broken("description_damaged", DESCRIPTION, "another log or root key than the pinned one")
        self.state.blinding = description.blinding
        self.blinding_digest = "sha256:" + sha256(description.blinding).hexdigest()

    # --- (1) segments ---

    def _segments(self) -> None:
        if not self.layout.segments:
            raise Broken("segment_missing", SEGMENTS, "there are none")
        for index, (first, name) in enumerate(self.layout.segments):
            with self.source.map(name) as data:
                self._segment(first, name, data, final=index == len(self.layout.segments) - 1)

    def _segment(self, first: int, name: str, data: bytes, *, final: bool) -> None:
        state = self.state
        if first != state.size:
            kind = "segment_missing" if first > state.size else "segment_header"
            raise Broken(kind, name, f"starts at record {first}, the log so far has {state.size}")
        end = 0
        try:
            header, end = read_header(data)
            if (header.origin, header.first, header.prev, header.frontier, header.state) != (
                state.origin,
                first,
                state.prev if first else NO_LEAF,
                tuple(state.frontier.nodes),
                state_digest(state.tenants, state.calls.open),
            ):
                raise Broken("segment_header", name, "does not continue the log")
            for group in groups(data, end):
                self._group(group, name)
                end = group.end
            if state.size == first:
                raise FrameBad(end, "a segment without records")
        except FrameBad as bad:
            where = f"{name} offset {bad.offset}"
            if bad.order:
                raise Broken("record_order", where, bad.detail) from None
            if final and state.size and any_frame_after(data, bad.offset) is None:
                committed = end if state.size > first else 0
                self.find("tail_torn", f"{name} offset {committed}", f"{len(data) - committed} bytes: {bad.detail}")
                return
            raise Broken("frame_damaged", where, bad.detail) from None
        self.tally.bytes += len(data)

    # --- (2) groups ---

    def _group(self, group: Group, name: str) -> None:
        where = f"{name} offset {group.offset}"
        if group.first != self.state.size:
            raise Broken("record_order", where, f"record {group.first} where {self.state.size} is due")
        records = group.records
        leaves = [sha256(b"\x00" + data).digest() for data in records]
        parsed: list[dict[str, object]] | None = None
        if group.first == 0:
            if leaves[0] != self.trust.genesis:
                raise Broken("genesis_mismatch", "record 0", "this is not the pinned genesis record")
            parsed = [self._parse(seq, data) for seq, data in enumerate(records)]
            self.keys.start(parsed[0])
        key = self._key(group, where)
        text = statement(self.state.origin, group.first, group.last, root_of(leaves), leaves[-1])
        if not key.verify(text.encode("ascii"), group.signature):
            raise Broken("batch_signature", where, f"records {group.first} to {group.last}")
        for offset, data in enumerate(records):
            seq = group.first + offset
            record = parsed[offset] if parsed is not None else self._parse(seq, data)
            self._record(seq, record, leaves[offset])
            if record["type"] == "key.add" and seq != group.last:
                raise Broken("key_range", f"record {seq}", "records after a key change that the old key signed")

    def _key(self, group: Group, where: str) -> Verifier:
        """Class 11: the right key for these records, not just any key of the log."""
        key = self.keys.current
        if group.key_id == key.key_id:
            return key
        if self.keys.by_id(group.key_id) is not None:
            raise Broken("key_range", where, f"key {group.key_id.hex()} was not in force")
        raise Broken("key_unknown", where, f"key {group.key_id.hex()}")

    def _parse(self, seq: int, data: bytes) -> dict[str, Any]:
        try:
            record = canonical.parse_typed(data)
        except canonical.NotCanonical as error:
            raise Broken("record_malformed", f"record {seq}", str(error)) from None
        problem = explain_record(record)
        if problem is not None:
            raise Broken("record_malformed", f"record {seq}", problem)
        parsed: dict[str, Any] = record  # type: ignore[assignment]
        return parsed

    # --- (3) records ---

    def _record(self, seq: int, record: dict[str, Any], leaf: bytes) -> None:
        state = self.state
        where = f"record {seq}"
        type_, tenant = record["type"], record["tenant"]
        if record["log"] != state.origin:
            raise Broken("log_foreign", where, "of another log")
        if record["seq"] != seq:
            raise Broken("record_order", where, "bears another number than its frame")
        if record["prev"] != state.prev:
            raise Broken("chain_broken", where, "does not name the record before it")
        tree = state.tenants.get(tenant)
        if tree is None:
            tree = TenantTree(tenant, state.blinding)
        if record["tseq"] != tree.frontier.size or record["tprev"] != tree.last:
            raise Broken("tenant_chain_broken", where, f"does not continue the records of tenant {tenant}")
        self.runs.add(seq, type_, record, state.calls)
        if type_ == "seal":
            self._seal(seq, record)
        elif type_ == "key.add":
            self.keys.add(seq, record)
        elif type_ == "key.revoke":
            self.keys.revoke(seq, record)
        elif type_ == "ledger.recover":
            self._recovery(record)
        elif type_ == "genesis" and record["blinding"] != self.blinding_digest:
            raise Broken("description_damaged", DESCRIPTION, "the blinding key is not the one genesis commits to")
        try:
            state.admit(type_, seq, tenant, record)
        except PolicyUnknown as error:
            self.find("policy_unknown", where, str(error))
            state.calls.admit(type_, seq, tenant, record)
        except LifecycleBroken as error:
            raise Broken("lifecycle_illegal", where, str(error)) from None
        if not tree.frontier.size:
            state.tenants[tenant] = tree
        state.extend(tree, leaf, leaf.hex())
        self.nonces.add(record["nonce"])
        if begins_call(record):
            self.calls.add(record["call"])
        size = seq + 1
        if size in self.layout.notes or size == self.expected_size or type_ == "seal":
            root = state.frontier.root()
            if type_ == "seal":
                self.seal_ends.append((size, root))
            if size in self.layout.notes or size == self.expected_size:
                self.roots[size] = root
        self.tally.add(seq, type_, tenant, record)

    # --- (4) seals ---

    def _seal(self, seq: int, record: dict[str, Any]) -> None:
        state = self.state
        where = f"record {seq}"
        if record["size"] != seq or record["policy"] != state.policy or record["tenants"] != len(state.tenants):
            self.find("seal_mismatch", where, "size, policy or number of tenants are not those of the log here")
        if record["key_id"] != self.keys.current.key_id.hex():
            self.find("seal_mismatch", where, "names another key than the one in force")
        if record["open"] != len(state.calls.open):
            self.find("open_count_mismatch", where, f"{record['open']} claimed, {len(state.calls.open)} are open")
        if record["heads"] != heads_root(state.tenants.values()).hex():
            self.find("heads_mismatch", where, "tenant trees recomputed from the records have another root")
        quoted = record["checkpoint"]
        if quoted is None:
            if self.quoted:
                self.find("seal_mismatch", where, "quotes no checkpoint though earlier seals do")
            return
        size = quoted["size"]
        while len(self.seal_ends) > 1 and self.seal_ends[0][0] < size:
            self.seal_ends.popleft()
        if self.seal_ends[0][0] != size or self.seal_ends[0][1].hex() != quoted["root"]:
            self.find("checkpoint_mismatch", where, f"quotes a checkpoint of {size} records that this log never had")
        self.quoted = max(self.quoted, size)
        if quoted["kept"]:
            self.kept.add(size)

    def _recovery(self, record: dict[str, Any]) -> None:
        """Class 27: what a recovery dropped is in quarantine, byte for byte, and was never committed."""
        size = record["bytes"]
        if not size:
            return
        base = f"{record['last']:020d}-{record['segment']:020d}-{record['offset']}-{record['sha256'][:16]}.torn"
        self.recover_names.add(base)
        where = f"{QUARANTINE}/{base}"
        if base not in self.layout.quarantine:
            self.find("recovery_abused", where, "the bytes that a recovery set aside are missing")
            return
        data = self.source.read(where)
        if len(data) != size or sha256(data).hexdigest() != record["sha256"]:
            self.find("recovery_abused", where, "not the bytes that the recovery set aside")
            return
        try:
            offset = read_header(data)[1] if record["offset"] == 0 else 0
            committed = next(groups(data, offset), None)
        except FrameBad:
            return
        if committed is not None:
            self.find("recovery_abused", where, f"holds committed records {committed.first} to {committed.last}")

    def _quarantine_files(self) -> None:
        if self._tampered():
            return
        for base in sorted(self.layout.quarantine - self.recover_names):
            where = f"{QUARANTINE}/{base}"
            if base.startswith(f"{self.state.size - 1:020d}-"):
                self.find("recovery_unfinished", where, "set aside, but not recorded yet")
            else:
                self.find("file_unexpected", where, "no recovery names it")

    # --- (5) checkpoints ---

    def _parse_expected(self, note: bytes | None) -> Checkpoint | None:
        if note is None:
            self.expected_size = -1
            return None
        try:
            claimed = unsafe_checkpoint_text(note)
        except NoteInvalid as error:
            raise WrongUse(f"the expected checkpoint is no checkpoint: {error}") from None
        if claimed.origin != self.trust.origin:
            raise WrongUse("the expected checkpoint is of another log")
        self.expected_size = claimed.size
        return claimed

    def _notes(self) -> None:
        """Classes 5, 8, 9, 11: every note on disk, and none missing."""
        broken = self._tampered()
        for size, note in sorted(self.layout.notes.items()):
            name = f"{CHECKPOINTS}/{note_name(size)}"
            if broken and size > self.state.size:
                continue  # of records that could not be judged
            checkpoint = self._note(size, name, note)
            if checkpoint is not None and self._agrees(checkpoint, name):
                self.tally.checkpoint = checkpoint
        if self._tampered():
            return
        present = self.layout.notes.keys() | {size for size, _ in note_names(self.source)}  # a writer may have gone on
        missing = sorted(self.kept - present)
        if missing:
            self.find(
                "checkpoint_missing", CHECKPOINTS, f"the note of {missing[0]} records, and {len(missing) - 1} more"
            )
        elif self.quoted and max(present, default=0) < self.quoted:
            self.find(
                "checkpoint_missing", CHECKPOINTS, f"none of {self.quoted} records or more, though one was signed"
            )

    def _tampered(self) -> bool:
        return any(finding.kind.weight is Weight.TAMPERED for finding in self.findings)

    def _note(self, size: int, name: str, note: bytes) -> Checkpoint | None:
        key = self.keys.for_record(size - 1)
        if key is None:
            return None  # the log's first record is broken; that has been found
        try:
            text, _ = open_note(note, [key])
            checkpoint = Checkpoint.parse(text)
            if checkpoint.origin != self.trust.origin or checkpoint.size != size:
                raise NoteInvalid("of another log or size than its name says")
        except NoteInvalid as error:
            others = [known.verifier for known in self.keys.ranges if known.verifier is not key]
            try:
                open_note(note, others)
            except NoteInvalid:
                self.find("checkpoint_invalid", name, str(error))
            else:
                self.find("key_range", name, "signed by a key of the log that was not in force at this size")
            return None
        return checkpoint

    def _agrees(self, checkpoint: Checkpoint, where: str) -> bool:
        if checkpoint.size > self.state.size:
            if not self._tampered():
                lost = f"covers {checkpoint.size} records, {self.state.size} are there"
                self.find("tail_truncated", where, lost)
            return False
        if self.roots.get(checkpoint.size) != checkpoint.root:
            self.find("checkpoint_mismatch", where, f"commits to another root at {checkpoint.size} records")
            return False
        return True

    def _kept_checkpoint(self) -> None:
        if self.expected is None or self.expect_note is None:
            return
        where = "the kept checkpoint"
        try:
            open_note(self.expect_note, [known.verifier for known in self.keys.ranges])
        except NoteInvalid as error:
            self.find("checkpoint_foreign", where, str(error))
            return
        if self._agrees(self.expected, where):
            self.tally.agrees_through = self.expected.size

    # --- uniqueness ---

    def _unique(self) -> None:
        """Class 14, exactly: hashes that occur twice are read again and compared as texts."""
        nonces, calls = self.nonces.suspects(), self.calls.suspects()
        if nonces or calls:
            find_duplicates(self._reread(), nonces, calls, self.find)

    def _reread(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for _, name in self.layout.segments:
            with self.source.map(name) as data:
                try:
                    _, offset = read_header(data)
                    for group in groups(data, offset):
                        for index, payload in enumerate(group.records):
                            yield group.first + index, cast("dict[str, Any]", canonical.decode(payload))
                except FrameBad:
                    return  # the torn end, which has been reported
