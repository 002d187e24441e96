"""One product and one origin for all SDKs. Each is a program of its own under `exeat run`, with only what that sets.

A program prints one line of JSON for each thing that it saw; `ran` gives them back beside the records that it caused.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients.git_server import GitServer
from tests.clients.sdks import vendors
from tests.clients.sdks.mcp_server import McpServer
from tests.worlds.origin import Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Done, Product, running

type Record = dict[str, Any]

TELL = """
import json, os, sys
def tell(**facts): print(json.dumps(facts, default=str), flush=True)
def refusal(call, *kinds):
    try: return tell(unexpected=str(call()))
    except kinds as error: return error
"""
RETRY_AFTER = 2
AGENTS_OWN = "an-agent-has-none"
"""What a program writes where an SDK insists on a key; no service may ever see it."""


@dataclass
class Run:
    """What one program said, and the records of its calls in their order."""

    told: list[dict[str, Any]]
    records: list[Record]
    done: Done

    def verdicts(self) -> list[tuple[str | None, str]]:
        """Connection and verdict, or code of the refusal, for each attempt."""
        return [(record["op"]["connector"], verdict(record)) for record in self.records]

    def waited(self, refused: int) -> None:
        """The refused attempt of this number was made again, not before its Retry-After had passed, and allowed."""
        limited, again = self.records[refused], self.records[refused + 1]
        assert (verdict(limited), verdict(again)) == ("rate_limited", "allow")
        # A call is freed every two seconds; what is said is the rest of them, rounded up, and the tests that look
        # at it see 2. Less two milliseconds, because records are written with whole ones.
        assert _seconds_between(limited, again) >= RETRY_AFTER - 0.002


@dataclass
class Sdks:
    """The product, the origins, and a way to run programs."""

    product: Product
    origin: OriginThread
    mcp: McpServer

    def run(self, script: str, *arguments: str, account: str = "agent", **how: Any) -> Run:
        """A Python program through `exeat run`."""
        done = self.product.run(sys.executable, "-W", "error", "-c", TELL + script, *arguments, account=account, **how)
        return self.result(done.ok())

    def result(self, done: Done) -> Run:
        run = next(word for word in done.err.split() if word.startswith("r_"))
        records = [
            record
            for record in self.product.records("call.intent", "call.denied", "call.rejected")
            if (record.get("agent") or {}).get("run") == run
        ]
        self.reveals_nothing(done)
        return Run([json.loads(line) for line in done.out.splitlines() if line.startswith("{")], records, done)

    def reveals_nothing(self, done: Done) -> None:
        assert vendors.SECRET not in done.out + done.err

    def seen(self, host: str) -> list[Request]:
        return [request for request in self.origin.origin.requests if request.header("host") == host]

    def token(self, account: str) -> str:
        """An Exeat credential for a program that is not started by `exeat run`."""
        settings = self.product.cli("token", "issue", account, "--json").ok().json
        return str(settings["token"])

    def door(self, connection: str) -> str:
        """The connection's base URL."""
        host, port = self.product.door()
        return f"http://{host}:{port}/to/{connection}"


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

    async def script(request: Request, peer: Any) -> None:
        await (git.answer if request.header("host") == "github.com" else vendors.answer)(request, peer)

    secrets = {"vendors": vendors.SECRET.encode()}
    with OriginThread(hosts, script) as origin, McpServer(origin.authority) as mcp:
        policy = vendors.policy(origin.port, mcp.port, origin.port)
        with running(policy=policy, files={"ca.pem": origin.authority.pem}, secrets=secrets) as product:
            yield Sdks(product, origin, mcp)
