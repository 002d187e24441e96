"""Run by test_kill.py in a process of its own: writes calls until it is killed, and tells each receipt on stdout.

Usage: killed_writer.py DIRECTORY SEED
"""

import itertools
import os
import random
import sys
import threading
from pathlib import Path

from ledger import FileResumeStore, Ledger, Limits
from ledger.files import PosixFiles

POLICY = "sha256:" + "ab" * 32
COMMIT = "hmac-sha256:" + "cd" * 32


class FileLockStore:
    """The register as one file that is replaced durably."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = PosixFiles()

    def load(self) -> bytes | None:
        return self._path.read_bytes() if self._path.exists() else None

    def compare_and_swap(self, old: bytes | None, new: bytes) -> bool:
        if self.load() != old:
            return False
        self._files.replace(self._path, new)
        return True


def intent(call: str) -> dict[str, object]:
    return {
        "call": call,
        "attempt": 1,
        "agent": {"id": "a", "workflow": "w", "run": "r", "credential": "j", "auth": "jwt"},
        "op": {
            "connector": None,
            "tool": None,
            "method": "GET",
            "host": "h",
            "port": 443,
            "scheme": "https",
            "route": None,
            "effect": "read",
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
        "cost": {"micro": 5, "cur": "USD", "budget": []},
        "env": {"proxy": "0", "config": "-", "worker": "w", "unsafe": []},
    }


def outcome(call: str, seq: int) -> dict[str, object]:
    return {
        "call": call,
        "attempt": 1,
        "intent": seq,
        "result": {
            "status": "confirmed",
            "http": 200,
            "err": None,
            "code": None,
            "sent": True,
            "started_us": 1,
            "ended_us": 2,
        },
        "resp": None,
        "cost": {"micro": 5, "cur": "USD", "budget": []},
    }


def main(base: Path, seed: str) -> None:
    limits = Limits(
        reserve_bytes=0,
        ballast_bytes=4096,
        seal_active_seconds=0.02,
        segment_bytes=40_000,
        keep_seconds=0.1,
    )
    arguments = {
        "keys": base / "keys",
        "lock_store": FileLockStore(base / "lock"),
        "limits": limits,
        "resume": FileResumeStore(base / "resume", PosixFiles()),
    }
    if (base / "ledger" / "LEDGER.json").exists():
        ledger = Ledger.open(base / "ledger", **arguments)
    else:
        ledger = Ledger.create(base / "ledger", origin="exeat.test/kill", **arguments)
    if not (base / "trust").exists():
        PosixFiles().replace(base / "trust", ledger.trust_text().encode())

    def tell(receipt: object) -> None:
        os.write(1, f"{receipt.seq} {receipt.leaf.hex()}\n".encode())

    activation = {
        "policy": POLICY,
        "previous": None,
        "actor": {"kind": "system", "id": "0", "name": "test"},
        "files": [],
    }
    tell(ledger.submit("policy.activate", "-", activation).result(30))

    def work(name: str) -> None:
        chance = random.Random(name)
        for n in itertools.count():
            call = f"{name}.{n}"
            receipt = ledger.submit("call.intent", f"t{n % 3}", intent(call)).result(30)
            tell(receipt)
            if chance.random() < 0.8:
                tell(ledger.submit("call.outcome", f"t{n % 3}", outcome(call, receipt.seq)).result(30))

    threads = [threading.Thread(target=work, args=(f"c{seed}.{n}",), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    threads[0].join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
