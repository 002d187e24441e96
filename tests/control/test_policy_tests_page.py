"""docs/how-to/policy-tests.md: each policy on it passes its own tests, and the commands answer what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from control.cli import run_command
from proxy.trial import run_cases
from rules.policy.compile import compile_policy
from rules.policy.load import parse_policy

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "policy-tests.md").read_text(encoding="utf-8")
POLICIES = re.findall(r"^```yaml\n(exeat: 1\n.*?)^```$", PAGE, re.M | re.S)
CONSOLE = [
    re.findall(r"^\$ exeat (.*)\n((?:(?!\$).*\n)*)", block, re.M)
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)
]


@pytest.mark.parametrize(
    "text", POLICIES, ids=lambda text: text.split("rules:")[1].split("id: ")[1].split("\n")[0][:12]
)
def test_a_policy_passes_its_tests_and_leaves_no_rule_out(text: str) -> None:
    source = parse_policy({"policy.yaml": text.encode()})
    report = run_cases(source, compile_policy(source))
    assert [outcome.failure for outcome in report.failed] == []
    assert report.passed >= 6
    assert [coverage.missed for coverage in report.coverage] == [()]


def test_the_commands_answer_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good = POLICIES[0]
    assert len(POLICIES) == 4
    ((passes,), (fails, explains), (check, test)) = CONSOLE
    for (command, shown), text in ((passes, good), (fails, good.replace("<= 10000", "< 10000"))):
        (tmp_path / "policy.yaml").write_text(text)
        code = run_command(command.split())
        assert capsys.readouterr().out == shown
        assert code == (0 if text is good else 1)
    assert run_command(shlex.split(explains[0])) == 1
    assert "  allow  small-refund  false  when int(body.amount) < 10000" in capsys.readouterr().out
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "acme.yaml").write_text(good)
    for command, _ in (check, test):
        assert run_command(command.split()) == 0
