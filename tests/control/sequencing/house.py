"""A state folder, its sequencer as a process of its own, and records that conform."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from control.sequencing import Identity, RemoteLedger
from control.state import State
from ledger import Trust, read_records, verify

ROOT = Path(__file__).parents[3]
POLICY = "sha256:" + "ab" * 32
COMMIT = "hmac-sha256:" + "cd" * 32
TENANT = "acme"


def prepared(folder: Path) -> Path:
    """A state that has a policy for the intents to name."""
    with State.open(folder, create=True) as state:
        actor = {"kind": "system", "id": "0", "name": "test"}
        state.record("policy.activate", "-", {"policy": POLICY, "previous": None, "actor": actor, "files": []})
    return folder


def intent(worker: str, call: str, attempt: int = 1, micros: int = 2000) -> dict[str, object]:
    return {
        "call": call,
        "attempt": attempt,
        "agent": {"id": "a", "workflow": "w", "run": "r", "credential": "j", "auth": "jwt"},
        "op": {
            "connector": "tickets",
            "tool": None,
            "method": "POST",
            "host": "acme.example",
            "port": 443,
            "scheme": "https",
            "route": "/api",
            "effect": "write",
        },
        "decision": {
            "verdict": "allow",
            "policy": POLICY,
            "epoch": 0,
            "rules": ["r"],
            "reasons": [],
            "inputs": None,
            "approvals": [],
        },
        "req": {"commit": COMMIT, "len": 0, "media": None},
        "secret": None,
        "cost": {"micro": micros, "cur": "USD", "budget": []},
        "env": {"proxy": "0", "config": "-", "worker": worker, "unsafe": []},
    }


def outcome(call: str, seq: int, attempt: int = 1, http: int = 200, micros: int = 2000) -> dict[str, object]:
    return {
        "call": call,
        "attempt": attempt,
        "intent": seq,
        "result": {
            "status": "confirmed",
            "http": http,
            "err": None,
            "code": None,
            "sent": True,
            "started_us": 1,
            "ended_us": 2,
        },
        "resp": None,
        "cost": {"micro": micros, "cur": "USD", "budget": []},
    }


def denied(worker: str, call: str) -> dict[str, object]:
    content = intent(worker, call)
    decision = {**content["decision"], "verdict": "deny"}  # type: ignore[dict-item]
    shared = {name: content[name] for name in ("call", "attempt", "agent", "op", "env")}
    return {**shared, "decision": decision, "answered": {"http": 403}}


class Sequencer:
    """The process. Start it as often as it was ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Sequencer":
        ready, told = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "control.sequencing", str(self.folder), "--ready-fd", str(told)],
                pass_fds=(told,),
                cwd=ROOT,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            assert pipe.read() == b"ready\n"
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def remote(folder: Path, label: str = "w0", **changes: Any) -> RemoteLedger:
    return RemoteLedger.open(folder, Identity.make(label), **changes)


def records(folder: Path, *types: str) -> list[dict[str, Any]]:
    return [record.body for record in read_records(folder / "ledger", types=frozenset(types))]


def outcomes(folder: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """By call and attempt."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for body in records(folder, "call.outcome"):
        found.setdefault((body["call"], body["attempt"]), []).append(body)
    return found


def await_that(condition: Callable[[], bool], seconds: float = 30) -> None:
    """The condition comes true; a test that hangs fails here."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def assert_verifies(folder: Path) -> None:
    report = verify(folder / "ledger", Trust.parse((folder / "trust.policy").read_text()))
    assert (report.exit_code, report.findings, report.open_calls) == (0, (), ())
