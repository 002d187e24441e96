"""Planted secrets and credentials: used, refused in every way, and then looked for wherever anybody can look."""

import base64
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.campaigns.raw_agent import RawAgent, code_of
from tests.worlds.origin import Peer, Request, reply
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

SECRET = b"canary-7b1f40c9ad52-secret"
JWT = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
HEAD = """\
exeat: 1
tenant: acme
credentials: {{ttl: 5m, max_ttl: 1h}}
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab}}
  basic: {{host: basic.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab, present: {{basic: bot}}}}
  header: {{host: header.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab, present: {{header: X-Api-Key}}}}
  priced: {{host: priced.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab, price: 1 USD}}
  other: {{host: other.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: lab}}
  dead: {{host: dead.test, dial: "127.0.0.1:{dead}", secret: lab}}
  unset: {{host: unset.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: never/set}}
  local: {{host: localhost, secret: lab}}
accounts:
"""
ACCOUNTS = {
    "agent": "{}",
    "rated": "{rate: [{connection: saas, max: 1, per: day}]}",
    "spender": "{spend: [{meter: price, max: 1 USD, per: day}]}",
    "single": "{concurrency: 1}",
    "gone": "{}",
}


def policy(port: int, dead: int, *without: str) -> str:
    head = HEAD.format(port=port, dead=dead)
    accounts = [
        f"  {name}:\n    owners: {OWNERS}\n    limits: {limits}\n    rules:\n"
        f"      - {{id: all, allow: {{connection: {'priced' if name == 'spender' else 'saas'}, path: /things/**}}}}\n"
        + "".join(
            f"      - {{id: {c}, allow: {{connection: {c}, path: /things/**}}}}\n"
            for c in ("basic", "header", "other", "dead", "unset", "local")
            if name == "agent"
        )
        + ("      - {id: frozen, deny: {connection: saas, path: /things/frozen/**}}\n" if name == "agent" else "")
        for name, limits in ACCOUNTS.items()
        if name not in without
    ]
    return head + "".join(accounts)


@dataclass
class Planted:
    """A product that has used a secret and refused in every way it can be made to; everything that anybody saw."""

    product: Product
    service: OriginThread
    tokens: list[str]
    seen: dict[str, bytes] = field(default_factory=dict)
    """What agents and operators were shown, by where."""

    def agent(self, account: str = "agent", *options: str) -> RawAgent:
        token = self.product.cli("token", "issue", account, *options).ok().out.strip()
        self.tokens.append(token)
        return self.at(token)

    def at(self, token: str | None) -> RawAgent:
        return RawAgent(self.product.door(), self.product.state / "keys" / "ca-cert.pem", token)

    def provoke(self, code: str, answer: bytes, name: str = "") -> None:
        """The answer is the refusal that was wanted; kept for the search."""
        assert code_of(answer) == code, answer
        self.seen[f"{code} {name}"] = answer

    def needles(self) -> list[bytes]:
        """The secret and the credentials, raw and as headers carry them."""
        plain = [SECRET, *(token.encode() for token in self.tokens)]
        carried = [base64.b64encode(b"bot:" + SECRET), *(base64.b64encode(b"agent:" + t.encode()) for t in self.tokens)]
        return [*plain, *carried, SECRET.hex().encode(), base64.b64encode(SECRET)]

    def search(self, where: str, data: bytes) -> None:
        for needle in self.needles():
            assert needle not in data, f"{where}: {needle[:12]!r}..."
        assert JWT.search(data) is None, f"{where}: something that looks like a credential"


async def leaking(request: Request, peer: Peer) -> None:
    """Answers in ways that put the secret where an error message would quote it."""
    secret = next(value for name, value in request.headers if name.lower() in ("authorization", "x-api-key"))
    if "/bad-status" in request.target:
        await peer.send(f"HTTP/1.1 2x0 {secret}\r\n\r\n".encode())
    elif "/bad-header" in request.target:
        await peer.send(f"HTTP/1.1 200 OK\r\n{secret} : x\r\nContent-Length: 0\r\n\r\n".encode())
    elif "/bad-chunk" in request.target:
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + f"zz{secret}\r\n".encode())
    elif "/stream" in request.target:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"9\r\ndata: x\n\n\r\n")
        await peer.connection.closed.wait()
    else:
        await peer.send(reply())


@pytest.fixture(scope="module")
def planted() -> Iterator[Planted]:
    with (
        socket.socket() as dead,
        OriginThread(("saas.test", "basic.test", "header.test", "priced.test"), leaking) as service,
    ):
        dead.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and connecting is refused
        text = policy(service.port, dead.getsockname()[1])
        files = {"ca.pem": service.authority.pem}
        with running(policy=text, files=files, secrets={"lab": SECRET}) as product:
            planted = Planted(product, service, [])
            use(planted)
            refuse_requests(planted)
            refuse_calls(planted)
            gone = planted.agent("gone")
            product.apply(policy(service.port, dead.getsockname()[1], "gone"), files).ok()
            planted.provoke("account_unknown", gone.get("saas.test", "/things/1"))
            refuse_credentials(planted)
            yield planted


def use(planted: Planted) -> None:
    """The secret leaves, in each of its presentations; the credential is put where it does not belong as well."""
    agent = planted.agent()
    for host in ("saas.test", "basic.test", "header.test"):
        answer = agent.get(host, f"/things/{host}")
        assert b'{"ok":true}' in answer
        planted.seen[f"200 {host}"] = answer
    raws = b"".join(request.raw for request in planted.service.origin.requests)
    for form in (b"Bearer " + SECRET, b"Basic " + base64.b64encode(b"bot:" + SECRET), b": " + SECRET):
        assert form in raws, "the secret was not used"
    token = agent.token
    assert token is not None
    assert b" 200 OK" in agent.get("saas.test", f"/things/{token}?t={token}", b"X-Mine: " + token.encode())


def refuse_requests(planted: Planted) -> None:
    """What the agent sent cannot be read, or not in one way; each with its credential in it."""
    agent = planted.agent()
    mine = (agent.token or "").encode()
    host = b"Host: saas.test\r\n"
    start, end = b"GET /things/1 HTTP/1.1\r\n" + host, b"\r\n\r\n"
    post = b"POST /things/1 HTTP/1.1\r\n" + host + b"Content-Length: "
    for code, raw in (
        ("malformed_request", b"GET /" + mine + b" x HTTP/1.1\r\n" + host + end),
        ("malformed_request", start + mine + b" : 1" + end),
        ("ambiguous_framing", post + b"1\r\nTransfer-Encoding: chunked\r\nX: " + mine + end + b"0" + end),
        ("ambiguous_target", b"GET /things/../" + mine + b" HTTP/1.1\r\n" + host + end),
        ("destination_mismatch", b"GET /things/1 HTTP/1.1\r\nHost: basic.test\r\nX: " + mine + end),
        ("method_refused", b"TRACE /things/" + mine + b" HTTP/1.1\r\n" + host + end),
        ("upgrade_refused", start + b"Connection: upgrade\r\nUpgrade: websocket\r\nX: " + mine + end),
        ("headers_too_large", start + b"X: " + mine * 200 + end),
        ("body_too_large", post + b"2000000" + end + mine * 5),
    ):
        planted.provoke(code, agent.inside("saas.test", raw), str(len(planted.seen)))
    credential = agent.authorization()
    absolute = b"GET https://saas.test/things/" + mine + b" HTTP/1.1\r\n" + host + credential
    planted.provoke("protocol_refused", agent.at_the_door(absolute + b"\r\n"))
    where = mine + b":443"
    answer = agent.at_the_door(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (where, where, credential))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    planted.seen["CONNECT to a credential"] = answer
    connect = b"CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\n" + credential + b"\r\n"
    for number, after in enumerate((b"SSH-2.0-" + mine + b"\r\n", b"\x16\x03\x01" + mine * 200)):
        planted.seen[f"no TLS {number}"] = agent.at_the_door(connect + after)


def refuse_calls(planted: Planted) -> None:
    """The call is refused by a rule, a limit, or what lies behind."""
    agent = planted.agent()
    mine = agent.token or ""
    for code, host, target in (
        ("not_allowed", "saas.test", f"/elsewhere/{mine}?q={mine}"),
        ("rule_denied", "saas.test", f"/things/frozen/{mine}"),
        ("destination_unknown", "unknown.test", f"/{mine}"),
        ("destination_forbidden", "localhost", "/things/1"),
        ("secret_unavailable", "unset.test", "/things/1"),
        ("upstream_unreachable", "dead.test", "/things/1"),
        ("upstream_untrusted", "other.test", "/things/1"),
        ("upstream_protocol", "saas.test", "/things/bad-status"),
        ("upstream_protocol", "saas.test", "/things/bad-header"),
    ):
        planted.provoke(code, agent.get(host, target, b"X-Mine: " + mine.encode()), target[:20])
    # The head was relayed before the body turned out to be broken: nothing is answered, the connection is cut.
    assert b"0\r\n\r\n" not in agent.get("saas.test", "/things/bad-chunk")
    rated, spender, single = (planted.agent(account) for account in ("rated", "spender", "single"))
    rated.get("saas.test", "/things/1")
    planted.provoke("rate_limited", rated.get("saas.test", "/things/1"))
    spender.get("priced.test", "/things/1")
    planted.provoke("spend_cap_reached", spender.get("priced.test", "/things/1"))
    with single.tunnel("saas.test") as stream:
        stream.sendall(b"GET /things/stream HTTP/1.1\r\nHost: saas.test\r\n\r\n")
        stream.recv(65536)
        planted.provoke("concurrency_reached", single.get("saas.test", "/things/1"))
        planted.product.cli("revoke", "account", "single", "--reason", "a drill").ok()
        planted.provoke("credential_revoked", single.get("saas.test", "/things/1"))


def refuse_credentials(planted: Planted) -> None:
    """No credential, not one of ours, a spoilt one, an old one."""
    agent = planted.agent()
    spoilt = planted.at(f"{(agent.token or '')[:-6]}AAAAAA")
    plain = b"GET http://saas.test/things/1 HTTP/1.1\r\nHost: saas.test\r\nConnection: close\r\n"
    planted.provoke("credential_missing", planted.at(None).at_the_door(plain + b"\r\n"))
    planted.provoke("credential_invalid", spoilt.at_the_door(plain + spoilt.authorization() + b"\r\n"))
    old = planted.agent("agent", "--ttl", "1s")
    time.sleep(1.2)
    planted.provoke("credential_expired", old.get("saas.test", "/things/1"))
    assert planted.product.cli("token", "renew", stdin=SECRET).code != 0


def test_nothing_that_an_agent_reads_holds_a_secret_or_a_credential(planted: Planted) -> None:
    assert len(planted.seen) >= 27
    with pytest.raises(AssertionError, match="the origin"):  # the search finds what is there to be found
        planted.search("the origin", b"".join(request.raw for request in planted.service.origin.requests))
    for where, data in planted.seen.items():
        planted.search(where, data)


def test_nothing_that_an_operator_reads_holds_one(planted: Planted) -> None:
    product = planted.product
    calls = [record["call"] for record in product.records("call.intent", "call.denied", "call.rejected")]
    assert len(calls) > 25
    shown = {
        arguments: product.cli(*arguments)
        for arguments in (
            ("status", "--json"), ("status",), ("secret", "list", "--json"), ("doctor", "--json"),
            ("calls", "tail", "-n", "1000", "--json"), ("calls", "tail", "-n", "1000"),
            ("calls", "show", calls[0], "--json"), ("calls", "show", calls[-1], "--json"),
            ("ledger", "show", str(product.state / "ledger"), "--json"),
            ("revoke", "all", "--reason", "x", "--dry-run", "--json"),
        )
    }  # fmt: skip
    for arguments, done in shown.items():
        planted.search(f"exeat {' '.join(arguments)}", (done.out + done.err).encode())
        assert done.out, arguments
    inspected = product.cli("token", "inspect", "--json", stdin=planted.tokens[0].encode())
    planted.search("exeat token inspect", (inspected.out + inspected.err).encode())
    for page in ("metrics", "healthz", "readyz"):
        with urllib.request.urlopen(f"{product.health()}/{page}", timeout=10) as answer:
            planted.search(page, answer.read())


def test_no_file_of_the_state_and_no_log_holds_one(planted: Planted) -> None:
    """The database as well: it holds the secret, sealed."""
    files = [path for path in planted.product.folder.rglob("*") if path.is_file()]
    assert {"exeat.sqlite", "up.log", "trust.policy"} <= {path.name for path in files}
    said = planted.product.log.read_text()
    assert "upstream" in said
    assert "Traceback" not in said, said
    for path in files:
        planted.search(str(path), path.read_bytes())
    for record in planted.product.records():
        planted.search(f"record {record['seq']}", repr(record).encode())


def test_no_process_shows_one_and_the_agent_holds_its_relays_password_only(planted: Planted) -> None:
    product = planted.product
    script = "import os, time; print(os.getpid(), os.environ['HTTPS_PROXY'], flush=True); time.sleep(60)"
    run = product.spawn(sys.executable, "-c", script, account="agent")
    try:
        assert run.stdout is not None
        pid, proxy = run.stdout.readline().decode().split()
        password = re.fullmatch(r"http://agent:([A-Za-z0-9_-]{40,})@127\.0\.0\.1:\d+", proxy)
        assert password is not None
        assert product.process is not None
        ours = {str(product.process.pid), str(run.pid), pid}
        ours |= {task.name for one in tuple(ours) for task in Path("/proc", one, "task").iterdir()}
        for one in ours:
            for name in ("cmdline", "environ"):
                data = Path("/proc", one, name).read_bytes()
                planted.search(f"/proc/{one}/{name}", data)
                if one != pid:
                    assert password[1].encode() not in data
        agent = Path("/proc", pid, "environ").read_bytes()
        assert password[1].encode() in agent
        relay = planted.at(password[1])
        planted.provoke("credential_invalid", relay.at_the_door(
            b"GET http://saas.test/things/1 HTTP/1.1\r\nHost: saas.test\r\n" + relay.authorization() + b"\r\n"
        ), "the relay's password at the door")  # fmt: skip
        for path in product.folder.rglob("*"):
            assert not path.is_file() or password[1].encode() not in path.read_bytes()
    finally:
        run.terminate()
        run.communicate(timeout=20)
