"""Every single bit of a small complete ledger, flipped one at a time; and every length it can be cut to."""

from zlib import crc32

import pytest

from ledger import Limits, MemorySource, verify
from ledger.segment import RECORD, frame_at
from ledger.trust import Trust

type Files = dict[str, bytes]


@pytest.fixture
def small(world, records, store, tmp_path) -> tuple[Files, Trust, bytes]:
    """A closed ledger with one call, in memory: its files, the trust file, and the kept checkpoint."""
    with world(limits=Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=3600)) as ledger:
        futures = [ledger.submit(*records.activate()), ledger.submit(*records.intent("c_1"))]
        ledger.submit(*records.outcome("c_1", futures[1].result(10).seq)).result(10)
        trust = ledger.trust()
    directory = tmp_path / "ledger"
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.stat().st_size
    }
    assert {name.split("/")[0] for name in files} == {"LEDGER.json", "segments", "checkpoints"}
    assert verify(MemorySource(files), trust).exit_code == 0
    assert store.value is not None
    return files, trust, store.value


def _detected(files: Files, trust: Trust) -> bool:
    return verify(MemorySource(files), trust).exit_code == 1


def _missed(files: Files, trust: Trust, name: str, bits: range) -> list[int]:
    """Bits of a file whose flip the verifier does not report as tampering."""
    whole = files[name]
    missed = []
    damaged = bytearray(whole)
    for bit in bits:
        damaged[bit >> 3] ^= 1 << (bit & 7)
        if not _detected({**files, name: bytes(damaged)}, trust):
            missed.append(bit)
        damaged[bit >> 3] = whole[bit >> 3]
    return missed


def test_a_bit_of_every_third_byte_of_every_file_counts(small):
    """Not one of thousands of flips, another place in each byte, passes for intact or for merely incomplete."""
    files, trust, _ = small
    for name, data in files.items():
        assert _missed(files, trust, name, range(3, len(data) * 8, 25)) == [], name


@pytest.mark.campaign
@pytest.mark.parametrize("bit", range(8))
def test_every_bit_of_every_file_counts(small, bit):
    """Not one of some fifty thousand flips passes for intact or for merely incomplete."""
    files, trust, _ = small
    for name, data in files.items():
        assert _missed(files, trust, name, range(bit, len(data) * 8, 8)) == [], name


def _refreshed(data: bytes) -> bytes:
    """The segment with every frame's crc made right again: what somebody who edits, not a failing disk, would leave."""
    made, offset = bytearray(data), 8
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "big")
        head, payload = data[offset : offset + 13], data[offset + 17 : offset + 17 + length]
        made[offset + 13 : offset + 17] = crc32(payload, crc32(head)).to_bytes(4, "big")
        offset += 17 + length
    return bytes(made)


def _missed_with_crc(files: Files, trust: Trust, every: int) -> list[int]:
    name = next(name for name in files if name.startswith("segments/"))
    whole = files[name]
    offset, missed = 8, []
    while offset < len(whole):
        _, _, payload, after = frame_at(whole, offset)
        for bit in range((after - len(payload)) * 8, after * 8, every):
            damaged = bytearray(whole)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            if not _detected({**files, name: _refreshed(bytes(damaged))}, trust):
                missed.append(bit)
        offset = after
    return missed


def test_every_third_byte_of_a_payload_counts_when_the_crc_is_made_right_again(small):
    """The crc is no protection and is not needed as one: one bit of a byte here, a different one each time."""
    files, trust, _ = small
    assert _missed_with_crc(files, trust, every=25) == []


@pytest.mark.campaign
def test_every_bit_of_a_payload_counts_when_the_crc_is_made_right_again(small):
    files, trust, _ = small
    assert _missed_with_crc(files, trust, every=1) == []


def test_a_cut_is_detected_against_a_kept_checkpoint(small):
    """Even when whoever cut the segment also removed every checkpoint from the directory."""
    files, trust, kept = small
    name = next(name for name in files if name.startswith("segments/"))
    bare = {other: data for other, data in files.items() if not other.startswith("checkpoints/")}
    for length in range(0, len(files[name]), 3):
        cut = {**bare, name: files[name][:length]}
        report = verify(MemorySource(cut), trust, expect_checkpoint=kept)
        assert report.exit_code == 1, length


def test_a_cut_is_detected_by_the_checkpoints_in_the_directory(small):
    """A cut alone, by accident or by somebody who overlooked the notes."""
    files, trust, _ = small
    name = next(name for name in files if name.startswith("segments/"))
    for length in range(1, len(files[name]), 3):
        assert _detected({**files, name: files[name][:length]}, trust), length


def test_a_cut_with_its_checkpoints_removed_passes_without_a_kept_one(small):
    """The honest limit (docs/quickstart/auditor.md): what nobody outside has seen can be cut at the end."""
    files, trust, _ = small
    name = next(name for name in files if name.startswith("segments/"))
    bare = {other: data for other, data in files.items() if not other.startswith("checkpoints/")}
    offset, ends = 8, []
    while offset < len(files[name]):
        type_, _, _, offset = frame_at(files[name], offset)
        if type_ not in (RECORD, 1):
            ends.append(offset)
    cut = {**bare, name: files[name][: ends[1]]}
    report = verify(MemorySource(cut), trust)
    assert report.exit_code == 0
    assert not report.stopped
    assert report.tail_records == report.records
