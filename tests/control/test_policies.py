"""A policy on its way: read once, carried whole, its origin declared only when git can vouch for it."""

import subprocess
from pathlib import Path

import pytest

from control.operations import PolicyRefused, PolicyText
from control.policies import check_policy, provenance_of, text_as_folder
from tests.worlds.authority import Authority

POLICY = """\
exeat: 1
tenant: acme
connections:
  lab: {host: saas.test, ca: ca/lab.pem}
accounts: {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy" / "ca").mkdir(parents=True)
    (tmp_path / "policy" / "acme.yaml").write_text(POLICY)
    (tmp_path / "policy" / "ca" / "lab.pem").write_text(Authority().pem)
    return tmp_path / "policy"


@pytest.mark.parametrize("single", [True, False])
def test_what_arrives_is_what_was_checked(folder: Path, single: bool) -> None:
    path = folder / "acme.yaml" if single else folder
    checked = check_policy(path)
    assert checked.text.single is single
    (folder / "acme.yaml").write_text("changed behind our back")
    with text_as_folder(checked.text) as arrived:
        again = check_policy(arrived)
    assert again.compiled.digest == checked.compiled.digest
    assert [file.digest for file in again.source.files] == [file.digest for file in checked.source.files]
    assert not arrived.exists()


def test_an_invalid_policy_is_refused_with_every_fault_and_its_place(folder: Path) -> None:
    (folder / "acme.yaml").write_text(POLICY.replace("tenant", "tenat").replace("accounts", "acounts"))
    with pytest.raises(PolicyRefused) as caught:
        check_policy(folder)
    assert {(fault.file, fault.line) for fault in caught.value.faults} >= {("acme.yaml", 2), ("acme.yaml", 5)}


@pytest.mark.parametrize("name", ["../out.yaml", "/tmp/out.yaml"])
def test_a_file_that_leads_out_of_its_folder_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused), text_as_folder(PolicyText(((name, b"x"),), single=False)):
        pytest.fail("the files were written")


def test_only_files_that_are_committed_as_they_are_have_an_origin(folder: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Ana", "-c", "user.email=ana@acme.example")
        done = subprocess.run(
            ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert provenance_of(folder).commit is None
    git("init", "-q")
    assert provenance_of(folder).commit is None
    git("add", ".")
    git("commit", "-q", "-m", "policy")
    found = provenance_of(folder)
    assert (found.commit, found.author) == (git("rev-parse", "HEAD"), "ana@acme.example")
    (folder / "acme.yaml").write_text(POLICY + "# edited\n")
    assert provenance_of(folder).commit is None
