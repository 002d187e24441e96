"""docs/reference/failure-modes.md: every control of the list has its row, and each row a test that is there."""

import re
from pathlib import Path

import pytest

from control.failure_modes import MODES
from rules.codes import TABLE, Code

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "failure-modes.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells
    for line in re.findall(r"^\| (`.*) \|$", PAGE, re.M)
    for cells in [[cell.strip() for cell in line.split(" | ")]]
}


def test_the_page_has_the_controls_of_the_list_in_their_order() -> None:
    assert list(ROWS) == [mode.control for mode in MODES]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.control)
def test_a_row_says_what_the_list_says_and_names_a_test_that_is_there(mode) -> None:
    _, how, _, seen, _, shown = ROWS[mode.control]
    assert how == mode.mode
    assert [code for code in re.findall(r"`([a-z_]+)`", seen) if code not in ROWS] == list(mode.codes)
    statuses = re.findall(r"\b([1-5][0-9][0-9]) `([a-z_]+)`", seen)
    assert all(int(status) == TABLE[Code(code)].status for status, code in statuses), statuses
    file, _, name = shown.strip("`").partition("::")
    assert name
    assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")


def test_what_may_go_on_is_said_and_all_else_is_closed() -> None:
    assert {mode.control for mode in MODES if mode.mode == "open"} == {"inputs", "followed"}
    assert all(mode.codes or mode.control == "workers" for mode in MODES if mode.mode == "closed")
