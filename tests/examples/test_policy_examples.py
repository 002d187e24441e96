"""The example policies: valid without a warning, all of their tests pass and exercise every rule, and the how-to shows
them as they are."""

import re
from pathlib import Path

import pytest

from control.cli import run_command

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "examples/policies"
HOW_TO = ROOT / "docs/how-to/guardrails.md"
SHOWN = re.compile(r"\(\.\./\.\./examples/policies/([\w./-]+\.yaml)\):\n\n```yaml\n(.*?)```", re.S)


@pytest.mark.parametrize("policy", sorted(POLICIES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_sound(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["check", "--strict", str(policy)]) == 0, capsys.readouterr()
    assert run_command(["test", "--strict", str(policy)]) == 0, capsys.readouterr()
    ran, tests = re.findall(r"tests (\d+)/(\d+)", capsys.readouterr().out)[-1]
    assert ran == tests != "0"


def test_the_how_to_shows_each_example_as_it_is() -> None:
    shown = dict(SHOWN.findall(HOW_TO.read_text()))
    assert shown == {str(path.relative_to(POLICIES)): path.read_text() for path in POLICIES.rglob("*.yaml")}
