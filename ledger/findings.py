"""Everything the verifier can find, by permanent name (docs/quickstart/auditor.md explains each to an auditor).

The numbers are the classes of attack and accident that a finding stands for, as listed in docs/formats/ledger-trust.md.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Weight(StrEnum):
    """What a finding means for the verdict."""

    TAMPERED = "tampered"
    """The bytes contradict themselves, a signature or what the auditor pinned. Exit code 1."""
    INCOMPLETE = "incomplete"
    """Nothing contradicts, but something that belongs here is absent, or not anchored as demanded. Exit code 4."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One class of finding."""

    weight: Weight
    classes: tuple[int, ...]
    meaning: str


_T, _I = Weight.TAMPERED, Weight.INCOMPLETE

KINDS: Final[dict[str, Kind]] = {
    "anchor_insufficient": Kind(_I, (7, 8, 9), "the log is anchored less well than the trust file demands"),
    "batch_signature": Kind(_T, (1, 10), "a group of records is not what the log's key signed"),
    "chain_broken": Kind(_T, (1, 2, 3, 4), "a record does not name the one before it"),
    "checkpoint_foreign": Kind(_T, (10,), "the kept checkpoint is of this log but signed by none of its keys"),
    "checkpoint_invalid": Kind(_T, (1, 10, 22), "a checkpoint note is damaged or not signed by the log's key"),
    "checkpoint_mismatch": Kind(_T, (8, 9), "a checkpoint commits to other records than these"),
    "checkpoint_missing": Kind(_T, (5, 9), "a checkpoint that the log says it keeps is not there"),
    "clock_step_unrecorded": Kind(_T, (13,), "the wall clock moved against the monotonic one without a record"),
    "description_damaged": Kind(_T, (1, 15, 22), "LEDGER.json is not what the genesis record says"),
    "duplicate_call": Kind(_T, (14,), "one call identifier stands for two calls"),
    "duplicate_nonce": Kind(_T, (14,), "a record's nonce occurs twice"),
    "file_unexpected": Kind(_T, (22,), "the directory holds a file that is no part of a ledger"),
    "frame_damaged": Kind(_T, (1, 22), "bytes of a segment are no valid frame"),
    "genesis_mismatch": Kind(_T, (7, 10), "this log does not begin with the pinned genesis record"),
    "halt_violated": Kind(_T, (23,), "records were written that a halted log does not write"),
    "heads_mismatch": Kind(_T, (25,), "a seal's tenant heads are not those of the records"),
    "intent_left_open": Kind(_T, (18,), "an open intent was not closed by the recovery after it"),
    "key_range": Kind(_T, (11,), "a key of the log signed outside the range it was valid for"),
    "key_uncertified": Kind(_T, (10,), "a key was added without the signatures that certify it"),
    "key_unknown": Kind(_T, (10,), "a signature names a key that the log never certified"),
    "lifecycle_illegal": Kind(_T, (17,), "a call's records contradict each other"),
    "log_foreign": Kind(_T, (15,), "a record belongs to another log"),
    "open_count_mismatch": Kind(_T, (18,), "a seal counts other open intents than the records show"),
    "policy_unknown": Kind(_T, (16,), "a call was allowed under a policy that was never activated"),
    "record_malformed": Kind(_T, (22,), "a record is not canonical or not of the schema"),
    "record_order": Kind(_T, (2, 3, 4, 14), "records are missing, repeated, inserted or out of order"),
    "recovery_abused": Kind(_T, (27,), "a recovery does not account for what it dropped"),
    "recovery_unfinished": Kind(_I, (27,), "left by an interrupted write or recovery: open the log, then verify"),
    "run_unpaired": Kind(_T, (23,), "starts, stops and recoveries do not pair"),
    "seal_gap": Kind(_I, (23,), "a running log went unsealed for longer than it may"),
    "seal_mismatch": Kind(_T, (25, 26), "a seal does not describe the log at its place"),
    "segment_header": Kind(_T, (6, 15, 22), "a segment does not continue the one before it"),
    "segment_missing": Kind(_T, (6,), "a whole segment is missing"),
    "tail_torn": Kind(
        _I, (27,), "the last segment ends inside a write: the writer runs, or crashed and was not reopened"
    ),
    "tail_truncated": Kind(_T, (5,), "records that a checkpoint covers are not there"),
    "tenant_chain_broken": Kind(_T, (15,), "a record does not continue its tenant's sequence"),
    "time_reversed": Kind(_T, (13,), "a record is older than the one before it"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    name: str
    where: str
    """File and offset, or record number."""
    detail: str

    @property
    def kind(self) -> Kind:
        """What the name stands for."""
        return KINDS[self.name]


class Broken(Exception):
    """Nothing behind this can be judged; carries the finding."""

    def __init__(self, name: str, where: str, detail: str) -> None:
        super().__init__(f"{name} at {where}: {detail}")
        self.finding = Finding(name, where, detail)
