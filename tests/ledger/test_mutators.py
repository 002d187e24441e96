"""One attack or accident a test, each asserting the one finding that names it.

`Forger` is an insider with the log's hot key: it takes a ledger apart into records and puts a changed one together
again, with every frame, chain, tree, signature and checkpoint it wants to be right made right. What is then still found
is found by the check under test and no other.
"""

import contextlib
import copy
import json
from collections.abc import Callable
from hashlib import sha256

import pytest

from ledger import LedgerRefused, Limits, MemorySource, Trust, canonical, verify
from ledger.batch import statement
from ledger.genesis import key_content, revoke_statement
from ledger.keys import load_key
from ledger.note import Checkpoint, Signer
from ledger.segment import COMMIT, COMMIT_PAYLOAD, HEADER, MAGIC, RECORD, Header, encode_frame, groups, read_header
from ledger.state import LogState
from ledger.tenants import TenantTree, heads_root, state_digest
from ledger.tree import leaf_hash, root_of
from ledger.verify import WrongUse

type Files = dict[str, bytes]
type Body = dict[str, object]

LIMITS = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600)


class Forger:
    """A ledger as lists of records by group and segment, and the keys to sign it anew."""

    def __init__(self, files: Files, trust: Trust, hot: Signer, root: Signer) -> None:
        self.files = files
        self.trust = trust
        self.hot = hot
        self.root = root
        self.blinding = bytes.fromhex(json.loads(files["LEDGER.json"])["blinding"])
        self.segments: list[list[list[Body]]] = []
        for name in sorted(files):
            if name.startswith("segments/"):
                _, offset = read_header(files[name])
                self.segments.append(
                    [[json.loads(data) for data in group.records] for group in groups(files[name], offset)]
                )

    @property
    def flat(self) -> list[Body]:
        return [record for segment in self.segments for group in segment for record in group]

    def record(self, type_: str, index: int = 0) -> Body:
        return [record for record in self.flat if record["type"] == type_][index]

    def remove(self, record: Body) -> None:
        for segment in self.segments:
            for group in segment:
                if record in group:
                    group.remove(record)
            segment[:] = [group for group in segment if group]
        self.segments = [segment for segment in self.segments if segment]

    def insert_after(self, record: Body, new: Body) -> None:
        for segment in self.segments:
            for group in segment:
                if record in group:
                    group.insert(group.index(record) + 1, new)
                    return

    def build(
        self,
        *,
        keep: Callable[[Body], bool] = lambda _: False,
        signer: Callable[[int], Signer] | None = None,
        notes: bool = True,
        seals: bool = True,
        encode: Callable[[Body], bytes] = canonical.encode,
    ) -> Files:
        """The ledger's files, everything recomputed; records for which `keep` is true keep all their own members."""
        state = LogState(self.trust.origin, self.blinding)
        made: Files = {"LEDGER.json": self.files["LEDGER.json"]}
        heads: dict[int, bytes] = {}
        quoted: Body | None = None
        for segment in self.segments:
            first = state.size
            header = Header(
                state.origin,
                first,
                state.prev,
                tuple(state.frontier.nodes),
                state_digest(state.tenants, state.calls.open),
            )
            data = MAGIC + encode_frame(HEADER, first, header.encode())
            for group in segment:
                start, leaves = state.size, []
                for record in group:
                    seq = state.size
                    tree = state.tenants.get(str(record["tenant"])) or TenantTree(str(record["tenant"]), self.blinding)
                    if not keep(record):
                        record.update(seq=seq, prev=state.prev, tseq=tree.size, tprev=tree.last)
                        if record["type"] == "ledger.start" and seq > 1:
                            record["previous"] = seq - 1
                        if record["type"] == "seal" and seals:
                            record.update(
                                size=seq,
                                open=len(state.calls.open),
                                tenants=len(state.tenants),
                                policy=state.policy,
                                heads=heads_root(state.tenants.values()).hex(),
                                checkpoint=quoted,
                            )
                    payload = encode(record)
                    leaf = leaf_hash(payload)
                    with contextlib.suppress(ValueError):  # what is illegal is to be found by the verifier
                        state.admit(str(record["type"]), seq, str(record["tenant"]), record)
                    state.tenants[str(record["tenant"])] = tree
                    state.extend(tree, leaf, leaf.hex())
                    leaves.append(leaf)
                    data += encode_frame(RECORD, seq, payload)
                    if record["type"] == "seal":
                        heads[state.size] = state.frontier.root()
                        quoted = {"size": state.size, "root": state.frontier.root().hex(), "kept": True}
                by = self.hot if signer is None else signer(start)
                text = statement(state.origin, start, state.size - 1, root_of(leaves), leaves[-1])
                signature = by.sign(text.encode())
                payload = COMMIT_PAYLOAD.pack(start, by.verifier.key_id, signature)
                data += encode_frame(COMMIT, state.size - 1, payload)
            made[f"segments/{first:020d}.seg"] = data
        if notes:
            for size, root in heads.items():
                by = self.hot if signer is None else signer(size - 1)
                note = by.sign_note(Checkpoint(state.origin, size, root).text)
                made[f"checkpoints/{size:020d}.note"] = note
        return made

    def names(self, files: Files | None = None, **options: object) -> list[str]:
        """Names of what the verifier finds in the rebuilt ledger, or in these files."""
        report = verify(MemorySource(files if files is not None else self.build()), self.trust, **options)
        return sorted({finding.name for finding in report.findings})


@pytest.fixture
def forger(world, records, store, tmp_path) -> Forger:
    """Two runs: policy, an ended call of each of two tenants, a denial; an orderly restart; another call; closed."""
    with world(limits=LIMITS) as ledger:
        ledger.submit(*records.activate()).result(10)
        for name in ("acme", "beta"):
            intent = ledger.submit(*records.intent(f"c_{name}", tenant=name)).result(10)
            ledger.submit(*records.outcome(f"c_{name}", intent.seq, tenant=name)).result(10)
        ledger.submit(*records.denied("d_1")).result(10)
    with world(limits=LIMITS) as ledger:
        intent = ledger.submit(*records.intent("c_late")).result(10)
        ledger.submit(*records.outcome("c_late", intent.seq)).result(10)
        trust = ledger.trust()
    directory = tmp_path / "ledger"
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.stat().st_size
    }
    hot = load_key(tmp_path / "keys" / "ledger-hot.pem", trust.origin)
    root = load_key(tmp_path / "keys" / "ledger-root.pem", f"{trust.origin}/root")
    made = Forger(files, trust, hot, root)
    assert made.names(files) == []
    assert made.names() == [], "the forger must be able to rebuild an intact ledger"
    return made


# --- classes 1 to 6: edits, deletions, insertions, reordering, truncation, segments ---


def test_class_1_an_edit_without_the_key(forger):
    forger.record("call.denied")["op"]["host"] = "evil.example"
    edited = forger.build(notes=False)
    stolen = Forger(forger.files, forger.trust, forger.hot, forger.root)
    pieces = dict(forger.files)
    name = next(name for name in sorted(pieces) if name.startswith("segments/"))
    genuine = pieces[name]
    _, offset = read_header(genuine)
    data = genuine[:offset]
    forged = dict(zip(*_payloads(edited[name]), strict=True))
    for group in groups(genuine, offset):
        for index, payload in enumerate(group.records):
            seq = group.first + index
            changed = forged[seq] if json.loads(payload)["type"] == "call.denied" else payload
            data += encode_frame(RECORD, seq, changed)
        data += encode_frame(COMMIT, group.last, COMMIT_PAYLOAD.pack(group.first, group.key_id, group.signature))
    assert stolen.names({**pieces, name: data}) == ["batch_signature"]


def _payloads(data: bytes) -> tuple[list[int], list[bytes]]:
    _, offset = read_header(data)
    numbers, payloads = [], []
    for group in groups(data, offset):
        for index, payload in enumerate(group.records):
            numbers.append(group.first + index)
            payloads.append(payload)
    return numbers, payloads


def test_class_1_an_edit_with_the_key_that_leaves_the_next_record(forger):
    """The group is signed anew, but the record after it still names the old leaf."""
    edited = forger.record("call.denied")
    edited["op"]["host"] = "evil.example"
    frozen = {record["seq"] for record in forger.flat if record["seq"] > edited["seq"]}
    files = forger.build(keep=lambda record: record["seq"] in frozen)
    assert forger.names(files) == ["chain_broken"]


def test_class_1_an_edit_with_the_key_against_checkpoints_already_seen(forger):
    """Everything signed anew, but the notes of before are still there."""
    forger.record("call.denied")["op"]["host"] = "evil.example"
    notes = {name: data for name, data in forger.files.items() if name.startswith("checkpoints/")}
    files = {**forger.build(notes=False), **notes}
    assert forger.names(files) == ["checkpoint_mismatch"]


def test_class_2_a_record_deleted_from_a_file(forger):
    frozen = forger.record("call.denied")
    forger.remove(frozen)
    files = forger.build(keep=lambda record: record["seq"] > frozen["seq"])
    assert forger.names(files) == ["record_order"]


def test_class_3_a_record_inserted_from_another_time(forger):
    """The chain is what it must be, only the number shows it."""
    target = forger.record("call.denied")
    extra = {**copy.deepcopy(target), "call": "d_extra", "nonce": "00" * 16}
    forger.insert_after(target, extra)
    files = forger.build()
    body = _splice(files, forger, lambda record: record["call"] == "d_extra" if "call" in record else False)
    assert forger.names(body) == ["record_order"]


def _splice(files: Files, forger: Forger, chosen: Callable[[Body], bool]) -> Files:
    """The chosen record claims the number after its own; its group is signed accordingly."""

    def encode(record: Body) -> bytes:
        shifted = {**record, "seq": record["seq"] + 1} if chosen(record) else record
        return canonical.encode(shifted)

    return forger.build(encode=encode)


def test_class_4_two_groups_exchanged_in_a_file(forger):
    name = min(name for name in forger.files if name.startswith("segments/"))
    data = forger.files[name]
    _, offset = read_header(data)
    parts = list(groups(data, offset))
    parts[2], parts[3] = parts[3], parts[2]
    made = data[:offset] + b"".join(data[part.offset : part.end] for part in parts)
    assert forger.names({**forger.files, name: made}) == ["record_order"]


def test_class_5_the_tail_cut_below_the_directorys_own_checkpoint(forger):
    name = max(name for name in forger.files if name.startswith("segments/"))
    data = forger.files[name]
    _, offset = read_header(data)
    cut = list(groups(data, offset))[-1].offset
    assert forger.names({**forger.files, name: data[:cut]}) == ["tail_truncated"]


def test_class_5_and_9_the_tail_cut_with_its_notes_against_a_kept_checkpoint(forger, store):
    """A whole later run removed, notes included: an older ledger put in its place."""
    last = max(name for name in forger.files if name.startswith("segments/"))
    first = int(last[-24:-4])
    files = {
        name: data
        for name, data in forger.files.items()
        if name != last and not (name.startswith("checkpoints/") and int(name[-25:-5]) > first)
    }
    assert forger.names(files) == []
    assert forger.names(files, expect_checkpoint=store.value) == ["tail_truncated"]


def test_class_6_a_segment_dropped(forger):
    name = min(name for name in forger.files if name.startswith("segments/"))
    files = {other: data for other, data in forger.files.items() if other != name}
    assert forger.names(files) == ["segment_missing"]


def test_class_6_a_segment_that_continues_another_log(forger):
    name = max(name for name in forger.files if name.startswith("segments/"))
    data = forger.files[name]
    header, offset = read_header(data)
    changed = Header(header.origin, header.first, "11" * 32, header.frontier, header.state)
    made = MAGIC + encode_frame(HEADER, header.first, changed.encode()) + data[offset:]
    assert forger.names({**forger.files, name: made}) == ["segment_header"]


# --- classes 7 to 11: rewriting, forks, keys ---


def test_class_7_a_history_rewritten_from_genesis(forger):
    """With the hot and root keys even genesis can be made anew; the pinned hash tells."""
    forger.record("genesis")["software"] = "exeat/9"
    assert forger.names() == ["genesis_mismatch"]


def test_class_8_a_fork_against_a_kept_checkpoint(forger, store):
    forger.record("call.denied")["op"]["host"] = "evil.example"
    assert forger.names() == []
    assert forger.names(expect_checkpoint=store.value) == ["checkpoint_mismatch"]


def test_class_10_a_group_signed_by_a_stranger(forger, tmp_path):
    stranger = _new_key(forger)
    files = forger.build(signer=lambda seq: stranger if seq > 4 else forger.hot, notes=False)
    assert forger.names(files) == ["key_unknown"]


def test_class_10_a_checkpoint_signed_by_a_stranger(forger):
    stranger = _new_key(forger)
    files = forger.build()
    name = max(name for name in files if name.startswith("checkpoints/"))
    text = files[name].decode().split("\n\n")[0] + "\n"
    assert forger.names({**files, name: stranger.sign_note(text)}) == ["checkpoint_invalid"]


def test_class_10_a_log_key_that_the_root_did_not_certify(forger):
    """Another trust file's root: everything else fits."""
    other = Signer(f"{forger.trust.origin}/root", _raw_key())
    forger.trust = Trust(forger.trust.origin, other.verifier, forger.trust.genesis, 0)
    assert forger.names(forger.files) == ["description_damaged"]
    description = json.loads(forger.files["LEDGER.json"])
    description["root"] = other.verifier.vkey
    files = {**forger.files, "LEDGER.json": canonical.encode(description) + b"\n"}
    assert forger.names(files) == ["key_uncertified"]


def test_class_10_a_kept_checkpoint_of_the_same_name_by_another_key(forger):
    stranger = _new_key(forger)
    note = stranger.sign_note(Checkpoint(forger.trust.origin, 3, bytes(32)).text)
    assert forger.names(forger.files, expect_checkpoint=note) == ["checkpoint_foreign"]


def test_a_kept_checkpoint_of_another_log_is_wrong_use(forger):
    note = forger.hot.sign_note(Checkpoint("exeat.test/other", 3, bytes(32)).text)
    with pytest.raises(WrongUse):
        verify(MemorySource(forger.files), forger.trust, expect_checkpoint=note)


def _raw_key() -> object:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def _new_key(forger: Forger) -> Signer:
    return Signer(forger.trust.origin, _raw_key())


def _rotated(forger: Forger) -> tuple[Signer, int]:
    """A key.add in a group of its own after the denial; returns the new key and the first seq it signs."""
    new = _new_key(forger)
    denial = forger.record("call.denied")
    at = denial["seq"] + 1
    content = key_content(forger.trust.origin, forger.root, forger.hot, new.verifier, at + 1)
    added = {**_own(denial), "type": "key.add", **content}
    for segment in forger.segments:
        for index, group in enumerate(segment):
            if denial in group:
                segment.insert(index + 1, [added])
                break
    for record in forger.flat:
        if record["type"] == "seal" and record["seq"] > denial["seq"]:
            record["key_id"] = new.verifier.key_id.hex()
        if record.get("intent", 0) > denial["seq"]:
            record["intent"] += 1
    return new, at + 1


def _own(like: Body) -> Body:
    """The envelope of a record of the log itself, at the time of another."""
    envelope = {key: like[key] for key in ("v", "log", "ts", "boot", "mono_us")}
    return {**envelope, "seq": -1, "prev": "", "tseq": 0, "tprev": "", "tenant": "-", "nonce": "ff" * 16}


def test_a_rotated_key_is_good_from_its_size_on(forger):
    new, first = _rotated(forger)
    files = forger.build(signer=lambda seq: new if seq >= first else forger.hot)
    assert forger.names(files) == []


def test_class_11_the_old_key_on_new_records(forger):
    _rotated(forger)
    assert forger.names(forger.build(notes=False)) == ["key_range"]


def test_class_11_the_new_key_on_an_old_checkpoint(forger):
    new, first = _rotated(forger)
    files = forger.build(signer=lambda seq: new if seq >= first else forger.hot)
    name = min(name for name in files if name.startswith("checkpoints/"))
    text = files[name].decode().split("\n\n")[0] + "\n"
    assert forger.names({**files, name: new.sign_note(text)}) == ["key_range"]


def test_class_10_a_key_added_without_the_root(forger):
    new, first = _rotated(forger)
    forger.record("key.add")["by_root"] = forger.record("key.add")["by_key"]
    files = forger.build(signer=lambda seq: new if seq >= first else forger.hot, notes=False)
    assert forger.names(files) == ["key_uncertified"]


def test_class_11_a_revoked_key_that_signed_beyond_its_end(forger):
    import base64

    denial = forger.record("call.denied")
    key_id = forger.hot.verifier.key_id.hex()
    text = revoke_statement(forger.trust.origin, key_id, 3)
    signature = base64.b64encode(forger.root.sign(text)).decode()
    content = {"type": "key.revoke", "key_id": key_id, "from_size": 3, "reason": "stolen", "by_root": signature}
    forger.insert_after(denial, {**_own(denial), **content})
    assert forger.names(forger.build(notes=False)) == ["key_range"]


# --- classes 13 to 18 ---


def test_class_13_a_record_older_than_the_one_before(forger):
    forger.record("call.denied")["ts"] = "2020-01-01T00:00:00.000000Z"
    assert "time_reversed" in forger.names()


def test_class_13_a_clock_moved_without_a_record(forger):
    """All times from some record on are an hour later; the monotonic ones are not."""
    denial = forger.record("call.denied")
    for record in forger.flat:
        if record["seq"] >= denial["seq"]:
            record["ts"] = record["ts"][:11] + f"{(int(record['ts'][11:13]) + 1) % 24:02d}" + record["ts"][13:]
    assert "clock_step_unrecorded" in forger.names()


def test_class_14_one_identifier_for_two_calls(forger):
    forger.record("call.denied")["call"] = "c_late"
    forger.remove(forger.record("call.outcome", -1))
    forger.remove(forger.record("call.intent", -1))
    target = forger.record("call.denied")
    rejected = {"reason": {"code": "internal"}, "source": "local", "door": "x", "agent": None, "op": None}
    forger.insert_after(target, {**_own(target), "type": "call.rejected", **rejected, "call": "c_late"})
    assert forger.names() == ["lifecycle_illegal"]


def test_class_14_one_identifier_for_two_calls_far_apart(forger, monkeypatch):
    """Beyond the state machine's memory the count over the whole log finds it."""
    monkeypatch.setattr("ledger.lifecycle.REMEMBERED", 1)
    forger.record("call.intent", 2)["call"] = "c_acme"
    forger.record("call.outcome", 2)["call"] = "c_acme"
    assert forger.names() == ["duplicate_call"]


def test_class_14_a_nonce_used_twice(forger):
    forger.record("call.denied")["nonce"] = forger.record("call.intent")["nonce"]
    assert forger.names() == ["duplicate_nonce"]


def test_class_15_a_record_of_another_log(forger):
    forger.record("call.denied")["log"] = "exeat.test/other"
    assert forger.names() == ["log_foreign"]


def test_class_15_a_record_moved_to_another_tenant(forger):
    """Only the name is changed: the tenant's own sequence does not fit."""
    target = forger.record("call.denied")
    target["tenant"] = "beta"
    files = forger.build(keep=lambda record: record is target)
    assert forger.names(files) == ["tenant_chain_broken"]


def test_class_16_a_policy_that_was_never_activated(forger):
    forger.record("call.intent")["decision"]["policy"] = "sha256:" + "00" * 32
    assert forger.names() == ["policy_unknown"]


def _outcome_twice(forger: Forger) -> None:
    target = forger.record("call.outcome")
    forger.insert_after(target, {**copy.deepcopy(target), "nonce": "ee" * 16})


def _outcome_without_intent(forger: Forger) -> None:
    forger.record("call.outcome")["intent"] = 2


def _intent_after_denial(forger: Forger) -> None:
    forger.record("call.intent", 2)["call"] = "d_1"
    forger.record("call.outcome", 2)["call"] = "d_1"


def _attempt_skipped(forger: Forger) -> None:
    forger.record("call.intent", 1)["attempt"] = 2
    forger.record("call.outcome", 1)["attempt"] = 2


def _outcome_of_another_tenant(forger: Forger) -> None:
    forger.record("call.outcome")["tenant"] = "beta"


def _indeterminate_for_free(forger: Forger) -> None:
    outcome = forger.record("call.outcome")
    outcome["result"]["status"] = "indeterminate"
    outcome["cost"]["micro"] = 0


def _indeterminate_without_its_units(forger: Forger) -> None:
    forger.record("call.intent")["cost"]["units"] = {"recipients": 3_000_000}
    forger.record("call.outcome")["result"]["status"] = "indeterminate"


@pytest.mark.parametrize(
    "change",
    [
        _outcome_twice,
        _outcome_without_intent,
        _intent_after_denial,
        _attempt_skipped,
        _outcome_of_another_tenant,
        _indeterminate_for_free,
        _indeterminate_without_its_units,
    ],
)
def test_class_17_an_illegal_life_of_a_call(forger, change):
    change(forger)
    assert forger.names() == ["lifecycle_illegal"]


def test_class_18_an_outcome_removed_while_a_seal_counted_none_open(forger):
    forger.remove(forger.record("call.outcome", -1))
    seal = forger.record("seal", -1)
    claimed = seal["open"]
    files = forger.build(
        encode=lambda record: canonical.encode({**record, "open": claimed} if record is seal else record)
    )
    assert forger.names(files) == ["open_count_mismatch"]


def test_class_18_an_intent_that_recovery_did_not_close(forger):
    """The outcome is removed and the second run pretends to have recovered."""
    forger.remove(forger.record("call.outcome", 1))
    _crash_after_first_run(forger, open_intents=1)
    assert forger.names() == ["intent_left_open"]


def _crash_after_first_run(forger: Forger, open_intents: int) -> Body:
    forger.remove(forger.record("ledger.stop", 0))
    forger.remove(forger.record("seal", 1))
    start = forger.record("ledger.start", 1)
    start["clean"] = False
    recover = {
        **_own(start),
        "type": "ledger.recover",
        "segment": 0,
        "offset": 0,
        "bytes": 0,
        "sha256": sha256(b"").hexdigest(),
        "last": 0,
        "open": open_intents,
    }
    forger.insert_after(start, recover)
    forger.build()
    recover["last"] = start["seq"] - 1
    for record in forger.flat:
        if record["type"] == "call.outcome":
            intent = next(r for r in forger.flat if r["type"] == "call.intent" and r["call"] == record["call"])
            record["intent"] = intent["seq"]
    return recover


# --- classes 22 to 27 ---


def _spaces(record: Body) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _duplicate_key(record: Body) -> bytes:
    return canonical.encode(record)[:-1] + b',"v":1}'


def _trailing(record: Body) -> bytes:
    return canonical.encode(record) + b" "


def _unknown_member(record: Body) -> bytes:
    return canonical.encode({**record, "zz": 1})


def _future_version(record: Body) -> bytes:
    return canonical.encode({**record, "v": 2})


def _float(record: Body) -> bytes:
    return canonical.encode({**record, "mono_us": 1.0})


def _escaped(record: Body) -> bytes:
    return canonical.encode(record).replace(b'"call.denied"', b'"call\\u002edenied"')


@pytest.mark.parametrize(
    "encode", [_spaces, _duplicate_key, _trailing, _unknown_member, _future_version, _float, _escaped]
)
def test_class_22_a_record_that_two_parsers_read_differently(forger, encode):
    files = forger.build(
        encode=lambda record: encode(record) if record["type"] == "call.denied" else canonical.encode(record)
    )
    assert forger.names(files) == ["record_malformed"]


def test_class_22_slack_between_frames(forger):
    name = min(name for name in forger.files if name.startswith("segments/"))
    data = forger.files[name]
    _, offset = read_header(data)
    files = {**forger.files, name: data[:offset] + b"\x00" * 16 + data[offset:]}
    assert forger.names(files) == ["frame_damaged"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "segments/1.seg", "segments/x/y.seg", "checkpoints/latest", "LEDGER.json.tmp"]
)
def test_class_22_a_file_that_does_not_belong(forger, name):
    assert forger.names({**forger.files, name: b"x"}) == ["file_unexpected"]


@pytest.mark.parametrize("pattern", ["LEDGER.json", "segments/*.seg", "checkpoints/*.note", "BALLAST", "segments"])
def test_class_22_a_link_in_the_place_of_a_file(forger, world, tmp_path, pattern):
    """Its bytes may change after the auditor has read them, or be another machine's; the writer refuses it as well."""
    directory = tmp_path / "ledger"
    path = max(directory.glob(pattern))
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    report = verify(directory, forger.trust)
    assert ("file_unexpected", str(path.relative_to(directory))) in {(f.name, f.where) for f in report.findings}
    assert report.exit_code == 1
    if path.name != "BALLAST":  # the writer reads none of it
        with pytest.raises(LedgerRefused, match="is a link"):
            world()


@pytest.mark.parametrize("name", ["LOCK", "BALLAST"])
def test_class_22_bytes_hidden_in_a_file_without_content(forger, name):
    assert forger.names({**forger.files, name: b"x"}) == ["file_unexpected"]


def test_class_22_a_description_in_other_words(forger):
    text = json.dumps(json.loads(forger.files["LEDGER.json"])).encode() + b"\n"
    assert forger.names({**forger.files, "LEDGER.json": text}) == ["description_damaged"]


def test_class_23_logging_switched_off_for_a_while(forger):
    """Two minutes without a seal in a running log, with the clocks agreeing."""
    denial = forger.record("call.denied")
    boot = denial["boot"]
    for record in forger.flat:
        if record["seq"] >= denial["seq"]:
            record["ts"] = _later(record["ts"], minutes=2)
            if record["boot"] == boot:
                record["mono_us"] += 120_000_000
    report = verify(MemorySource(forger.build()), forger.trust)
    assert [finding.name for finding in report.findings] == ["seal_gap"]
    assert report.exit_code == 4


def _later(ts: str, minutes: int) -> str:
    from datetime import UTC, datetime, timedelta

    moment = datetime.strptime(ts, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) + timedelta(minutes=minutes)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_class_23_a_stop_removed(forger):
    forger.remove(forger.record("ledger.stop", 0))
    assert forger.names(forger.build()) != []
    assert "run_unpaired" in forger.names(forger.build())


def test_class_23_a_second_run_under_the_first_ones_start(forger):
    forger.remove(forger.record("ledger.start", 1))
    assert "run_unpaired" in forger.names(forger.build())


def test_class_23_calls_while_halted(forger):
    activation = forger.record("policy.activate")
    halt = {"type": "ledger.halt", "phase": "begin", "reason": "disk_reserve", "free_bytes": 0}
    forger.insert_after(activation, {**_own(activation), **halt})
    for record in forger.flat:
        if "intent" in record:
            record["intent"] += 1
    assert forger.names() == ["halt_violated"]


def test_class_25_heads_that_are_not_the_records(forger):
    seal = forger.record("seal", -1)
    files = forger.build(
        encode=lambda record: canonical.encode({**record, "heads": "11" * 32} if record is seal else record)
    )
    assert forger.names(files) == ["heads_mismatch"]


def test_class_26_a_seal_of_another_size(forger):
    seal = forger.record("seal", -1)
    files = forger.build(encode=lambda record: canonical.encode({**record, "size": 3} if record is seal else record))
    assert forger.names(files) == ["seal_mismatch"]


def test_class_8_a_seal_that_quotes_a_checkpoint_of_another_history(forger):
    seal = forger.record("seal", -1)
    quoted = {"size": 3, "root": "11" * 32, "kept": True}
    files = forger.build(
        encode=lambda record: canonical.encode({**record, "checkpoint": quoted} if record is seal else record)
    )
    assert forger.names(files) == ["checkpoint_mismatch"]


def test_class_9_a_kept_checkpoint_note_removed(forger):
    files = forger.build()
    name = min(name for name in files if name.startswith("checkpoints/"))
    del files[name]
    assert forger.names(files) == ["checkpoint_missing"]


def test_class_9_all_newer_notes_removed(forger):
    files = {name: data for name, data in forger.build().items() if not name.startswith("checkpoints/")}
    assert forger.names(files) == ["checkpoint_missing"]


def _with_quarantine(forger: Forger, data: bytes) -> Files:
    recover = _crash_after_first_run(forger, open_intents=0)
    digest = sha256(data).hexdigest()
    recover.update(bytes=len(data), sha256=digest, segment=0, offset=99)
    files = forger.build()
    name = f"quarantine/{recover['last']:020d}-{0:020d}-99-{digest[:16]}.torn"
    return {**files, name: data}


def test_a_recovery_with_its_quarantined_bytes_is_intact(forger):
    assert forger.names(_with_quarantine(forger, b"torn")) == []


def test_class_27_quarantined_bytes_removed(forger):
    files = {name: data for name, data in _with_quarantine(forger, b"torn").items() if "quarantine" not in name}
    assert forger.names(files) == ["recovery_abused"]


def test_class_27_quarantined_bytes_exchanged(forger):
    files = _with_quarantine(forger, b"torn")
    name = next(name for name in files if "quarantine" in name)
    assert forger.names({**files, name: b"corn"}) == ["recovery_abused"]


def test_class_27_committed_records_called_torn(forger):
    """Somebody cuts off whole groups, which had been acknowledged, and calls it recovery."""
    name = max(name for name in forger.files if name.startswith("segments/"))
    _, offset = read_header(forger.files[name])
    group = next(groups(forger.files[name], offset))
    dropped = forger.files[name][group.offset : group.end]
    assert forger.names(_with_quarantine(forger, dropped)) == ["recovery_abused"]


def test_class_27_a_recovery_that_continues_elsewhere(forger):
    recover = _crash_after_first_run(forger, open_intents=0)
    recover["last"] = 3
    assert forger.names(forger.build()) == ["recovery_abused"]


def test_every_finding_has_a_mutator():
    """A name that no test asserts would be a promise nobody keeps."""
    from pathlib import Path

    from ledger import KINDS

    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in KINDS if f'"{name}"' not in tests] == []


def test_many_findings_of_one_name_hide_no_other(forger):
    """A log can be made to give a thousand harmless findings; the verdict is the worst one's all the same."""
    from ledger.verify import _Verification

    run = _Verification(MemorySource(forger.files), forger.trust, None, None)
    for n in range(1000):
        run.find("seal_gap", f"record {n}", "long ago")
    run.find("policy_unknown", "record 1001", "never activated")
    report = run.run(0)
    assert report.exit_code == 1
    assert len(report.findings) == 101
