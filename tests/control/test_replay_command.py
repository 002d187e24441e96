"""`exeat replay` and `exeat inputs` on a running product with real traffic, and the page that says how."""

import base64
import contextlib
import json
import re
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from control.codec import to_json
from control.remote import Remote
from rules.inputs import DecisionInputs
from tests.campaigns.raw_agent import RawAgent, code_of
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "replay-before-merging.md").read_text(encoding="utf-8")
IN_FORCE, CANDIDATE = re.findall(r"^```yaml\n(exeat: 1\n.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [
    found
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)
    for found in re.findall(r"^\$ exeat (.*)\n((?:(?!\$).*\n)*)", block, re.M)
]
SECRET = b"canary-2f61d7-stripe"
FORM = b"Content-Type: application/x-www-form-urlencoded"
HOST = "api.stripe.com"


@dataclass
class World:
    """The page's product, with the page's traffic behind it."""

    product: Product
    port: int
    authority: bytes
    token: str = ""
    calls: dict[str, str] = field(default_factory=dict)
    """The ledger's ids, by what was asked."""

    def write(self, name: str, text: str) -> Path:
        folder = self.product.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "ca.pem").write_bytes(self.authority)
        dial = f'{{host: {HOST}, dial: "127.0.0.1:{self.port}", ca: ca.pem,'
        (folder / "policy.yaml").write_text(text.replace(f"{{host: {HOST},", dial))
        return folder

    def call(self, what: str, code: str | None) -> None:
        agent = RawAgent(self.product.door(), self.product.state / "keys" / "ca-cert.pem", self.token)
        method, target, *body = what.split(" ")
        sent = (body or [""])[0].encode()
        lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: " + HOST.encode(), b"Connection: close"]
        if body:
            lines += [FORM, b"Content-Length: %d" % len(sent)]
        answer = agent.inside(HOST, b"\r\n".join(lines) + b"\r\n\r\n" + sent)
        assert code_of(answer) == code, answer
        self.calls[what] = str(self.product.records("call.intent", "call.denied")[-1]["call"])

    def replay(self, *options: str, policy: str = "new") -> dict[str, object]:
        done = self.product.cli("replay", "--policy", policy, "--json", *options)
        assert done.code in (0, 1), done
        return {**done.json, "code": done.code}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with OriginThread((HOST,)) as service, running() as product:
        here = World(product, service.port, service.authority.pem.encode())
        product.cli("policy", "apply", str(here.write("policy", IN_FORCE))).ok()
        product.cli("secret", "set", "stripe", "--tenant", "acme", stdin=SECRET).ok()
        here.token = product.cli("token", "issue", "refunds-agent").ok().out.strip()
        here.write("new", CANDIDATE)
        here.call("POST /v1/refunds amount=3000&charge=ch_1", None)
        here.call("POST /v1/refunds amount=8000&charge=ch_2", None)
        here.call("POST /v1/refunds amount=9000&charge=ch_3", None)
        here.call("POST /v1/refunds amount=20000&charge=ch_4", "not_allowed")
        here.call("GET /v1/charges/ch_1?expand=customer-canary-31", None)
        here.call("GET /v1/balance", None)
        here.call("POST /v1/charges/ch_1 description=hello", None)
        yield here


def plain(text: str) -> str:
    text = re.sub(r"c_[A-Za-z0-9_-]{22}\b", "c_0123456789abcdefghijkl", text)
    return re.sub(r"#[0-9]+", "#9", re.sub(r"sha256:[0-9a-f]{12}", "sha256:0123456789ab", text))


def test_the_policy_in_force_drifts_nowhere(world: World) -> None:
    found = world.replay("--fail-on-drift", policy="policy")
    assert (found["code"], found["calls"], found["drift"]) == (0, 7, False)
    assert found["counts"] == {"same": 7, "now_allowed": 0, "now_denied": 0, "untold": 0}


def test_a_changed_rule_changes_exactly_its_calls(world: World) -> None:
    found = world.replay("--fail-on-drift", "--show-targets")
    assert found["code"] == 1
    denied, untold = found["changes"]
    assert (denied["change"], denied["was"], denied["was_rule"], denied["now"]) == (
        "now_denied", "allow", "refunds", "not_allowed",
    )  # fmt: skip
    wanted = [world.calls[f"POST /v1/refunds amount={amount}"] for amount in ("8000&charge=ch_2", "9000&charge=ch_3")]
    assert [example["call"] for example in denied["examples"]] == wanted
    assert denied["examples"][0]["target"] == f"POST https://{HOST}:443/v1/refunds"
    assert [example["call"] for example in untold["examples"]] == [
        world.calls["POST /v1/charges/ch_1 description=hello"]
    ]
    assert world.replay()["code"] == 0  # only where drift is asked to fail
    wider = world.write("wider", IN_FORCE.replace("10000", "20000"))
    found = world.replay(policy=str(wider))
    assert found["counts"] == {"same": 6, "now_allowed": 1, "now_denied": 0, "untold": 0}
    assert "/v1/" not in json.dumps(found)
    gone = world.write("gone", IN_FORCE.replace("tenant: acme", "tenant: globex"))
    assert world.replay(policy=str(gone))["counts"]["now_denied"] == 6


def test_the_calls_can_be_chosen(world: World) -> None:
    assert world.replay("--account", "refunds-agent")["calls"] == 7
    assert world.replay("--account", "nobody")["calls"] == 0
    assert world.replay("--tenant", "globex")["calls"] == 0
    assert world.replay("--until", "2026-01-01T00:00:00Z", "--since", "2025-01-01")["calls"] == 0
    assert world.product.cli("replay", "--policy", "new", "--since", "soon").code == 2
    assert world.product.cli("replay", "--policy", "nowhere").code == 3
    assert world.product.cli("replay", "--policy", "new", "--state", "nowhere").code == 3


def test_what_is_shown_is_what_the_ledger_commits_to_and_has_no_secret(world: World) -> None:
    call = world.calls["GET /v1/charges/ch_1?expand=customer-canary-31"]
    shown = world.product.cli("inputs", "show", call, "--json").ok().json
    assert shown["fits"] is True
    inputs = DecisionInputs.from_bytes(shown["call"]["inputs"].encode())
    assert (inputs.path, inputs.query) == ("/v1/charges/ch_1", "expand=customer-canary-31")
    assert "the ledger commits to it, #" in world.product.cli("inputs", "show", call).ok().out
    assert world.product.cli("inputs", "show", "c_unknown").code == 1
    needles = [SECRET, world.token.encode(), base64.b64encode(b"agent:" + world.token.encode())]
    for call in world.calls.values():
        text = json.dumps(to_json(Remote(world.product.state).inputs.show(call))).encode()
        assert not [needle for needle in needles if needle in text]
    for path in (world.product.state / "inputs.sqlite", world.product.state / "inputs.sqlite-wal"):
        assert not [n for n in (*needles, b"canary-31", b"ch_1") if path.exists() and n in path.read_bytes()]


def test_the_page(world: World) -> None:
    replayed, changed, gate, erase = COMMANDS
    for command, shown in (replayed, changed):
        assert plain(world.product.cli(*shlex.split(command)).ok().out) == shown
    done = world.product.cli(*shlex.split(gate[0]))
    assert (done.code, done.json["drift"]) == (1, True)
    # Without a process the state itself is read.
    assert world.product.stop() == 0
    offline = world.product.cli(*shlex.split(changed[0])).ok()
    assert plain(offline.out) == changed[1]
    assert world.product.cli("inputs", "show", next(iter(world.calls.values()))).code == 0
    world.product.start()
    one = world.calls["GET /v1/balance"]
    assert world.product.cli("inputs", "erase", "--reason", "x").code == 2
    world.product.cli("inputs", "erase", "--call", one, "--reason", "request 2026-16").ok()
    assert world.product.cli("inputs", "show", one).code == 1
    found = world.replay(policy="policy")
    assert found["counts"] == {"same": 6, "now_allowed": 0, "now_denied": 0, "untold": 1}
    assert found["changes"][0]["why"] == "erased"
    assert plain(world.product.cli(*shlex.split(erase[0])).ok().out) == erase[1].replace("7 calls", "6 calls")
    acts = [record for record in world.product.records("operator.act") if record["act"] == "inputs.erase"]
    assert [record["detail"] for record in acts] == [
        {"call": one, "reason": "request 2026-16", "calls": "1"},
        {"account": "refunds-agent", "reason": "request 2026-17", "calls": "6"},
    ]
    assert acts[1]["tenant"] == "acme"
    assert acts[0]["actor"]["kind"] == "uid"
    assert world.replay("--fail-on-drift", policy="policy")["counts"]["untold"] == 7
    assert world.product.cli(*shlex.split(erase[0])).code == 1  # nothing is left
    # What was lost is not left out: the ledger knows of the call.
    assert world.product.stop() == 0
    with contextlib.closing(sqlite3.connect(world.product.state / "inputs.sqlite")) as rows, rows:
        assert rows.execute("DELETE FROM kept WHERE call = ?", (one,)).rowcount == 1
    found = world.replay("--fail-on-drift", policy="policy")
    assert found["code"] == 1
    why = Counter[str]()
    for change in found["changes"]:
        why[change["why"]] += change["calls"]
    assert why == {"erased": 6, "not kept": 1}
