"""The decisions that are measured are made: every call is allowed, every size has a figure. No time is asserted."""

import json
from pathlib import Path

import pytest

from benchmarks import deciding, deciding_cases
from benchmarks.deciding_cases import CASES, Case, policy_of


def test_ratios_are_printed_for_every_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    words = ["--rules", "8", "16", "--tenants", "1", "2", "--rounds", "1", "--decisions", "4", "--json"]
    assert deciding.main([*words, str(kept)]) == 0
    printed = capsys.readouterr().out
    readings = json.loads(kept.read_text())
    assert [one["case"] for one in readings["rules"]] == [case.name for case in CASES]
    assert all(len(one["microseconds"]) == len(one["sizes"]) == 2 for of in readings.values() for one in of)
    assert all(f"| {case.name} |" in printed for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_another_call_is_denied(case: Case) -> None:
    """What allows the calls is the rules, not the want of them."""
    policies = policy_of(case, 8, ("acme",))()
    other = deciding_cases.Asked("PATCH", "/elsewhere", b"application/json", b"{}")
    assert not deciding.decided(policies, "acme", other)
