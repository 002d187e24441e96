"""The demonstration happens, and says so when it does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from control.cli import run_command
from control.demo import scenes

ROOT = Path(__file__).resolve().parents[2]


def test_every_scene_happens() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "control.cli", "demo"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\((\d)\)", done.stdout, re.MULTILINE) == list("12345678")
    for promised in ("rule_denied", "Retry-After: ", "spend_cap_reached", "cut 1 ", "INTACT", "TAMPERED"):
        assert promised in done.stdout
    assert "all 8 scenes happened" in done.stdout


def test_a_scene_that_does_not_happen_ends_it_with_a_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the deny rule the call is denied for another reason; the demonstration must not call that a success."""
    whole = scenes.policy_text
    monkeypatch.setattr(
        scenes,
        "policy_text",
        lambda port: "".join(line + "\n" for line in whole(port).splitlines() if "never-delete" not in line),
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run_command(["demo"]) == 1
    assert "not denied as it should be" in capsys.readouterr().err
