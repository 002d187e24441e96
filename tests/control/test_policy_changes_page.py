"""docs/how-to/policy-changes.md: its commands, in its order, on its two policies, answer what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from control.cli import run_command

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "policy-changes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(yaml|console)\n(.*?)^```$", PAGE, re.M | re.S)
DRIFT = "policy diff policy/"
VARIES = (
    (r"sha256:[0-9a-f]+", "DIGEST"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r"proof #\d+", "PROOF"),
    (r"\S+ \(uid \d+\)", "OPERATOR"),
    (r" +", " "),
)


def steady(text: str) -> str:
    """Without what differs from one installation to the next."""
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text


def test_the_commands_answer_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXEAT_STATE", str(tmp_path / "state"))
    (tmp_path / "policy").mkdir()
    ran: list[str] = []
    for kind, block in BLOCKS:
        if kind == "yaml":
            (tmp_path / "policy" / "acme.yaml").write_text(block)
            continue
        for command, shown in re.findall(r"^\$ exeat (.*)\n((?:(?!\$).*\n)*)", block, re.M):
            code = run_command(shlex.split(command))
            assert steady(capsys.readouterr().out) == steady(shown), command
            assert code == (1 if command == DRIFT else 0), command
            ran.append(" ".join(command.split()[:2]))
    assert len(ran) == 8
    # After the rollback the files are ahead of what is in force, as the page says.
    assert run_command(shlex.split(DRIFT)) == 1
    assert "concurrency 4, was 2" in capsys.readouterr().out


def test_two_folders_are_compared_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    policies = [block for kind, block in BLOCKS if kind == "yaml"]
    for folder, text in zip(("main", "policy"), policies, strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "acme.yaml").write_text(text)
    (command,) = re.findall(r"`exeat (policy diff policy/ --against main/)`", PAGE)
    assert run_command([*shlex.split(command), "--state", str(tmp_path / "none")]) == 1
    assert "opens: acme/support-agent: concurrency 4, was 2" in capsys.readouterr().out
