"""Node 24's clients through both doors: allowed, denied with the SDK's own exception, waiting as long as they are told.

Node and the SDKs come from the registry, at the versions of `node/package-lock.json`, once, into a folder that git
ignores.
"""

import fcntl
import json
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.origin import Peer, Request, reply
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Done, Product, running

pytestmark = pytest.mark.wants("npm")

HERE = Path(__file__).resolve().parent / "node"
SECONDS = 300.0
"""For a download of 50 MB, once."""
HOSTS = ("saas.test", "api.openai.com", "api.github.com", "api.stripe.com")
SECRETS = {name: f"real-{name}-secret-5be1".encode() for name in ("saas", "models", "github", "stripe")}
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
RULES = (
    '{id: items, allow: {connection: saas, methods: [GET], path: "/items/{id}"}}',
    "{id: chat, allow: {connection: models, methods: [POST], path: /v1/chat/completions}}",
    '{id: issues, allow: {connection: github, methods: [POST], path: "/repos/{o}/{r}/issues"}}',
    "{id: refunds, allow: {connection: stripe, methods: [POST], path: /v1/refunds}}",
)
LIMITED = "limits: {rate: [{connection: %s, max: 30, per: minute, burst: 1}]}"
WORDS = ("Once", " upon", " a", " time")


def policy(port: int) -> str:
    """One account without limits, and for each client and door one that may call once in two seconds."""
    text = "exeat: 1\ntenant: acme\ncredentials: {ttl: 1m, max_ttl: 5m}\nconnections:\n"
    for name, host in zip(SECRETS, HOSTS, strict=True):
        text += f'  {name}: {{host: {host}, dial: "127.0.0.1:{port}", ca: ca.pem, secret: {name}}}\n'
    rules = ", ".join(RULES)
    text += f"accounts:\n  agent: {{owners: {OWNERS}, rules: [{rules}]}}\n"
    for name in SECRETS:
        for door in ("proxy", "base"):
            text += f"  {name}-{door}: {{owners: {OWNERS}, rules: [{rules}], {LIMITED % name}}}\n"
    return text


async def answer(request: Request, peer: Peer) -> None:
    """As each service answers."""
    match request.header("host"):
        case "api.openai.com" if json.loads(request.body).get("stream"):
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for event in [
                *(json.dumps(_completion("chat.completion.chunk", delta={"content": w})) for w in WORDS),
                "[DONE]",
            ]:
                line = f"data: {event}\n\n".encode()
                await peer.send(b"%x\r\n%b\r\n" % (len(line), line))
            await peer.send(b"0\r\n\r\n")
        case "api.openai.com":
            message = {"role": "assistant", "content": "".join(WORDS)}
            await peer.send(reply(json.dumps(_completion("chat.completion", message=message)).encode()))
        case "api.github.com":
            assert json.loads(request.body) == {"title": "t"}
            await peer.send(reply(b'{"number":7,"title":"t"}', status="201 Created"))
        case "api.stripe.com":
            assert request.body == b"charge=ch_1"
            await peer.send(reply(b'{"id":"re_1","object":"refund"}', headers="Request-Id: req_1\r\n"))
        case _:
            await peer.send(reply())


def _completion(kind: str, **choice: object) -> dict[str, object]:
    return {
        "id": "c1", "object": kind, "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": None if "delta" in choice else "stop", **choice}],
    }  # fmt: skip


@dataclass
class Node:
    """Node 24, its clients and a product for them."""

    program: Path
    product: Product
    origin: OriginThread

    def run(self, client: str, door: str, action: str, account: str = "agent") -> tuple[Done, list[dict[str, Any]]]:
        """What the client made of its calls."""
        # At the base URL it is a client that ignores proxies, and whose hosts no name server knows.
        obeys = "1" if door == "proxy" else "0"
        command = ("env", f"NODE_USE_ENV_PROXY={obeys}", str(self.program), str(HERE / f"{client}.mjs"), door, action)
        done = self.product.run(*command, account=account, seconds=120.0).ok()
        for secret in SECRETS.values():
            assert secret.decode() not in done.out + done.err
        return done, [json.loads(line) for line in done.out.splitlines()]

    def of_run(self, done: Done, *types: str) -> list[dict[str, Any]]:
        """The records of the calls that this run made."""
        run = next(word for word in done.err.split() if word.startswith("r_"))
        return [record for record in self.product.records(*types) if (record.get("agent") or {}).get("run") == run]


def installed() -> Path:
    """The Node of the lock file; installed when it is not there yet. Skips where the registry cannot be reached."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    program = HERE / "node_modules" / f"node-linux-{machine}" / "bin" / "node"
    with (HERE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one test run install once
        done = HERE / "node_modules" / ".package-lock.json"
        if not done.exists() or done.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"]
            try:
                npm = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=SECONDS, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip("wants the npm registry: npm ci took too long")
            if npm.returncode != 0:
                reason = next((line for line in npm.stderr.splitlines() if "error" in line), npm.stderr[-200:])
                # A lock file that is wrong is a defect, and no reason to skip.
                assert not {"EINTEGRITY", "EUSAGE"} & set(npm.stderr.split()), npm.stderr
                pytest.skip(f"wants the npm registry: {reason}")
            done.touch()
    if not program.exists():
        pytest.skip(f"wants a Node of the registry for {machine}")
    return program


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    program = installed()
    with OriginThread(HOSTS, answer) as origin:
        files = {"ca.pem": origin.authority.pem}
        with running(policy=policy(origin.port), files=files, secrets=SECRETS) as product:
            yield Node(program, product, origin)


CLIENTS = {"fetch": "saas", "openai": "models", "octokit": "github", "stripe": "stripe"}
"""Client: its connection."""
DOORS = ("proxy", "base")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("client", "target", "results"),
    [
        ("fetch", "/items/node-fetch", [{"ok": True}]),
        ("openai", "/v1/chat/completions", ["".join(WORDS)] * 2),
        ("octokit", "/repos/acme/tools/issues", [7]),
        ("stripe", "/v1/refunds", ["re_1"]),
    ],
    ids=["fetch", "openai", "octokit", "stripe"],
)
def test_a_client_gets_through_and_the_service_sees_the_secret_alone(
    node: Node, client: str, door: str, target: str, results: list[Any]
) -> None:
    before = len(node.origin.seen(target))
    done, told = node.run(client, door, "allowed")
    assert told == [{"ok": result} for result in results]
    seen = node.origin.seen(target)[before:]
    assert len(seen) == len(results)
    for request in seen:
        assert request.header("authorization") == f"Bearer {SECRETS[CLIENTS[client]].decode()}"
        key = json.loads(done.err.splitlines()[1])["EXEAT_API_KEY"]
        assert key.encode() not in request.raw
        assert b"an-agent-needs-none" not in request.raw
    assert len(node.of_run(done, "call.intent")) == len(results)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("client", "raised"),
    [
        ("fetch", "Refused"),
        ("openai", "PermissionDeniedError"),
        ("octokit", "RequestError"),
        ("stripe", "StripePermissionError"),
    ],
    ids=["fetch", "openai", "octokit", "stripe"],
)
def test_a_denial_is_the_clients_own_exception_with_our_code_and_is_not_tried_again(
    node: Node, client: str, door: str, raised: str
) -> None:
    done, told = node.run(client, door, "denied")
    (error,) = told
    assert (error.get("raised"), error.get("status"), error.get("header")) == (raised, 403, "not_allowed"), told
    assert error["code"] == "not_allowed"
    (denied,) = node.of_run(done, "call.denied", "call.intent")
    assert [reason["code"] for reason in denied["decision"]["reasons"]] == ["not_allowed"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("client", ["openai", "octokit"])
def test_a_client_that_tries_again_waits_and_then_succeeds(node: Node, client: str, door: str) -> None:
    """openai waits for Retry-After, which is longer than its own pause; octokit's plugin for a time of its own."""
    done, told = node.run(client, door, "limited", account=f"{CLIENTS[client]}-{door}")
    assert [list(one) for one in told] == [["ok"], ["ok"]]
    records = node.of_run(done, "call.denied", "call.intent")
    verdicts = [record["decision"]["verdict"] for record in records]
    assert verdicts[:2] == ["allow", "deny"]
    assert verdicts[-1] == "allow"
    assert len(verdicts) == 3 if client == "openai" else 3 <= len(verdicts) <= 4, verdicts
    denied = [record for record in records if record["decision"]["verdict"] == "deny"]
    assert {reason["code"] for record in denied for reason in record["decision"]["reasons"]} == {"rate_limited"}
    # openai's own pause would have been half a second at most.
    assert seconds_between(records[1], records[2]) >= (1.0 if client == "openai" else 0.9)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("client", "raised"), [("fetch", "Refused"), ("stripe", "StripeRateLimitError")])
def test_a_client_that_does_not_try_again_is_told_how_long_to_wait(
    node: Node, client: str, raised: str, door: str
) -> None:
    done, (first, second) = node.run(client, door, "limited", account=f"{CLIENTS[client]}-{door}")
    assert list(first) == ["ok"]
    assert (second["raised"], second["status"], second["header"], second["wait"]) == (raised, 429, "rate_limited", "2")
    assert second["code"] == "rate_limited"
    records = node.of_run(done, "call.denied", "call.intent")
    assert [record["decision"]["verdict"] for record in records] == ["allow", "deny"]


def test_the_base_url_is_reached_by_a_client_that_obeys_proxies_as_well(node: Node) -> None:
    """Node tunnels even plain http through its proxy: to the relay, through the relay."""
    command = (str(node.program), str(HERE / "fetch.mjs"), "base", "allowed")
    done = node.product.run(*command, account="agent").ok()
    assert json.loads(done.out) == {"ok": {"ok": True}}


def seconds_between(earlier: dict[str, Any], later: dict[str, Any]) -> float:
    return (datetime.fromisoformat(later["ts"]) - datetime.fromisoformat(earlier["ts"])).total_seconds()


PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/clients/node.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```js\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(5))
def test_every_program_of_the_page_about_node_runs(node: Node, number: int) -> None:
    assert len(PROGRAMS) == 5
    script = f'cd "{HERE}" && exec "{node.program}" --input-type=module -e "$1"'
    done = node.product.run("sh", "-c", script, "sh", PROGRAMS[number], account="agent", seconds=120.0).ok()
    assert len(node.of_run(done, "call.intent")) == (3 if number == 4 else 1)
