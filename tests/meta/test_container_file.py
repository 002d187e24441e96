"""The container image as its file describes it; no engine is needed to check this much."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stages() -> list[str]:
    """The file's stages without comments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]


def test_it_is_built_in_stages_and_the_last_has_no_installer(stages: list[str]) -> None:
    assert len(stages) >= 2
    assert not re.search(r"\b(pip|uv|apt-get|curl)\b", stages[-1])


def test_what_is_installed_is_what_the_lock_names(stages: list[str]) -> None:
    syncs = [command for stage in stages for command in re.findall(r"uv sync[^&\n]*", stage)]
    assert syncs
    assert all("--locked" in command and "--no-dev" in command for command in syncs)


def test_it_does_not_run_as_root_and_says_whether_it_is_well(stages: list[str]) -> None:
    assert re.search(r"^USER (?!0\b|root\b)\S+", stages[-1], re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/healthz", stages[-1], re.MULTILINE)


def test_every_base_is_pinned_to_a_version(stages: list[str]) -> None:
    names = {match[1] for stage in stages if (match := re.match(r"FROM \S+ AS (\S+)", stage))}
    bases = [re.match(r"FROM (\S+)", stage)[1] for stage in stages]  # type: ignore[index]
    assert all(base in names or re.search(r":\d+\.\d+", base) for base in bases), bases


def test_everything_that_is_copied_exists(stages: list[str]) -> None:
    copied = [
        source
        for stage in stages
        for line in re.findall(r"^COPY (?!--from)(.+)$", stage, re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_secrets_and_state_do_not_reach_the_build() -> None:
    """Everything is ignored; what the image needs is let in by name."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert all(line.startswith("!") or line.endswith(("__pycache__", "*.pyc")) for line in lines[1:])
