"""Git over HTTPS with only what `exeat run` sets: against git's own server, through the gate."""

import base64
import re
from pathlib import Path

import pytest

from tests.clients.conftest import SECRETS, Clients
from tests.clients.git_server import README

pytestmark = [pytest.mark.wants("git")]
QUIET = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def test_git_clones_over_https_and_never_sees_the_secret(clients: Clients, tmp_path: Path) -> None:
    work = tmp_path / "tools"
    done = clients.product.run(
        "git", "clone", "https://github.com/acme/tools.git", str(work), account="agent", env=QUIET
    ).ok()
    assert (work / "README").read_text() == README
    seen = clients.tls.seen("/acme/tools.git/")
    assert [(request.method, request.target.partition("?")[0].rpartition("/")[2]) for request in seen] == [
        ("GET", "refs"), ("POST", "git-upload-pack"), ("POST", "git-upload-pack"),
    ]  # fmt: skip
    assert {request.header("authorization") for request in seen} == {basic("bot", SECRETS["git"])}
    clients.reveals_nothing(done)
    for file in work.rglob("*"):
        assert not file.is_file() or SECRETS["git"] not in file.read_bytes()
    assert [record["op"]["route"] for record in clients.of_run(done, "call.intent")] == ["/acme/tools.git/**"] * 3


def test_git_shows_its_user_the_code_and_the_advice(clients: Clients, tmp_path: Path) -> None:
    """Git prints a server's words only from text/plain, so that is what git is answered with."""
    refused = ("git", "clone", "https://github.com/acme/other.git", str(tmp_path / "other"))
    done = clients.product.run(*refused, account="agent", env=QUIET)
    assert done.code == 128
    assert "The requested URL returned error: 403" in done.err
    assert re.search(r"remote: not_allowed: No rule allows this call", done.err), done.err
    (denied,) = clients.of_run(done, "call.denied", "call.intent", "call.rejected")
    assert denied["decision"]["reasons"] == [{"code": "not_allowed"}]
    assert not (tmp_path / "other").exists()
    assert clients.tls.seen("/acme/other.git") == []


def basic(user: str, password: bytes) -> str:
    return "Basic " + base64.b64encode(user.encode() + b":" + password).decode()
