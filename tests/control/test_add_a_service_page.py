"""docs/how-to/add-a-service.md: its files and commands, in its order, give what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from control.cli import run_command

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "add-a-service.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|console)\n(.*?)^```$", PAGE, re.M | re.S)


def test_the_files_and_commands_give_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy").mkdir()
    ran = 0
    for kind, block in BLOCKS:
        if kind == "yaml":
            name = block.splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(block)
            continue
        for command, shown in re.findall(r"^\$ exeat (.*)\n((?:(?!\$).*\n)*)", block, re.M):
            assert run_command(shlex.split(command)) == 0, command
            assert capsys.readouterr().out == shown, command
            ran += 1
    assert ran == 4
    assert run_command(["check", "policy/", "--strict"]) == 0
