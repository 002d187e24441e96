"""The real product: `exeat up` as a process of its own on ephemeral ports, and its command line.

    with running(tmp_path, policy=POLICY.format(port=origin.port), files={"lab-ca.pem": authority.pem},
                 secrets={"lab": b"the-real-secret"}) as product:
        done = product.run("curl", "-sS", "https://saas.test/v1/x")      # through `exeat run`
        product.cli("revoke", "account", "agent", "--reason", "INC-1").ok()

Nothing is patched and nothing is imported from the product: what a user can do, and no more.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 30.0
FLEET_SECONDS = 90.0
"""Five processes start one after the other, and a busy machine takes a while for each."""
EXEAT = (sys.executable, "-m", "control.cli")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def ok(self) -> "Done":
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Product:
    """One installation in a folder of its own, and its running process."""

    folder: Path
    listen: str = "127.0.0.1:0"
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """What the process wrote to standard output and standard error."""
        return self.folder / "up.log"

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A clean environment for the product's commands."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONPATH": str(ROOT), "EXEAT_STATE": str(self.state), **self.environment, **(extra or {})}

    def start(self) -> "Product":
        """`exeat up` runs and answers its operators; raises with its log when it ends instead."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = ("--listen", self.listen) if self.listen else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*EXEAT, "up", *plain, "--health", "127.0.0.1:0", *self.options],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self.env(), cwd=self.folder,
            )  # fmt: skip
        deadline = time.monotonic() + (FLEET_SECONDS if "--workers" in self.options else START_SECONDS)
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"exeat up ended with {self.process.returncode}\n{self.log.read_text()}")
            with contextlib.suppress(OSError):
                self.status()
                return self
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"exeat up did not answer in time\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """The process has ended after the signal; its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"exeat up did not end\n{self.log.read_text()}") from None

    def cli(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> Done:
        """One command of the product."""
        done = subprocess.run(
            [*EXEAT, *arguments], input=stdin, capture_output=True, env=self.env(env), cwd=self.folder,
            timeout=seconds, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *command: str, account: str | None = None, options: tuple[str, ...] = (), **how: Any) -> Done:
        """A program through `exeat run`."""
        named = () if account is None else ("--as", account)
        return self.cli("run", *named, *options, "--", *command, **how)

    def spawn(
        self,
        *command: str,
        account: str | None = None,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A program through `exeat run`, still running. The caller waits for it."""
        named = () if account is None else ("--as", account)
        return subprocess.Popen(
            [*EXEAT, "run", *named, *options, "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env=self.env(env), cwd=self.folder,
        )  # fmt: skip

    def run_env(self, account: str | None = None, ttl: str | None = None) -> dict[str, str]:
        """The matrix of `exeat env`, with a live credential in its proxy URL: for clients inside the test's process."""
        options = () if account is None else ("--as", account)
        options += () if ttl is None else ("--ttl", ttl)
        settings: dict[str, str] = self.cli("env", "--json", *options).ok().json
        return settings

    def status(self) -> Any:
        """What `exeat status --json` says, asked on the operators' socket: faster than a process."""
        with socket.socket(socket.AF_UNIX) as operators:
            operators.settimeout(START_SECONDS)
            operators.connect(str(self.state / "operators.sock"))
            operators.sendall(b"GET /status HTTP/1.1\r\nHost: operators\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := operators.recv(65536):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.decode())
        return json.loads(body)

    def door(self) -> tuple[str, int]:
        """Where agents connect."""
        host, _, port = self.status()["listening"][0].removeprefix("https://").rpartition(":")
        return host, int(port)

    def health(self) -> str:
        """`http://127.0.0.1:PORT` of /healthz, /readyz and /metrics."""
        return f"http://{self.status()['health']}"

    def records(self, *types: str) -> list[dict[str, Any]]:
        """The ledger's records, read from its files."""
        from ledger.reading import read_records

        found = read_records(self.state / "ledger", types=frozenset(types) or None)
        return [dict(record.body) for record in found]

    def apply(self, policy: str, files: Mapping[str, str | bytes] | None = None) -> Done:
        """The policy is written, with the files it names, and applied."""
        folder = self.folder / "policy"
        folder.mkdir(exist_ok=True)
        (folder / "policy.yaml").write_text(policy)
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.cli("policy", "apply", str(folder), "--json")


@contextlib.contextmanager
def running(
    folder: Path | None = None,
    *,
    policy: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    tenant: str = "acme",
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    listen: str = "127.0.0.1:0",
) -> Iterator[Product]:
    """A running product with a policy and secrets; stopped and checked for a clean end afterwards."""
    # Not pytest's folder: below it, with a long test name, the operators' socket's path would be too long.
    home = Path(tempfile.mkdtemp(prefix="exeat-w-")) if folder is None else folder
    product = Product(home, listen, options, dict(environment or {})).start()
    try:
        if policy is not None:
            product.apply(policy, files).ok()
        for name, value in (secrets or {}).items():
            product.cli("secret", "set", name, "--tenant", tenant, stdin=value).ok()
        yield product
    finally:
        if product.process is not None:
            code = product.stop()
            assert code == 0, f"exeat up ended with {code}\n{product.log.read_text()}"
        log = product.log.read_bytes()
        assert b"eyJ" not in log, "a token is in the log"
        assert not [name for name, value in (secrets or {}).items() if value in log], "a secret is in the log"
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
