"""The whole product as an operator uses it: real processes, real sockets, the installed command line."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worlds.authority import Authority
from tests.worlds.origin import Origin, Peer, Request
from tests.worlds.product import Product, running

SECRET = b"upstream-canary-5b1e"
OWNERS = "{accountable: a@x.example, system: s@x.example, risk: r@x.example}"
POLICY = """\
exeat: 1
tenant: acme
credentials: {{ttl: 1m, max_ttl: 5m}}
connections:
  lab: {{host: saas.test, dial: "127.0.0.1:{port}", ca: lab-ca.pem, secret: lab}}
accounts:
  agent:
    owners: {owners}
    stage: autonomous
    rules:
      - {{id: read, allow: {{connection: lab, methods: [GET], path: "/v1/items/{{id}}"}}}}
      - {{id: stream, allow: {{connection: lab, methods: [GET], path: /v1/stream}}}}
"""
FETCH = """
import sys, urllib.request, urllib.error
try:
    with urllib.request.urlopen(sys.argv[1], timeout=20) as answer: print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error: print(error.code, error.headers.get("Exeat-Code"), error.read().decode())
"""
STREAM = """
import sys, time, urllib.request
with urllib.request.urlopen("https://saas.test/v1/stream", timeout=30) as answer:
    while data := answer.read1(100):
        print(len(data), flush=True)
print("whole", flush=True)
"""


class Service:
    """The scripted origin on a thread of its own, so that the product's commands can block the test."""

    def __init__(self) -> None:
        self.authority = Authority()
        self.origin = Origin(self.authority.issue("saas.test"), script=self.script)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    async def script(self, request: Request, peer: Peer) -> None:
        if request.target == "/v1/stream":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(600):
                await peer.send(b"9\r\ndata: x\n\n\r\n")
                await asyncio.sleep(0.05)
            await peer.send(b"0\r\n\r\n")
            return
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"ok":true}'
        )

    def __enter__(self) -> "Service":
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.origin.__aenter__(), self.loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.origin.__aexit__(None, None, None), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    def policy(self) -> str:
        return POLICY.format(port=self.origin.port, owners=OWNERS)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def product(service: Service) -> Iterator[Product]:
    files = {"lab-ca.pem": service.authority.pem}
    with running(policy=service.policy(), files=files, secrets={"lab": SECRET}) as product:
        service.origin.connections.clear()
        yield product


def fetch(product: Product, path: str) -> str:
    return product.run(sys.executable, "-c", FETCH, f"https://saas.test{path}").ok().out.strip()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_until(happened: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_up_without_anything_says_how_to_begin_and_denies_everything() -> None:
    with running() as product:
        # It serves before it says so.
        wait_until(lambda: "  5." in product.log.read_text())
        text = product.log.read_text()
        numbers = [line.strip()[:2] for line in text.splitlines() if line.startswith("  ")]
        assert numbers == ["1.", "2.", "3.", "4.", "5."]
        assert product.state.stat().st_mode & 0o777 == 0o700
        status, ready = get(f"{product.health()}/readyz")
        assert (status, json.loads(ready)["policy"]) == (200, "none")
        refused = product.run("true")
        assert refused.code == 1
        assert "no policy is active" in refused.err
        (started,) = [record for record in product.records("operator.act") if record["act"] == "up"]
        assert started["actor"]["id"] == str(os.geteuid())
        assert started["detail"]["listen"] == product.status()["listening"][0]


def test_an_allowed_and_a_denied_call_and_their_lines(product: Product, service: Service) -> None:
    assert fetch(product, "/v1/items/7") == '200 {"ok":true}'
    (seen,) = service.origin.requests
    assert seen.header("authorization") == f"Bearer {SECRET.decode()}"
    denied = fetch(product, "/v1/other")
    assert denied.startswith("403 not_allowed ")
    assert len(service.origin.requests) == 1
    lines = [json.loads(line) for line in product.cli("calls", "tail", "--json").ok().out.splitlines()]
    assert [(line["verdict"], line["http"], line["codes"]) for line in lines] == [
        ("allow", 200, []),
        ("deny", 403, ["not_allowed"]),
    ]
    shown = product.cli("calls", "show", lines[0]["call"][:10]).ok().out
    assert "call.intent" in shown
    assert "call.outcome" in shown
    assert "call.denied" not in shown


def test_the_program_gets_no_credential_and_its_exit_code_is_passed_on(product: Product) -> None:
    script = (
        "import os,sys; e=dict(os.environ); print('\\n'.join(f'{k}={v}' for k,v in e.items()));"
        "print(open('/proc/self/cmdline').read()); print(open(f'/proc/{os.getppid()}/cmdline').read());"
        "print(open(f'/proc/{os.getppid()}/environ').read()); sys.exit(7)"
    )
    done = product.run(sys.executable, "-c", script)
    assert done.code == 7
    assert "eyJ" not in done.out, "a token is in the agent's reach"
    assert SECRET.decode() not in done.out
    assert "HTTPS_PROXY=http://agent:" in done.out
    assert "EXEAT_RUN=r_" in done.out
    assert product.run("sh", "-c", "kill -TERM $$").code == 128 + signal.SIGTERM
    assert product.run("/no/such/program").code == 127


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program as another user")
@pytest.mark.skipif(shutil.which("curl") is None, reason="wants curl")
def test_a_program_of_another_user_gets_through_but_cannot_command_the_gate(product: Product) -> None:
    product.folder.chmod(0o755)
    socket_path = product.state / "operators.sock"
    script = (
        'id -un; cat "$SSL_CERT_FILE" | grep -c BEGIN; '
        'curl -sS -o /dev/null -w "%{http_code}\\n" https://saas.test/v1/items/1; '
        f"curl -sS --noproxy '*' --unix-socket {socket_path} http://x/status 2>&1 | head -1; ls {product.state}; true"
    )
    done = product.run("sh", "-c", script, options=("--user", "nobody"))
    lines = done.out.splitlines()
    assert lines[0] == "nobody"
    assert int(lines[1]) > 100
    assert lines[2] == "200"
    assert "status" not in done.out
    assert "exeat.sqlite" not in done.out
    assert product.run("true", options=("--user", "no-such-user")).code == 2


def test_signals_reach_the_program(product: Product) -> None:
    script = (
        "import os,signal,sys,time\n"
        "def stop(*_): os.write(1, b'got it\\n'); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop); print('ready', flush=True); time.sleep(30)"
    )
    run = product.spawn(sys.executable, "-c", script)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=20)
    assert (out, run.returncode) == (b"got it\n", 3), err.decode()


def test_a_revocation_cuts_refuses_survives_a_restart_and_restoring_revives_nothing(
    product: Product, service: Service
) -> None:
    token = product.cli("token", "issue").ok().out.encode()
    run = product.spawn(sys.executable, "-c", STREAM)
    assert run.stdout is not None
    run.stdout.readline()
    dry = product.cli("revoke", "account", "agent", "--reason", "INC-1", "--dry-run", "--json").ok().json
    assert (dry["runs"], dry["credentials"], len(dry["in_flight"])) == (2, 2, 1)
    done = product.cli("revoke", "account", "agent", "--reason", "INC-1", "--json").ok().json
    assert (done["epoch"], done["cut"], done["nodes_answered"]) == (1, 1, 1)
    out, _ = run.communicate(timeout=20)
    assert b"whole" not in out
    assert run.returncode != 0
    effects = product.records("revocation.effect")
    assert [(e["epoch"], e["cut"], e["inflight"]) for e in effects] == [(1, 1, [done["in_flight"][0]["call"]])]

    for _ in range(2):  # before and after a restart
        assert product.cli("token", "inspect", stdin=token).code == 1
        assert product.cli("token", "renew", stdin=token).code == 1
        refused = product.run("true")
        assert refused.code == 1
        assert "INC-1" in refused.err
        assert product.stop() == 0
        product.start()
    product.cli("restore", "account", "agent", "--reason", "over").ok()
    assert product.cli("token", "inspect", "--json", stdin=token).json["code"] == "credential_revoked"
    assert fetch(product, "/v1/items/8") == '200 {"ok":true}'
    (outcome,) = [o for o in product.records("call.outcome") if o["call"] == done["in_flight"][0]["call"]]
    assert outcome["result"]["status"] in ("aborted", "indeterminate")


def test_each_kind_of_target_is_refused_and_only_that(product: Product) -> None:
    kept = product.cli("token", "issue").ok().out.encode()
    other = product.cli("token", "issue", "--json").ok().json
    product.cli("revoke", "credential", other["credential"], "--reason", "lost").ok()
    assert product.cli("token", "inspect", stdin=other["token"].encode()).code == 1
    assert product.cli("token", "inspect", stdin=kept).code == 0
    for arguments in (("tenant", "acme"), ("all",)):
        product.cli("revoke", *arguments, "--reason", "x").ok()
        assert product.cli("token", "inspect", stdin=kept).code == 1
        product.cli("restore", *arguments, "--reason", "x").ok()
        kept = product.cli("token", "issue").ok().out.encode()
        assert product.cli("token", "inspect", stdin=kept).code == 0


def test_an_agent_with_a_connection_pool_outlives_its_credential_several_times(product: Product) -> None:
    script = (
        "import httpx2, time\n"
        "with httpx2.Client(timeout=20) as client:\n"
        "    for n in range(12):\n"
        "        assert client.get(f'https://saas.test/v1/items/{n}').status_code == 200; time.sleep(0.8)\n"
    )
    done = product.run(sys.executable, "-c", script, options=("--ttl", "3s"))
    assert done.code == 0, done.err
    agents = [record["agent"] for record in product.records("call.intent")]
    assert len(agents) == 12
    assert len({agent["credential"] for agent in agents}) >= 4, "it did not outlive three lifetimes"
    assert len({agent["run"] for agent in agents}) == 1


def test_a_drain_lets_a_call_end_says_it_is_not_ready_and_exits_cleanly(product: Product, service: Service) -> None:
    run = product.spawn(sys.executable, "-c", STREAM)
    assert run.stdout is not None
    run.stdout.readline()
    health = product.health()
    assert product.process is not None
    product.process.send_signal(signal.SIGTERM)
    wait_until(lambda: get(f"{health}/readyz")[0] == 503)
    assert json.loads(get(f"{health}/readyz")[1])["why_not"] == "draining"
    assert product.status()["draining"] is True
    done = product.cli("revoke", "all", "--reason", "while draining", "--json").ok().json
    assert done["cut"] == 1
    run.communicate(timeout=20)
    assert product.process.wait(30) == 0
    assert not (product.state / "operators.sock").exists()
    verified = product.cli(
        "ledger", "verify", str(product.state / "ledger"), "--trust", str(product.state / "trust.policy")
    )
    assert verified.code == 0, verified.out
    product.process = None


def test_a_second_signal_cuts_what_a_drain_waits_for_and_records_it(product: Product) -> None:
    run = product.spawn(sys.executable, "-c", STREAM)
    assert run.stdout is not None
    run.stdout.readline()
    health = product.health()
    assert product.process is not None
    product.process.send_signal(signal.SIGHUP)
    wait_until(lambda: get(f"{health}/readyz")[0] == 503)
    assert product.process.poll() is None
    assert product.stop(signal.SIGINT, seconds=15) == 0
    assert "1 were cut" in product.log.read_text()
    out, _ = run.communicate(timeout=20)
    assert b"whole" not in out
    (outcome,) = product.records("call.outcome")
    assert outcome["result"]["status"] in ("aborted", "indeterminate")
    trust = str(product.state / "trust.policy")
    assert product.cli("ledger", "verify", str(product.state / "ledger"), "--trust", trust).code == 0


def test_a_killed_process_leaves_a_state_that_commands_and_the_next_start_can_use(product: Product) -> None:
    product.cli("revoke", "account", "agent", "--reason", "before").ok()
    product.stop(signal.SIGKILL)
    assert (product.state / "operators.sock").exists()
    assert product.cli("status", "--json").ok().json["epoch"] == 1
    product.cli("restore", "account", "agent", "--reason", "after").ok()
    product.start()
    assert fetch(product, "/v1/items/1") == '200 {"ok":true}'
    assert product.stop() == 0
    trust = str(product.state / "trust.policy")
    verified = product.cli("ledger", "verify", str(product.state / "ledger"), "--trust", trust)
    assert verified.code == 0, verified.out


def test_a_run_lives_through_a_restart_and_renews_its_credential_afterwards(product: Product) -> None:
    host, port = product.door()
    product.listen = f"{host}:{port}"
    script = (
        "import sys, time, urllib.request\n"
        "while True:\n"
        "    try: urllib.request.urlopen('https://saas.test/v1/items/1', timeout=20).read(); print('ok', flush=True)\n"
        "    except OSError as error: print(error, flush=True)\n"
        "    time.sleep(0.2)\n"
    )
    run = product.spawn(sys.executable, "-c", script, options=("--ttl", "4s"))
    assert run.stdout is not None
    assert run.stdout.readline() == b"ok\n"
    assert product.stop() == 0
    assert any(line != b"ok\n" for line in iter(run.stdout.readline, b"")), "it did not notice"
    product.start()
    first = {record["agent"]["credential"] for record in product.records("call.intent")}
    wait_until(lambda: len({r["agent"]["credential"] for r in product.records("call.intent")} - first) >= 2)
    run.terminate()
    _, err = run.communicate(timeout=20)
    assert "renewed no more" not in err.decode()


def test_commands_do_the_same_to_a_state_nobody_holds(product: Product) -> None:
    assert product.stop() == 0
    product.cli("secret", "set", "lab", stdin=b"new-value\n").ok()
    assert product.cli("secret", "list", "--json").ok().json["secrets"][0]["version"] == 2
    done = product.cli("revoke", "account", "agent", "--reason", "offline", "--json").ok().json
    assert (done["epoch"], done["cut"]) == (1, 0)
    assert product.cli("status", "--json").ok().json["running"] is False
    assert product.cli("token", "issue").code == 1
    assert product.run("true").code == 3
    product.start()
    assert product.status()["epoch"] == 1


def test_exit_codes_and_json_of_what_goes_wrong(product: Product, tmp_path: Path) -> None:
    assert product.cli("nonsense").code == 2
    assert product.cli("revoke", "account", "agent").code == 2
    assert product.cli("token", "issue", "nobody").code == 2
    assert product.cli("token", "issue", "--ttl", "1h").code == 1
    assert product.cli("calls", "show", "c_nothing").code == 1
    assert product.cli("status", "--state", str(tmp_path / "none")).code == 3
    assert product.cli("ledger", "verify", "/nowhere", "--trust", "/nowhere").code == 3
    error = product.cli("token", "issue", "nobody", "--json")
    assert (error.code, set(error.json["error"])) == (2, {"message", "cure"})
    bad = product.apply("exeat: 1\ntenat: acme\n")
    assert bad.code == 1
    assert bad.json["errors"][0]["line"] == 1
    assert product.status()["policy"] is not None, "the last good policy is gone"


def test_no_secret_on_the_way_in_shows_up_anywhere(product: Product) -> None:
    canary = "canary-91c7"
    assert product.cli("secret", "set", "lab", stdin=f"{canary}\n".encode()).code == 0
    assert product.cli("secret", "set", "lab", stdin=f"{canary}\r\nX: y".encode()).code == 1
    assert product.cli("secret", "set", "lab", stdin=b"").code == 2
    listed = product.cli("secret", "list", "--json").ok()
    assert product.stop() == 0
    files = [path for path in product.folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert canary.encode() not in path.read_bytes(), path
    assert canary not in listed.out


def test_env_is_a_live_credential_with_the_whole_matrix(product: Product) -> None:
    shown = product.cli("env", "--ttl", "30s").ok()
    assert "do not log it" in shown.err
    assert shown.out.splitlines()[0] == "unset EXEAT_STATE"
    settings = product.run_env(ttl="30s")
    done = subprocess.run(
        [sys.executable, "-c", FETCH, "https://saas.test/v1/items/1"],
        env={"PATH": os.environ["PATH"], **settings}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == '200 {"ok":true}'


def test_the_doctor_is_content_inside_and_outside_of_a_run_and_finds_what_is_wrong(product: Product) -> None:
    outside = product.cli("doctor", "--json")
    assert outside.code == 0, outside.out
    inside = product.run(sys.executable, "-m", "control.cli", "doctor", "--json")
    assert inside.code == 0, inside.out
    gate = [finding for finding in inside.json["findings"] if finding["subject"] == "gate"]
    assert gate[0]["verdict"] == "good"
    (product.state / "keys" / "kek.key").chmod(0o644)
    found = product.cli("doctor", "--json", env={"SSLKEYLOGFILE": "/tmp/x"})
    assert found.code == 1
    bad = [finding for finding in found.json["findings"] if finding["verdict"] == "bad"]
    assert {finding["subject"] for finding in bad} == {"state", "TLS keys"}
    assert all(finding["cure"] for finding in bad)
    without = product.run("sh", "-c", f"NO_PROXY='*' exec {sys.executable} -m control.cli doctor --json")
    assert without.code == 1


def test_health_and_metrics_say_what_happened(product: Product) -> None:
    fetch(product, "/v1/items/1")
    fetch(product, "/nope")
    assert get(f"{product.health()}/healthz") == (200, "ok\n")
    status, metrics = get(f"{product.health()}/metrics")
    assert status == 200
    for line in (
        'exeat_decisions_total{code="allow"} 1',
        'exeat_decisions_total{code="not_allowed"} 1',
        'exeat_step_seconds_count{step="6_commit"} 1',
        "exeat_ledger_halted 0",
    ):
        assert line in metrics.splitlines()
    assert "exeat_loop_lag_seconds_count" in metrics
    assert "exeat_ledger_lag_seconds" in metrics
    assert "saas.test" not in metrics


def test_an_address_in_use_is_said_and_leaves_the_state_free(product: Product) -> None:
    taken = product.status()["listening"][0]
    other = Product(product.folder / "other")
    other.folder.mkdir()
    for options in (("--listen", taken, "--health", "127.0.0.1:0"), ("--listen", "127.0.0.1:0", "--health", taken)):
        done = other.cli("up", *options)
        assert done.code == 3
        assert "in use" in done.err
    assert other.start().stop(signal.SIGINT) == 0


def test_a_state_folder_too_deep_for_a_socket_is_refused_before_it_is_made(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / "state"
    done = Product(tmp_path).cli("up", "--state", str(deep))
    assert done.code == 3
    assert "shorter --state" in done.err
    assert not deep.exists()


def test_only_one_process_serves_a_state(product: Product) -> None:
    second = product.cli("up", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0")
    assert second.code == 3
    assert "held by process" in second.err


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        (("--listen", "0.0.0.0:0"), {}, "--unsafe-plaintext-listener"),
        (("--health", "0.0.0.0:0"), {}, "--unsafe-plaintext-listener"),
        ((), {"SSLKEYLOGFILE": "/tmp/x"}, "unset SSLKEYLOGFILE"),
    ],
)
def test_up_refuses_what_is_not_safe(
    tmp_path: Path, options: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    product = Product(tmp_path, environment=environment)
    done = product.cli("up", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", *options)
    assert done.code == 3
    assert said in done.err
    assert not product.state.exists()


def test_an_unsafe_listener_shows_in_status_readiness_and_every_record(service: Service) -> None:
    options = ("--listen", "0.0.0.0:0", "--unsafe-plaintext-listener")
    with running(policy=service.policy(), files={"lab-ca.pem": service.authority.pem}, options=options) as product:
        assert product.status()["unsafe"] == ["unsafe_plaintext_listener"]
        assert json.loads(get(f"{product.health()}/readyz")[1])["unsafe"] == ["unsafe_plaintext_listener"]
        fetch(product, "/nope")
        (denied,) = product.records("call.denied")
        assert denied["env"]["unsafe"] == ["unsafe_plaintext_listener"]


def test_up_applies_a_policy_first_and_refuses_a_bad_one(service: Service, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(service.policy())
    (tmp_path / "lab-ca.pem").write_text(service.authority.pem)
    with running(options=("--policy", str(tmp_path / "policy.yaml"))) as product:
        assert product.status()["accounts"] == 1
    (tmp_path / "policy.yaml").write_text("exeat: 2\n")
    done = Product(tmp_path).cli("up", "--policy", str(tmp_path / "policy.yaml"))
    assert done.code == 1
    assert "policy.yaml:1:8" in done.err
