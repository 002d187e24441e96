"""A clone needs git, make and Python 3; what is missing beyond repair is said kindly."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "sed", "cat", "dirname", "rm", "mkdir", "tail", "env", "touch")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The frame of a clone, and a folder `bin` that is the whole PATH."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/bootstrap", tmp_path / ".ci/bootstrap")
    shutil.copy(ROOT / ".python-version", tmp_path / ".python-version")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def _program(clone: Path, name: str, script: str) -> None:
    path = clone / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _bootstrap(clone: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", ".ci/bootstrap", *arguments],
        cwd=clone,
        env={"PATH": str(clone / "bin"), "HOME": str(clone / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_without_venv_and_pip_is_named_with_the_cure(clone: Path) -> None:
    _program(clone, "python3", 'case "$1" in -c) exit 0;; *) exit 1;; esac')
    done = _bootstrap(clone)
    assert done.returncode == 1
    assert "neither a working 'venv' nor 'pip'" in done.stderr
    assert "python3-venv" in done.stderr


UV = """
case "$1 $2" in
  "--version ") echo "uv {version} (test)";;
  "python find") [ "$5" = "{found}" ] && echo /some/python || exit 1;;
  "python install") exit 1;;
  sync*) echo "$@" > synced;;
esac
"""


def test_a_recent_uv_on_path_is_used_and_the_lock_is_binding(clone: Path) -> None:
    _program(clone, "uv", UV.format(version="0.13.8", found="3.12"))
    assert _bootstrap(clone).returncode == 0
    assert (clone / "synced").read_text().split() == ["sync", "--locked", "--quiet", "--python", "/some/python"]
    assert not (clone / ".uv/uv-0.13.8").exists()


@pytest.mark.parametrize("version", ["0.8.24", "0.0.9", "nonsense"])
def test_an_old_uv_on_path_is_left_alone(clone: Path, version: str) -> None:
    _program(clone, "uv", UV.format(version=version, found="3.12"))
    _program(clone, "python3", 'case "$1" in -c) exit 0;; *) exit 1;; esac')
    assert "cannot be fetched" in _bootstrap(clone).stderr
    assert not (clone / "synced").exists()


def test_any_supported_python_serves_where_the_preferred_one_is_missing(clone: Path) -> None:
    _program(clone, "uv", UV.format(version="1.0.0", found=">=3.12"))
    assert _bootstrap(clone).returncode == 0
    assert (clone / "synced").exists()


def test_no_supported_python_is_said_kindly(clone: Path) -> None:
    _program(clone, "uv", UV.format(version="0.13.8", found="none"))
    done = _bootstrap(clone)
    assert done.returncode == 1
    assert "no Python 3.12 or later here" in done.stderr
    assert not (clone / "synced").exists()


def test_an_absent_python_that_was_asked_for_is_told_apart_from_a_failure(clone: Path) -> None:
    """CI skips the other Python with exit code 3 only."""
    _program(clone, "uv", UV.format(version="0.13.8", found="3.12"))
    assert _bootstrap(clone, "3.13").returncode == 3


def test_every_target_is_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert phony == explained
    assert {"demo", "up", "test", "lint", "check", "bench", "campaign", "help"} <= phony


def test_the_container_takes_the_same_uv() -> None:
    here = re.search(r"^uv_version=(\S+)", (ROOT / ".ci/bootstrap").read_text(), re.MULTILINE)
    there = re.search(r"\buv==(\S+)", (ROOT / "Dockerfile").read_text())
    assert here is not None
    assert there is not None
    assert here[1] == there[1]
