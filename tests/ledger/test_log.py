"""The open ledger: what a receipt means, who is refused, and that everything is on disk before anybody is told."""

import asyncio

import pytest

from ledger import LedgerRefused, LedgerUnavailable, RecordRefused, read_records, receipt_holds

pytestmark = pytest.mark.anyio


def test_a_call_is_recorded_with_receipts(world, records, tmp_path):
    """Intent and outcome are durable, in order, with a receipt whose proof holds under the log's key."""
    with world() as ledger:
        ledger.submit(*records.activate()).result(10)
        intent = ledger.submit(*records.intent("c_1")).result(10)
        outcome = ledger.submit(*records.outcome("c_1", intent.seq)).result(10)
        key = ledger._sequencer.signer.verifier
    found = list(read_records(tmp_path / "ledger"))
    assert [record.seq for record in found] == list(range(len(found)))
    assert found[0].type == "genesis"
    assert found[intent.seq].body["call"] == "c_1"
    assert found[outcome.seq].leaf == outcome.leaf
    assert receipt_holds(intent.proof(), key)
    assert not receipt_holds({**intent.proof(), "seq": intent.seq + 1}, key)


async def test_many_submissions_of_a_loop_share_groups(world, records):
    """Every future resolves with its own record; concurrent submissions share signatures."""
    with world() as ledger:
        loop = asyncio.get_running_loop()
        await ledger.submit_async(loop, *records.activate())
        futures = [ledger.submit_async(loop, *records.intent(f"c_{n}")) for n in range(200)]
        receipts = await asyncio.gather(*futures)
        assert [receipt.call for receipt in receipts] == [f"c_{n}" for n in range(200)]
        assert len({receipt.seq for receipt in receipts}) == 200
        assert len({receipt.batch.signature for receipt in receipts}) < 200
        assert all(receipt_holds(r.proof(), ledger._sequencer.signer.verifier) for r in receipts)


async def test_what_a_loop_submits_in_one_turn_is_signed_together(world, records):
    """Tasks that run in the same turn, and those that they wake in the next ones, pay for one signature together."""

    async def late(ledger, number):
        for _ in range(number):
            await asyncio.sleep(0)
        return await ledger.submit_async(asyncio.get_running_loop(), *records.intent(f"c_{number}"))

    with world() as ledger:
        await ledger.submit_async(asyncio.get_running_loop(), *records.activate())
        receipts = await asyncio.gather(*(late(ledger, number) for number in range(6)))
        # One as a rule; the thread may be awake for another reason, and take what is there.
        assert len({receipt.batch.signature for receipt in receipts}) <= 2


async def test_what_was_submitted_is_durable_when_the_log_closes_in_the_same_turn(world, records, tmp_path):
    """Not yet announced to the ledger's thread, and recorded all the same."""
    with world() as ledger:
        loop = asyncio.get_running_loop()
        await ledger.submit_async(loop, *records.activate())
        waiting = ledger.submit_async(loop, *records.intent("c_1"))
    assert (await waiting).call == "c_1"
    assert [record.body.get("call") for record in read_records(tmp_path / "ledger")].count("c_1") == 1


STREAMED = {"commit": "hmac-sha256:" + "cd" * 32, "len": None, "media": None, "streamed": True}
UPLOAD = {"commit": "hmac-sha256:" + "ab" * 32, "len": 7, "complete": True}


def test_a_streamed_body_is_said_by_its_confirmed_outcome_and_by_no_other(world, records, tmp_path):
    """Writer and verifier agree: what the intent leaves open the outcome closes."""
    with world() as ledger:
        ledger.submit(*records.activate()).result(10)
        with pytest.raises(RecordRefused, match="only the length of a streamed body"):
            ledger.submit(*records.intent("c_0", req={**STREAMED, "streamed": False})).result(10)
        streamed = ledger.submit(*records.intent("c_1", req=STREAMED)).result(10).seq
        held = ledger.submit(*records.intent("c_2")).result(10).seq
        with pytest.raises(RecordRefused, match="says what was sent"):
            ledger.submit(*records.outcome("c_1", streamed)).result(10)
        with pytest.raises(RecordRefused, match="only the body of an intent that says so"):
            ledger.submit(*records.outcome("c_2", held, upload=UPLOAD)).result(10)
        ledger.submit(*records.outcome("c_1", streamed, upload=UPLOAD)).result(10)
        ledger.submit(*records.outcome("c_2", held)).result(10)
        lost = ledger.submit(*records.intent("c_3", req=STREAMED)).result(10).seq
        ledger.submit(*records.outcome("c_3", lost, status="indeterminate")).result(10)  # as recovery closes it
    assert sum(record.type == "call.outcome" for record in read_records(tmp_path / "ledger")) == 3


def test_what_breaks_the_format_is_refused_and_leaves_no_trace(world, records, tmp_path):
    """A refused record takes no seq; the ones beside it are written."""
    with world() as ledger:
        ledger.submit(*records.activate()).result(10)
        before = ledger.head().size
        bad = [
            records.intent("c_1", surprise=1),
            records.intent("c_1", attempt=2),
            records.intent("c_1", decision=records.decision(policy="sha256:" + "00" * 32)),
            records.intent("c_1", dial="\ud800"),
            records.outcome("c_1", 1),
            ("call.unheard", "acme", {}),
        ]
        for submission in bad:
            with pytest.raises(RecordRefused):
                ledger.submit(*submission).result(10)
        assert ledger.head().size == before
        assert ledger.submit(*records.intent("c_1")).result(10).seq == before


def test_the_logs_own_types_cannot_be_submitted(world):
    with world() as ledger, pytest.raises(RecordRefused):
        ledger.submit("ledger.stop", "-", {"reason": "x"})


def test_nothing_is_accepted_after_close(world, records):
    ledger = world()
    ledger.close()
    with pytest.raises(LedgerUnavailable):
        ledger.submit(*records.activate())


def test_a_second_opener_is_refused_while_one_holds_the_directory(world):
    ledger = world()
    with pytest.raises(LedgerRefused, match="another process"):
        world()
    ledger.close()
    world().close()
