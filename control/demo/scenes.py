"""The demonstration, scene by scene. Every printed figure was observed; a scene that does not happen ends it.

(1) start   (2) allowed   (3) denied   (4) rate limit   (5) spend cap   (6) revocation   (7) ledger   (8) one bit
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.demo.authority import write_authority
from control.demo.policy import policy_text
from control.demo.saas import Saas

START_SECONDS = 30.0
WORDS_BEFORE_REVOKING = 12
# -P: what lies in the folder where the demonstration is started must not be imported in place of our packages.
EXEAT = (sys.executable, "-P", "-m", "control.cli")


class SceneFailed(Exception):
    """Something that the demonstration promises did not happen."""


@dataclass(slots=True)
class Stage:
    """A temporary installation, the service it talks to, and the commands a user would type."""

    folder: Path
    say: Callable[[str], None]
    key: str = field(default_factory=lambda: f"sk-demo-{secrets.token_urlsafe(18)}")
    saas: Saas | None = None
    process: subprocess.Popen[bytes] | None = None
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        """The state folder of the product under show."""
        return self.folder / "state"

    def scene(self, number: int, title: str) -> None:
        """A heading."""
        self.say(f"\n({number}) {title}")

    def expect(self, happened: object, what: str) -> None:
        """Ends the demonstration unless it happened."""
        if not happened:
            raise SceneFailed(what)

    def exeat(
        self, *arguments: str, stdin: bytes = b"", shown: str | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """One command of the product, as a user would run it; printed as `shown`."""
        if shown is not None:
            self.say(f"    $ exeat {shown}")
        return subprocess.run(
            [*EXEAT, *arguments], input=stdin, capture_output=True, env=self.environment(), timeout=60, check=False
        )

    def must(self, *arguments: str, stdin: bytes = b"", shown: str | None = None) -> str:
        """As `exeat`; its output. Ends the demonstration when it fails."""
        done = self.exeat(*arguments, stdin=stdin, shown=shown)
        if done.returncode != 0:
            raise SceneFailed(f"exeat {arguments[0]} ended with {done.returncode}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def environment(self) -> dict[str, str]:
        """What the product's commands inherit: this installation, and no proxy of the machine's own."""
        proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file"}
        kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
        return kept | {"EXEAT_STATE": str(self.state), "PYTHONPATH": os.pathsep.join(sys.path)}

    def agent(self, account: str, what: str) -> "Agent":
        """An agent's program behind `exeat run`, still running."""
        self.say(f"    $ exeat run --as {account} -- python agent.py {what}")
        process = subprocess.Popen(
            [*EXEAT, "run", "--as", account, "--", sys.executable, "-P", "-m", "control.demo.agent", what],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=self.environment(),
        )  # fmt: skip
        self.agents.append(process)
        return Agent(process)

    def close(self) -> None:
        """Nothing of the demonstration runs any more."""
        for agent in self.agents:
            if agent.poll() is None:
                agent.terminate()
            agent.communicate()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.saas is not None:
            self.saas.stop()


@dataclass(slots=True)
class Agent:
    """A running agent; what it tells comes line by line."""

    process: subprocess.Popen[bytes]

    def told(self) -> Iterator[dict[str, Any]]:
        """Its observations, as they come, until it ends."""
        if self.process.stdout is None:
            return
        for line in self.process.stdout:
            yield json.loads(line)
        if self.process.wait(30) != 0:
            error = self.process.stderr.read().decode().strip() if self.process.stderr is not None else ""
            raise SceneFailed(f"the agent ended with {self.process.returncode}: {error}")


def play(stage: Stage) -> None:
    """All scenes. Raises `SceneFailed` at the first that does not happen."""
    for scene in (start, allowed, denied, rate_limited, capped, revoked, verified, tampered):
        scene(stage)


def start(stage: Stage) -> None:
    """A service, the product, a policy and a secret."""
    stage.scene(1, "A service, the proxy in front of it, a policy and a secret")
    write_authority_for(stage)
    stage.saas = Saas(stage.folder, stage.key)
    stage.saas.start()
    stage.say(f"    the service listens on 127.0.0.1:{stage.saas.port} (TLS, its own authority)")
    stage.say("    $ exeat up &")
    began = time.monotonic()
    with (stage.folder / "up.log").open("wb") as log:
        stage.process = subprocess.Popen(
            [*EXEAT, "up", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=stage.environment(),
        )  # fmt: skip
    while stage.exeat("status", "--json").returncode != 0 or not (stage.state / "operators.sock").exists():
        if stage.process.poll() is not None or time.monotonic() - began > START_SECONDS:
            raise SceneFailed(f"exeat up did not start: {(stage.folder / 'up.log').read_text()}")
        time.sleep(0.1)
    status = json.loads(stage.must("status", "--json"))
    stage.say(f"    agents connect to {status['listening'][0]}")
    (stage.folder / "policy" / "policy.yaml").write_text(policy_text(stage.saas.port))
    applied = stage.must("policy", "apply", str(stage.folder / "policy"), shown="policy apply policy/")
    # What the first policy opens is all of it: the file just shown is shorter.
    stage.say(f"    {next(line for line in applied.splitlines() if line.startswith('active: '))}")
    done = stage.must(
        "secret", "set", "saas/key", stdin=stage.key.encode() + b"\n", shown="secret set saas/key < key.txt"
    )
    stage.say(f"    {done.strip()}")


def write_authority_for(stage: Stage) -> None:
    """The service's certificate, and its authority beside the policy that names it."""
    (stage.folder / "policy").mkdir()
    write_authority(stage.folder, ("models.demo.test", "tickets.demo.test"))
    shutil.copyfile(stage.folder / "ca.pem", stage.folder / "policy" / "ca.pem")


def allowed(stage: Stage) -> None:
    """The service sees the real key; the agent never does."""
    stage.scene(2, "An allowed call")
    (told,) = stage.agent("support-agent", "chat").told()
    stage.expect(told["status"] == 200, f"the call was answered with {told['status']}: {told['text']}")
    seen = _saas(stage).seen[-1]
    stage.expect(seen.authorization == f"Bearer {stage.key}", "the service did not see the real key")
    stage.expect(stage.key not in told["environment"], "the agent could read the real key")
    stage.say(f"    the agent ({told['client']}) reads: {told['text']!r}")
    stage.say(f"    the service saw {seen.method} {seen.path} with the real key ({_hidden(seen.authorization)})")
    stage.say("    the agent's environment and command line do not contain that key")


def denied(stage: Stage) -> None:
    """The SDK raises its own exception, and the program can read why."""
    stage.scene(3, "A denied call")
    before = len(_saas(stage).seen)
    (told,) = stage.agent("support-agent", "delete").told()
    stage.expect(told["status"] == 403 and told["code"] == "rule_denied", f"not denied as it should be: {told}")
    stage.expect(len(_saas(stage).seen) == before, "a denied call reached the service")
    reads = "reads" if told["error"] is None else f"raises {told['error']}:"
    stage.say(f"    the client {reads} HTTP {told['status']}, code {told['code']}, rule {told['rule']}")
    stage.say("    the service saw nothing of it")


def rate_limited(stage: Stage) -> None:
    """The fourth read within a minute has to wait."""
    stage.scene(4, "A rate limit: 3 reads of tickets a minute")
    told = list(stage.agent("support-agent", "tickets").told())
    last = told[-1]
    stage.expect([line["status"] for line in told] == [200, 200, 200, 429], f"the limit did not hold: {told}")
    stage.expect(last["code"] == "rate_limited" and int(last["retry_after"]) > 0, f"no advice came with it: {last}")
    statuses = " ".join(str(line["status"]) for line in told)
    stage.say(f"    statuses {statuses}; code {last['code']}, Retry-After: {last['retry_after']}")


def capped(stage: Stage) -> None:
    """Five calls of a cent each fit into five cents, whatever the agent wants."""
    stage.scene(5, "A spend cap: 0.05 USD a day, 0.01 USD a call, one already spent")
    before = len(_saas(stage).seen)
    told = list(stage.agent("support-agent", "spend").told())
    reached = len(_saas(stage).seen) - before
    stage.expect(told[-1]["code"] == "spend_cap_reached", f"the cap was not reached: {told[-1]}")
    stage.expect(reached == len(told) - 1 == 4, f"{reached} calls reached the service; 4 cents were left")
    stage.say(f"    {reached} more calls went through, then: HTTP {told[-1]['status']}, code {told[-1]['code']}")


def revoked(stage: Stage) -> None:
    """From another terminal, while the agent reads a stream."""
    stage.scene(6, "A revocation that cuts a stream")
    agent = stage.agent("writer-agent", "stream")
    lines = agent.told()
    words = 0
    while words < WORDS_BEFORE_REVOKING:
        line = next(lines)
        stage.expect("words" in line and "ended" not in line, f"the stream ended by itself: {line}")
        words = int(line["words"])
    stage.say(f"    the agent has read {words} words of a stream; from another terminal:")
    asked = time.time()
    output = stage.must(
        "revoke", "account", "writer-agent", "--reason", "INC-204", "--json",
        shown="revoke account writer-agent --reason INC-204",
    )  # fmt: skip
    report = json.loads(output)
    rest = list(lines)
    end = next(line for line in rest if "ended" in line)
    again = next(line for line in rest if "again" in line)
    stage.expect(report["cut"] == 1, f"the revocation cut {report['cut']} calls")
    stage.expect(end["ended"] != "completed", "the stream was not cut")
    stage.expect(again["status"] != 200, f"still served: {again}")
    stage.say(
        f"    epoch {report['epoch']}  nodes {report['nodes_answered']}/{report['nodes']}  cut {report['cut']}  "
        f"{report['micros'] / 1000:.1f} ms  proof #{report['seq']}"
    )
    elapsed = (end["at"] - asked) * 1000
    stage.say(f"    the agent's stream broke at word {end['words']} ({end['ended']}), {elapsed:.0f} ms after Enter")
    stage.say(f"    its next call: {again['text']}{'' if again['code'] is None else ', code ' + again['code']}")
    (last,) = stage.must("calls", "tail", "-n", "1", shown="calls tail -n 1").splitlines()
    stage.expect("credential_revoked" in last, f"the refusal is not in the ledger: {last}")
    stage.say(f"    {last}")
    _wait_for(lambda: _saas(stage).streams_cut == 1, stage, "the service's side of the stream was not cut")


def verified(stage: Stage) -> None:
    """Offline: the ledger's files and the trust file."""
    stage.scene(7, "The ledger, verified offline")
    if stage.process is not None:
        stage.process.send_signal(signal.SIGTERM)
        stage.expect(stage.process.wait(30) == 0, "exeat up did not stop cleanly")
    trust = str(stage.state / "trust.policy")
    done = stage.exeat(
        "ledger",
        "verify",
        str(stage.state / "ledger"),
        "--trust",
        trust,
        shown="ledger verify ledger/ --trust trust.policy",
    )
    text = done.stdout.decode()
    stage.expect(done.returncode == 0 and "INTACT" in text, f"exit {done.returncode}: {text}{done.stderr.decode()}")
    for line in text.strip().splitlines():
        stage.say(f"    {line}")


def tampered(stage: Stage) -> None:
    """The same, with one bit of a copy changed."""
    stage.scene(8, "One bit of a copy changed")
    copy = stage.folder / "copy"
    shutil.copytree(stage.state / "ledger", copy)
    segment = max((copy / "segments").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    place = len(data) // 2
    data[place] ^= 1
    segment.write_bytes(data)
    trust = str(stage.state / "trust.policy")
    done = stage.exeat(
        "ledger",
        "verify",
        str(copy),
        "--trust",
        trust,
        shown=f"ledger verify copy/ --trust trust.policy   # byte {place} of {len(data)}",
    )
    text = (done.stdout + done.stderr).decode()
    stage.expect(done.returncode == 1, f"the change was not found: exit {done.returncode}: {text}")
    for line in text.strip().splitlines()[:6]:
        stage.say(f"    {line}")


def _saas(stage: Stage) -> Saas:
    if stage.saas is None:
        raise SceneFailed("the service does not run")
    return stage.saas


def _hidden(authorization: str) -> str:
    """A bearer value that can be recognised and not used."""
    scheme, _, value = authorization.partition(" ")
    return f"{scheme} {value[:8]}... of {len(value)} characters"


def _wait_for(happened: Callable[[], bool], stage: Stage, what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        stage.expect(time.monotonic() < deadline, what)
        time.sleep(0.02)
