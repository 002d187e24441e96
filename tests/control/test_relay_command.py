"""`exeat relay`: programs that others started read a file, and are agents from then on."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.cli import run_command
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import EXEAT, Product, running

SECRET = b"real-secret-of-the-sidecar-51"
POLICY = """\
exeat: 1
tenant: acme
credentials: {{ttl: 1m, max_ttl: 5m}}
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    rules: [{{id: items, allow: {{connection: saas, methods: [GET, POST], path: "/items/{{id}}"}}}}]
"""
PASSWORD = "a-password-that-a-person-chose-and-kept-0123"


class Sidecar:
    """One `exeat relay` and what it said when it was ready."""

    def __init__(self, product: Product, env_file: Path, *options: str) -> None:
        self.env_file = env_file
        self.process = subprocess.Popen(
            [*EXEAT, "relay", "--listen", "127.0.0.1:0", "--env-file", str(env_file), "--json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=product.env(), cwd=product.folder,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.ready: dict[str, Any] = json.loads(line)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err.decode()

    def shell(self, script: str) -> str:
        """What a program prints that has nothing but the file."""
        done = subprocess.run(
            ["sh", "-c", f". '{self.env_file}'; {script}"],
            capture_output=True, text=True, check=False, timeout=60, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Product, OriginThread]]:
    with OriginThread(("saas.test",)) as origin:
        files = {"ca.pem": origin.authority.pem}
        with running(policy=POLICY.format(port=origin.port), files=files, secrets={"saas": SECRET}) as product:
            yield product, origin


@contextlib.contextmanager
def sidecar(product: Product, folder: Path, *options: str) -> Iterator[Sidecar]:
    beside = Sidecar(product, folder / "env", *options)
    try:
        yield beside
    finally:
        if beside.process.poll() is None:
            beside.process.kill()
            beside.process.communicate()


REQUESTS = (
    f"{sys.executable} -c 'import requests; print(requests.get(\"https://saas.test/items/%s\", timeout=20).text)'"
)
BASE_URL = 'curl -sS -H "X-Api-Key: $EXEAT_API_KEY" "$EXEAT_BASE_URL/saas/items/%s"'


def test_programs_share_one_run_through_both_doors_until_it_ends(
    world: tuple[Product, OriginThread], tmp_path: Path
) -> None:
    product, origin = world
    with sidecar(product, tmp_path) as beside:
        assert beside.env_file.stat().st_mode & 0o777 == 0o600
        assert '{"ok":true}' in beside.shell(REQUESTS % "one")
        assert '{"ok":true}' in beside.shell(BASE_URL % "two")
        for target in ("/items/one", "/items/two"):
            (seen,) = origin.seen(target)
            assert seen.header("authorization") == f"Bearer {SECRET.decode()}"
            assert seen.header("x-api-key") is None
        runs = {record["agent"]["run"] for record in product.records("call.intent")}
        assert runs == {beside.ready["run"]}
        text = beside.env_file.read_text()
        assert "eyJ" not in text, "no credential in the file"
        code, err = beside.end()
        assert (code, "ending" in err) == (0, True), err
        assert not beside.env_file.exists()


def test_the_credential_is_renewed_and_a_revocation_is_not_undone(
    world: tuple[Product, OriginThread], tmp_path: Path
) -> None:
    product, _ = world
    with sidecar(product, tmp_path, "--ttl", "2s") as beside:
        loop = f"for i in 1 2 3 4 5 6 7 8 9; do {BASE_URL % 'renewed'}; sleep 0.5; done"
        assert beside.shell(loop).count('{"ok":true}') == 9
        product.cli("revoke", "account", "agent", "--reason", "over").ok()
        assert "credential_revoked" in beside.shell(BASE_URL % "revoked")
        assert beside.process.poll() is None, "a restart would make a new run"
    product.cli("restore", "account", "agent", "--reason", "over").ok()


def test_a_chosen_password_stays_and_only_fit_ones_are_taken(
    world: tuple[Product, OriginThread], tmp_path: Path
) -> None:
    product, _ = world
    chosen = tmp_path / "password"
    chosen.write_text(f"{PASSWORD}\n")
    options = ("--password-file", str(chosen), "--format", "dotenv", "--group-readable")
    with sidecar(product, tmp_path, *options) as beside:
        lines = beside.env_file.read_text().splitlines()
        assert f"EXEAT_API_KEY={PASSWORD}" in lines
        assert "NO_PROXY=" in lines
        assert not [line for line in lines if line.startswith(("export", "unset"))]
        assert beside.env_file.stat().st_mode & 0o777 == 0o640
    chosen.write_text("too short")
    refused = product.cli("relay", "--env-file", str(tmp_path / "e"), "--password-file", str(chosen))
    assert (refused.code, "openssl rand" in refused.err) == (2, True)


def test_an_open_connection_may_go_on_for_the_grace_and_no_longer(
    world: tuple[Product, OriginThread], tmp_path: Path
) -> None:
    product, _ = world
    with sidecar(product, tmp_path, "--grace", "1s") as beside:
        host, _, port = beside.ready["relay"].rpartition(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(b"CONNECT")
            code, _ = beside.end(signal.SIGINT)
            assert code == 0
            idle.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert idle.recv(100) == b""


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "192.0.2.1:9080", "localhost:1", "127.0.0.1", "[::]:1", "127.0.0.1:70000"]
)
def test_it_listens_on_loopback_alone(address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(["relay", "--listen", address, "--env-file", str(tmp_path / "e")]) == 2


def test_a_port_that_is_taken_and_a_folder_that_is_missing_are_said(
    world: tuple[Product, OriginThread], tmp_path: Path
) -> None:
    product, _ = world
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = product.cli("relay", "--listen", where, "--env-file", str(tmp_path / "e"))
        assert (done.code, f"cannot listen on {where}" in done.err) == (3, True), done.err
    done = product.cli("relay", "--listen", "127.0.0.1:0", "--env-file", "/nowhere/at/all")
    assert (done.code, "cannot be written" in done.err) == (3, True), done.err


def test_nobodys_own_certificates_are_replaced(world: tuple[Product, OriginThread], tmp_path: Path) -> None:
    """`ca.pem` is what a policy's own folder calls its authority, and what a state calls its key."""
    product, _ = world
    for name in ("ca.pem", "ca-bundle.pem"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("somebody's own")
        done = product.cli("relay", "--listen", "127.0.0.1:0", "--env-file", str(folder / "env"))
        assert done.code == 2
        assert "no relay wrote it" in done.err
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "somebody's own"
    (own := tmp_path / "own").mkdir()
    for _ in range(2):  # what an earlier relay left is its own
        with sidecar(product, own) as beside:
            assert beside.end()[0] == 0
