"""Reading what is committed: from any place, beside the writer, without reading everything."""

import pytest

from ledger import Cursor, LedgerRefused, Limits, find_call, read_records

SMALL_SEGMENTS = Limits(reserve_bytes=0, ballast_bytes=0, segment_bytes=4000, seal_active_seconds=3600)


def test_records_are_read_from_any_place_over_segments(world, records, tmp_path):
    with world(limits=SMALL_SEGMENTS) as ledger:
        for n in range(40):
            ledger.submit(*records.denied(f"d_{n}")).result(10)
    directory = tmp_path / "ledger"
    assert len(list((directory / "segments").iterdir())) > 5
    everything = list(read_records(directory))
    assert [record.seq for record in everything] == list(range(len(everything)))
    for start in range(len(everything) + 2):
        assert [record.seq for record in read_records(directory, start=start)] == list(range(start, len(everything)))
    only = list(read_records(directory, types=frozenset({"call.denied"})))
    assert [record.body["call"] for record in only] == [f"d_{n}" for n in range(40)]


def test_a_cursor_follows_the_writer(world, records, tmp_path):
    """Nothing new is an empty answer; everything new comes once, also into new segments."""
    with world(limits=SMALL_SEGMENTS) as ledger:
        cursor = Cursor(tmp_path / "ledger")
        seen = [record.seq for record in cursor.read()]
        for n in range(30):
            receipt = ledger.submit(*records.denied(f"d_{n}")).result(10)
            new = cursor.read()
            assert receipt.seq in [record.seq for record in new]
            seen += [record.seq for record in new]
            assert cursor.read() == []
        assert seen == list(range(len(seen)))


def test_a_cursor_in_the_future_waits(world, records, tmp_path):
    with world() as ledger:
        cursor = Cursor(tmp_path / "ledger", start=ledger.head().size + 1)
        ledger.submit(*records.denied("d_1")).result(10)
        assert cursor.read() == []
        ledger.submit(*records.denied("d_2")).result(10)
        assert [record.body["call"] for record in cursor.read()] == ["d_2"]


def test_missing_records_are_not_passed_over(world, records, tmp_path):
    with world(limits=SMALL_SEGMENTS) as ledger:
        for n in range(20):
            ledger.submit(*records.denied(f"d_{n}")).result(10)
    sorted((tmp_path / "ledger" / "segments").iterdir())[2].unlink()
    with pytest.raises(LedgerRefused, match="missing"):
        list(read_records(tmp_path / "ledger"))


def test_a_call_is_found_by_its_text(world, records, tmp_path):
    """All its records in order, and no other's that merely mentions it."""
    with world(limits=SMALL_SEGMENTS) as ledger:
        ledger.submit(*records.activate()).result(10)
        intent = ledger.submit(*records.intent("c_1")).result(10)
        for n in range(10):
            ledger.submit(*records.denied(f"d_{n}", parent="c_1", session='"call":"c_1"')).result(10)
        ledger.submit(*records.outcome("c_1", intent.seq)).result(10)
        ledger.submit(*records.intent("c_1", attempt=2)).result(10)
    directory = tmp_path / "ledger"
    assert [record.type for record in find_call(directory, "c_1")] == ["call.intent", "call.outcome", "call.intent"]
    assert [record.type for record in find_call(directory, "d_7")] == ["call.denied"]
    assert find_call(directory, "c_") == []
