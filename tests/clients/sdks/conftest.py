"""One product and one origin for all SDKs. Each is a program of its own under `exeat run`, with only what that sets.

A program prints one line of JSON for each thing that it saw; `ran` gives them back beside the records that it caused.
"""

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients.git_server import GitServer
from tests.clients.sdks import vendors
from tests.clients.sdks.mcp_server import McpServer
from tests.control.test_relay_command import Sidecar
from tests.worlds.origin import Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Done, Product, running

type Record = dict[str, Any]

TELL = """
import json, os, sys
print("key", os.environ.get("EXEAT_API_KEY"), file=sys.stderr)
def tell(**facts): print(json.dumps(facts, default=str), flush=True)
def refusal(call, *kinds):
    try: return tell(unexpected=str(call()))
    except kinds as error: return error
"""
PYTHON = (sys.executable, "-W", "error", "-c")
RETRY_AFTER = 2
AGENTS_OWN = "none-is-needed"
"""What a program writes where an SDK insists on a key; no service may ever see it."""


@dataclass
class Run:
    """What one program said, the records of its calls in their order, and what an origin saw of them."""

    done: Done
    records: list[Record]
    requests: list[Request]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.done.out.splitlines() if line.startswith("{")]

    def verdicts(self) -> list[tuple[str | None, str]]:
        """Connection and verdict, or code of the refusal, for each attempt."""
        return [(record["op"]["connector"], verdict(record)) for record in self.records]

    def waited(self, refused: int) -> None:
        """The refused attempt of this number was made again, not before its Retry-After had passed, and allowed."""
        limited, again = self.records[refused], self.records[refused + 1]
        assert (verdict(limited), verdict(again)) == ("rate_limited", "allow")
        # What was said is the rest of two seconds, rounded up. It is written down after the refusal was decided upon,
        # and was one second at the least: longer than any SDK's own first pause.
        assert _seconds_between(limited, again) >= 0.998  # records have whole milliseconds


@dataclass
class Sdks:
    """The product, what the origin heard, and ways to run programs."""

    product: Product
    heard: list[Request]
    """By the origin, in the order in which they came, on whichever connection."""

    def run(self, script: str, *arguments: str, account: str = "agent", **how: Any) -> Run:
        """A Python program through `exeat run`."""
        return self.command(*PYTHON, TELL + script, *arguments, account=account, **how)

    def command(self, *command: str, account: str, code: int = 0, **how: Any) -> Run:
        """Any program through `exeat run`."""
        before = len(self.heard)
        done = self.product.run(*command, account=account, **how)
        assert done.code == code, done
        run = next(word for word in done.err.split() if word.startswith("r_"))
        keys = [line.split()[1] for line in done.err.splitlines() if line.startswith("key ")]
        return self._seen_from_outside(done, run, before, *keys)

    def at_the_door(self, script: str, account: str = "door") -> Run:
        """A Python program at the gate's own base URL, with an Exeat credential and nothing in its environment."""
        before = len(self.heard)
        issued = self.product.cli("token", "issue", account, "--json").ok().json
        host, port = self.product.door()
        arguments = (f"http://{host}:{port}/to", issued["token"])
        done = subprocess.run(
            [*PYTHON, f"{TELL}base, key = sys.argv[1:]\n{script}", *arguments],
            env={"HOME": str(self.product.folder), "PATH": os.environ["PATH"]},
            capture_output=True, text=True, timeout=60.0, check=False,
        )  # fmt: skip
        return self._seen_from_outside(
            Done(done.returncode, done.stdout, done.stderr).ok(), issued["run"], before, issued["token"]
        )

    def beside(self, sidecar: Sidecar, *command: str) -> Run:
        """Any program that has read a sidecar's file, and nothing else."""
        before = len(self.heard)
        done = subprocess.run(
            ["sh", "-c", '. "$0" && exec "$@"', str(sidecar.env_file), *command],
            env={"HOME": str(self.product.folder), "PATH": os.environ["PATH"]},
            capture_output=True, text=True, timeout=120.0, check=False,
        )  # fmt: skip
        keys = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("key ")]
        return self._seen_from_outside(
            Done(done.returncode, done.stdout, done.stderr).ok(), sidecar.ready["run"], before, *keys
        )

    def _seen_from_outside(self, done: Done, run: str, before: int, *keys: str) -> Run:
        """The program saw no secret of a service, and a service none of the program's keys."""
        assert vendors.SECRET not in done.out + done.err
        requests = self.heard[before:]
        for request in requests:
            scheme, _, pair = (request.header("authorization") or "").partition(" ")
            brought = request.raw + (b64decode(pair) if scheme == "Basic" else b"")
            assert not [key for key in (AGENTS_OWN, *keys) if key.encode() in brought]
        records = [
            record
            for record in self.product.records("call.intent", "call.denied", "call.rejected")
            if (record.get("agent") or {}).get("run") == run
        ]
        return Run(done, records, requests)


def soon(wait: object) -> bool:
    """True for the Retry-After of a call that is freed two seconds after the last one."""
    return int(str(wait)) in (1, RETRY_AFTER)


def later(wait: object) -> bool:
    """True for the Retry-After of a call that is freed an hour after the last one."""
    return 3500 < int(str(wait)) <= 3600


def verdict(record: Record) -> str:
    if record["type"] == "call.intent":
        return "allow"
    reason = record["decision"]["reasons"][0] if "decision" in record else record["reason"]
    return str(reason["code"])


def _seconds_between(earlier: Record, later: Record) -> float:
    return (datetime.fromisoformat(later["ts"]) - datetime.fromisoformat(earlier["ts"])).total_seconds()


@pytest.fixture(scope="session")
def sdks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sdks]:
    git = GitServer(Path(tmp_path_factory.mktemp("git")))
    hosts = (*(vendor.host for vendor in vendors.VENDORS), "github.com", "mcp.test")

    heard: list[Request] = []

    async def script(request: Request, peer: Any) -> None:
        heard.append(request)
        await (git.answer if request.header("host") == "github.com" else vendors.answer)(request, peer)

    secrets = {"vendors": vendors.SECRET.encode()}
    with OriginThread(hosts, script) as origin, McpServer(origin.authority, vendors.SECRET) as mcp:
        policy = vendors.policy(origin.port, mcp.port)
        with running(policy=policy, files={"ca.pem": origin.authority.pem}, secrets=secrets) as product:
            yield Sdks(product, heard)
