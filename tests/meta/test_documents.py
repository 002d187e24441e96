"""Documents say only what is there: links resolve, commands exist, nothing names the machine it was written on."""

import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from control.cli import root

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    if path.is_file()
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Headings as the usual renderers name them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_resolve(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name) if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


def _console_lines() -> list[tuple[str, str]]:
    lines = []
    for document in DOCUMENTS:
        for language, block in FENCE.findall(document.read_text(encoding="utf-8")):
            if language in {"console", "sh", "bash"}:
                for line in block.splitlines():
                    command = line.removeprefix("$ ").strip()
                    if command.startswith(("exeat ", "make ")) and (language != "console" or line.startswith("$ ")):
                        lines.append((document.relative_to(ROOT).as_posix(), command))
    return lines


@pytest.mark.parametrize(("document", "line"), _console_lines())
def test_commands_in_documents_exist(document: str, line: str) -> None:
    """The command and its sub-command; what follows is their own to check."""
    program, *words = line.split()
    if program == "make":
        targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert words[0] in targets, f"{document}: {line}"
        return
    command: click.Command = root
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"{document}: {line}"
        command = found


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git clone: which files belong to the project is not known")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


TRACES = [
    "/" + "root/",
    "/" + "work/",
    "/" + "home/" + "runner",
    "pypi" + ".org",
    "python" + "hosted.org",
    "registry." + "npmjs",
    "deb." + "debian.org",
]
"""Split so that this file is not its own finding."""


def test_no_file_names_a_machine_or_a_registry_host() -> None:
    """Package indexes are the installer's configuration, and paths are the reader's own. The lock file is uv's."""
    found = []
    for path in _tracked():
        if path.name == "uv.lock" or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {trace}" for trace in TRACES if trace in text]
    assert not found


def test_the_threat_model_names_guards_and_tests_that_exist() -> None:
    text = (ROOT / "docs/threat-model.md").read_text()
    named = re.findall(r"`((?:control|proxy|rules|credentials|ledger|tests)/[\w/.-]+)(?:::(\w+))?`", text)
    assert len(named) > 20
    absent = [path for path, _ in named if not (ROOT / path).exists()]
    absent += [f"{path}::{name}" for path, name in named if name and f"def {name}(" not in (ROOT / path).read_text()]
    assert absent == []


def test_every_direct_dependency_is_on_the_trust_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {re.split(r"[<>=\[ ]", needed)[0] for needed in project["dependencies"]}
    rows = set(re.findall(r"^\| ([a-z0-9-]+) \|", (ROOT / "docs/trust.md").read_text(), re.MULTILINE)) - {"package"}
    assert direct - rows == set()
    assert {row for row in rows if row in _locked()} - direct == set()


def _locked() -> set[str]:
    return {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}


def test_the_changelog_has_the_version_in_the_package() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_decision_records_are_numbered_once_and_say_what_they_cost() -> None:
    records = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    numbers = [path.name[:4] for path in records]
    assert len(numbers) == len(set(numbers)), numbers
    incomplete = [
        path.name
        for path in records
        if not all(re.search(word, path.read_text(), re.IGNORECASE) for word in ("context", "decision", "consequences"))
    ]
    assert not incomplete
