"""What the verifier says of ledgers that nobody touched."""

import json

from ledger import Limits, Trust, read_records, render, verify


def fill(ledger, records, calls=3):
    """A few calls of every ending, with receipts awaited one by one."""
    ledger.submit(*records.activate()).result(10)
    for n in range(calls):
        intent = ledger.submit(*records.intent(f"c_{n}", tenant=f"t{n % 2}")).result(10)
        ledger.submit(*records.outcome(f"c_{n}", intent.seq, tenant=f"t{n % 2}")).result(10)
    ledger.submit(*records.denied("d_1")).result(10)
    ledger.submit(*records.rejected()).result(10)


def test_a_closed_ledger_is_intact(world, records, tmp_path):
    with world() as ledger:
        fill(ledger, records)
        trust = ledger.trust()
    report = verify(tmp_path / "ledger", trust, tenant="t0")
    assert report.findings == ()
    assert report.exit_code == 0
    assert report.stopped
    assert report.tail_records == 0
    assert report.tenant == {
        "name": "t0",
        "records": 4,
        "root": report.tenant["root"],
        "types": {"call.intent": 2, "call.outcome": 2},
    }
    assert json.loads(json.dumps(report.to_json()))["exit_code"] == 0
    text = render(report)
    assert text.startswith("INTACT, COMPLETE")
    assert "NOT PROVEN" in text


def test_the_trust_file_survives_its_own_text(world):
    with world() as ledger:
        trust = ledger.trust()
        assert Trust.parse(ledger.trust_text()) == trust
        assert trust.fingerprint in ledger.trust_text()


def test_a_demanded_rung_that_is_not_reached_is_exit_code_4(world, records, tmp_path):
    """Local storage is rung 0 and is never graded up."""
    with world() as ledger:
        trust = ledger.trust()
    report = verify(tmp_path / "ledger", trust, rung=1)
    assert report.exit_code == 4
    assert [finding.name for finding in report.findings] == ["anchor_insufficient"]


def test_a_ledger_that_is_being_written_is_intact_up_to_its_last_group(world, records, tmp_path):
    with world() as ledger:
        fill(ledger, records)
        report = verify(tmp_path / "ledger", ledger.trust())
        assert report.exit_code == 0
        assert not report.stopped
        assert report.tail_records == 9


def test_restarts_are_paired_and_reported(world, records, tmp_path):
    for n in range(3):
        with world() as ledger:
            fill(ledger, records) if n == 0 else ledger.submit(*records.denied(f"e_{n}")).result(10)
            trust = ledger.trust()
    report = verify(tmp_path / "ledger", trust)
    assert report.exit_code == 0
    assert report.starts == 3
    assert report.recoveries == ()
    assert [record.type for record in read_records(tmp_path / "ledger")].count("ledger.stop") == 3


def test_a_ledger_can_be_verified_again_and_again_while_it_is_written(world, records, tmp_path):
    """Notes come and go, segments begin: nothing of that is ever taken for tampering."""
    limits = Limits(reserve_bytes=0, ballast_bytes=0, seal_active_seconds=0, segment_bytes=20_000)
    with world(limits=limits, clock=None) as ledger:
        trust = ledger.trust()
        waiting = []
        for n in range(400):
            waiting.append(ledger.submit(*records.denied(f"d_{n}")))
            if n % 20 == 0:
                report = verify(tmp_path / "ledger", trust)
                assert {finding.name for finding in report.findings} <= {"tail_torn", "recovery_unfinished"}
        assert all(future.result(30) for future in waiting)
    assert verify(tmp_path / "ledger", trust).exit_code == 0


def act(act: str, **detail: str):
    actor = {"kind": "uid", "id": "uid:0", "name": "root"}
    return "operator.act", "acme", {"act": act, "actor": actor, "detail": detail}


def test_the_last_egress_probe_is_named_beside_what_it_does_not_prove(world, records, tmp_path):
    with world() as ledger:
        fill(ledger, records)
        trust = ledger.trust()
        report = verify(tmp_path / "ledger", trust)
        assert report.egress_probe is None
        assert "no way around it: no egress probe is on record" in render(report)
        ledger.submit(*act("egress.probed", result="open", opened="tcp 1.1.1.1:443")).result(10)
        newest = ledger.submit(*act("egress.probed", result="nothing open", opened="")).result(10)
        ledger.submit(*act("run.isolated", result="open")).result(10)
    report = verify(tmp_path / "ledger", trust)
    assert report.exit_code == 0
    text = render(report).split("NOT PROVEN")[1]
    assert "no way around it: the last egress probe on record proves none" in text
    assert f"(#{newest.seq}, " in text
    assert "found: nothing open)" in text
    assert json.loads(json.dumps(report.to_json()))["egress_probe"]["result"] == "nothing open"
    assert "that the gate saw every call" in text


def test_an_act_of_that_name_without_a_result_is_no_clean_bill(world, records, tmp_path):
    with world() as ledger:
        ledger.submit(*act("egress.probed")).result(10)
        trust = ledger.trust()
    assert "found: not said" in render(verify(tmp_path / "ledger", trust))
