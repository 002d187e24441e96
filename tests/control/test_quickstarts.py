"""What the quick starts tell people to type exists, and the policies they show are valid."""

import re
import shlex
from pathlib import Path

import click
import pytest

from control.cli import root
from rules.policy.load import parse_policy

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted([*(DOCS / "quickstart").glob("*.md"), *(DOCS / "how-to").glob("*.md"), DOCS.parent / "README.md"])


def typed() -> list[tuple[str, str]]:
    """(page, command line) of every `exeat` command in a console block or in code quotes."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^\$ (?:sudo )?(exeat .*)$", text, re.MULTILINE) + re.findall(r"`(exeat [^`]+)`", text)
        found += [(page.name, line) for line in lines]
    return found


def resolve(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line means, and what follows it."""
    words = shlex.split(re.split(r"[<>#|]", line)[0])[1:]
    if "--" in words:
        words = words[: words.index("--")]
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize(("page", "line"), typed(), ids=str)
def test_every_command_on_a_page_exists_with_its_options(page: str, line: str) -> None:
    command, words = resolve(line)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--help", "-h", "--version"}


def policies() -> list[tuple[str, str]]:
    pages = (
        (page.name, block) for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    )
    return [(name, block) for name, block in pages if block.startswith("exeat: 1")]


def test_there_is_a_policy_on_a_page() -> None:
    assert policies()


@pytest.mark.parametrize(("page", "text"), policies(), ids=lambda value: str(value)[:20])
def test_every_policy_on_a_page_is_valid(page: str, text: str) -> None:
    assert parse_policy({f"{page}.yaml": text.encode()}).warnings == ()
