"""The command line's frame: help without imports, the reference page, exit codes for what is not a command's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from control.cli import COMMANDS, root, run_command
from control.cli.reference import render

ROOT = Path(__file__).resolve().parents[2]


def python(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_the_reference_page_is_what_the_commands_say() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert page == render(), "run: python -m control.cli.reference > docs/reference/cli.md"


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_a_commands_line_in_the_table_is_its_own(entry: object) -> None:
    import click

    context = click.Context(root)
    command = root.get_command(context, entry.name)
    assert command is not None
    assert command.short_help == entry.help


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from control.cli import run_command; run_command(['--help'])\n"
        "loaded = {m for m in sys.modules if m.startswith('control.cli.')} - {'control.cli.invocation'}\n"
        "assert not loaded, loaded"
    )
    assert "Usage: exeat" in python(script)


@pytest.mark.parametrize(
    ("module", "never"),
    [
        (
            "control.cli.ledger",
            {"mitmproxy", "starlette", "uvicorn", "pydantic", "proxy", "rules", "redis", "httpx2", "OpenSSL"},
        ),
        (
            "control.cli.run",
            {"mitmproxy", "starlette", "uvicorn", "pydantic", "proxy", "rules", "redis", "httpx2", "ledger"},
        ),
        ("control.cli.calls", {"mitmproxy", "starlette", "uvicorn", "pydantic", "proxy", "rules"}),
    ],
)
def test_a_command_brings_nothing_it_does_not_need(module: str, never: set[str]) -> None:
    loaded = python(f"import sys, {module}; print(' '.join({{m.partition('.')[0] for m in sys.modules}}))").split()
    assert not never & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["nonsense"], 2),
        (["up", "--listen", "localhost:1"], 2),
        (["run"], 2),
    ],
)
def test_exit_codes_of_the_frame(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == code


def test_a_defect_is_could_not_tell_and_never_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python ends with 1 after an exception, and 1 would be an answer."""
    from control.cli import policy

    def broken(path: Path) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(policy, "check_policy", broken)
    assert run_command(["check", "x.yaml"]) == 3
    assert "EXEAT_TRACEBACK" in capsys.readouterr().err


def test_completion_is_printed_for_each_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-m", "control.cli", "completion", shell],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        if shell == "bash" and done.returncode != 0:
            continue  # click asks bash itself for its version
        assert "_EXEAT_COMPLETE" in done.stdout


@pytest.mark.parametrize(("path", "file"), [("p.yaml", "p.yaml"), ("policy", "policy/acme.yaml")])
def test_a_first_policy_is_valid_as_it_is_and_never_overwritten(
    tmp_path: Path, path: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["init", str(tmp_path / path)]) == 0
    assert run_command(["check", "--strict", str(tmp_path / path)]) == 0
    (tmp_path / file).write_text("mine")
    assert run_command(["init", str(tmp_path / path)]) == 1
    assert (tmp_path / file).read_text() == "mine"
    assert run_command(["check", str(tmp_path / path)]) == 1
