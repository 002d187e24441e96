"""One product and one origin for all clients: each test calls paths, repositories or accounts of its own.

The origin answers for hosts that clients know by heart (api.openai.com, github.com), so that a program needs no base
URL: it does not know that it is not talking to them.
"""

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.git_server import GitServer
from tests.worlds.origin import Peer, Request, reply
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Done, Product, running

SECRETS = {"saas": b"real-saas-secret-4a0d", "openai": b"real-openai-secret-77e1", "git": b"real-git-secret-c093"}
HOSTS = ("saas.test", "api.openai.com", "github.com")
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """\
exeat: 1
tenant: acme
credentials: {{ttl: 1m, max_ttl: 5m}}
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
  models: {{host: api.openai.com, dial: "127.0.0.1:{port}", ca: ca.pem, secret: openai}}
  git: {{host: github.com, dial: "127.0.0.1:{port}", ca: ca.pem, secret: git, present: {{basic: bot}}}}
  plain: {{host: plain.test, port: 80, dial: "127.0.0.1:{plain}", scheme: http, unsafe_plaintext: true, secret: saas}}
accounts:
  agent:
    owners: {owners}
    rules:
      - {{id: items, allow: {{connection: saas, methods: [GET, POST], path: "/items/{{id}}"}}}}
      - {{id: frozen, deny: {{connection: saas, path: /items/frozen}}}}
      - {{id: chat, allow: {{connection: models, methods: [POST], path: /v1/chat/completions}}}}
      - {{id: tools, allow: {{connection: git, methods: [GET, POST], path: /acme/tools.git/**}}}}
      - {{id: plain, allow: {{connection: plain, methods: [GET], path: "/items/{{id}}"}}}}
  slow:
    owners: {owners}
    limits: {{rate: [{{connection: models, max: 30, per: minute, burst: 1}}]}}
    rules:
      - {{id: chat, allow: {{connection: models, methods: [POST], path: /v1/chat/completions}}}}
"""
WORDS = ("Once", " upon", " a", " time")


@dataclass
class Clients:
    """The product, the origins and what a run of a client left behind."""

    product: Product
    tls: OriginThread
    plain: OriginThread
    second_word: threading.Event
    """Until it is set, a streamed answer stops after its first word."""

    def python(self, script: str, *arguments: str, account: str = "agent", **how: Any) -> Done:
        """A Python program through `exeat run`, with nothing but what that sets."""
        return self.product.run(sys.executable, "-c", script, *arguments, account=account, **how)

    def of_run(self, done: Done, *types: str) -> list[dict[str, Any]]:
        """The records of the calls that this run of `exeat run` made."""
        run = next(word for word in done.err.split() if word.startswith("r_"))
        return [record for record in self.product.records(*types) if (record.get("agent") or {}).get("run") == run]

    def reveals_nothing(self, done: Done) -> None:
        """The program printed everything that it could see; no real secret was in it."""
        for secret in SECRETS.values():
            assert secret.decode() not in done.out + done.err


async def _answer(request: Request, peer: Peer, second_word: threading.Event) -> None:
    if request.target != "/v1/chat/completions":
        await peer.send(reply(headers="X-Origin: saas\r\n"))
        return
    asked = json.loads(request.body)
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(WORDS)}
        await peer.send(reply(json.dumps(_completion("chat.completion", message=message)).encode()))
        return
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for word in WORDS:
        await peer.send(_event(json.dumps(_completion("chat.completion.chunk", delta={"content": word}))))
        while not second_word.is_set():
            await asyncio.sleep(0.01)
    await peer.send(_event("[DONE]") + b"0\r\n\r\n")


def _completion(kind: str, **choice: object) -> dict[str, object]:
    return {
        "id": "c1", "object": kind, "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": None if "delta" in choice else "stop", **choice}],
    }  # fmt: skip


def _event(data: str) -> bytes:
    line = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(line), line)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    git = GitServer(Path(tmp_path_factory.mktemp("git")))
    second_word = threading.Event()

    async def script(request: Request, peer: Peer) -> None:
        if request.header("host") == "github.com":
            await git.answer(request, peer)
        else:
            await _answer(request, peer, second_word)

    with OriginThread(HOSTS, script) as tls, OriginThread((), script) as plain:
        policy = POLICY.format(port=tls.port, plain=plain.port, owners=OWNERS)
        with running(policy=policy, files={"ca.pem": tls.authority.pem}, secrets=SECRETS) as product:
            yield Clients(product, tls, plain, second_word)


@pytest.fixture(autouse=True)
def _wanted(request: pytest.FixtureRequest) -> None:
    """A test that wants a program which this machine lacks is skipped, and says which."""
    for marker in request.node.iter_markers("wants"):
        if shutil.which(marker.args[0]) is None:
            pytest.skip(f"wants {marker.args[0]}")
