"""From observe to enforced: the page, walked through on a running product with real traffic."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaigns.raw_agent import RawAgent, code_of
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "observe.md").read_text(encoding="utf-8")
OBSERVED, FRAGMENT, ENFORCED = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [
    found
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)
    for found in re.findall(r"^\$ exeat (.*)\n((?:(?!\$).*\n)*)", block, re.M)
]
SECRET = b"canary-8d21aa-github"
HOSTS = {"github": "api.github.com", "tracker": "tracker.example.com"}
GRAPHQL = json.dumps({"query": "query { viewer { login } }"})
ASKED = (
    "GET github /repos/acme/site/issues?labels=canary-label",
    "GET github /repos/acme/shop/issues",
    "POST github /repos/acme/site/issues/7/comments",
    "POST github /graphql",
    "GET tracker /tickets/4711",
    "GET tracker /tickets/4712",
    "DELETE github /repos/acme/old",
)


@dataclass
class World:
    product: Product
    port: int
    authority: bytes
    token: str = ""

    def write(self, name: str, text: str) -> str:
        folder = self.product.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "ca.pem").write_bytes(self.authority)
        for host in HOSTS.values():
            text = re.sub(rf"\{{host: {host}", f'{{dial: "127.0.0.1:{self.port}", ca: ca.pem, host: {host}', text)
        (folder / "policy.yaml").write_text(text)
        return str(folder)

    def call(self, asked: str) -> str | None:
        method, connection, target = asked.split(" ")
        host, body = HOSTS[connection], GRAPHQL.encode() if target == "/graphql" else b""
        agent = RawAgent(self.product.door(), self.product.state / "keys" / "ca-cert.pem", self.token)
        lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: " + host.encode(), b"Connection: close"]
        if method == "POST":
            lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
        return code_of(agent.inside(host, b"\r\n".join(lines) + b"\r\n\r\n" + body))

    def exeat(self, command: str, code: int = 0) -> str:
        done = self.product.cli(*shlex.split(command))
        assert done.code == code, done
        return done.out


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with OriginThread(tuple(HOSTS.values())) as service, running() as product:
        here = World(product, service.port, service.authority.pem.encode())
        here.write("policy", OBSERVED)
        here.exeat(COMMANDS[0][0])
        product.cli("secret", "set", "github", "--tenant", "acme", stdin=SECRET).ok()
        here.token = product.cli("token", "issue", "triage-agent", "--ttl", "1h").ok().out.strip()
        yield here


def plain(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r"c_[A-Za-z0-9_-]{22}\b", "c_0123456789abcdefghijkl", text)
    text = re.sub(r"c_[A-Za-z0-9_-]{10}(?= )", "c_0123456789", text)
    text = re.sub(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|\+00:00)", "2026-11-25T10:00:00Z", text)
    text = re.sub(r"^[0-9:]{8}(?= )", "10:00:00", text, flags=re.M)
    text = re.sub(r" +[0-9]+ms", "       9ms", text)
    return re.sub(r"sha256:[0-9a-f]{12}", "sha256:0123456789ab", text)


def test_the_page(world: World) -> None:
    _, tail, suggest, check, test, replay, enforce = COMMANDS
    assert world.product.cli("suggest", "triage-agent").code == 1  # nothing was seen yet
    assert world.product.cli("suggest", "nobody").code == 1
    for asked in ASKED:
        assert world.call(asked) is None, asked
    assert plain(world.exeat(tail[0])) == tail[1]
    assert world.exeat(suggest[0]) == suggest[1]
    text = (world.product.folder / "seen.yaml").read_text()
    assert plain(text) == FRAGMENT
    assert world.product.cli(*shlex.split(suggest[0])).code == 1  # an edited file is not written over
    assert "1 call" in world.exeat("suggest triage-agent --show-values")

    # As it stands it is a valid policy, and allows exactly what was seen and no deny rule keeps out.
    head, _, deny = OBSERVED.partition("    rules:\n")
    head = re.sub(r"    (?:stage|until): .*\n", "", head)
    drafted = head + "".join(f"    {line}\n" for line in text.splitlines()) + deny.partition("\n")[2]
    world.write("draft", drafted)
    assert "warning" not in world.exeat("check draft")
    found = world.product.cli("replay", "--policy", "draft", "--json").ok().json
    assert found["counts"] == {"same": 6, "now_allowed": 0, "now_denied": 1, "untold": 0}
    assert found["changes"][0]["now_rule"] == "never-delete"

    world.write("enforced", ENFORCED)
    assert "warning" not in world.exeat(check[0])
    assert world.exeat(test[0]).startswith("tests 5/5\n")
    assert " same 6  now allowed 0  now denied 1  could not tell 0\n" in world.exeat(replay[0])
    world.exeat(enforce[0])
    assert [world.call(asked) for asked in ASKED] == [None] * 6 + ["rule_denied"]
    assert world.call("GET tracker /users/1") == "not_allowed"


def test_what_was_erased_is_counted_and_what_was_seen_has_no_secret(world: World) -> None:
    for asked in ASKED:
        world.call(asked)
    found = world.product.cli("suggest", "triage-agent", "--json").ok()
    calls = found.json["calls"]
    kinds = [*found.json["rules"], *found.json["not_suggested"]]
    assert sum(kind["seen"]["calls"] for kind in kinds) == calls >= len(ASKED)
    for needle in (SECRET.decode(), world.token, "canary-label", "acme/site"):
        assert needle not in found.out
    assert '# github.issues.listForRepo: args.owner was: "acme" (' in world.exeat("suggest triage-agent --show-values")
    first = found.json["rules"][0]["seen"]["first"]["call"]
    world.exeat(f"inputs erase --call {first} --reason x")
    again = world.product.cli("suggest", "triage-agent", "--json").ok().json
    assert (again["calls"], again["not_read"]) == (calls - 1, {"erased": 1})
    assert "# Not read, and perhaps calls of other kinds: 1 call erased" in world.exeat("suggest triage-agent")
    world.exeat("inputs erase --account triage-agent --reason x")
    done = world.product.cli("suggest", "triage-agent")
    assert (done.code, f"nothing can be told: {calls} calls erased" in done.err) == (3, True)
    assert world.product.cli("suggest", "triage-agent", "--until", "2026-01-01", "--since", "2025-01-01").code == 1
