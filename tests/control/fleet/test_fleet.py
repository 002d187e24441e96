"""Control and its workers over a real socket: what is in force is so there, and who does not hear does not serve."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from control import peers
from control.degraded import Episodes
from control.fleet.channel import Channel
from control.fleet.fleet import Fleet
from control.fleet.inputs import ForwardedInputs
from control.fleet.limits_line import LimitsLine
from control.fleet.snapshot import Follower
from control.fleet.troubles import Troubles
from control.fleet.world import LEASE_SECONDS, WorkerWorld
from control.local import Local
from control.node import Node
from control.state import State
from control.threads import ControlThread
from credentials.actor import Actor
from credentials.revocation import Target, TargetKind
from credentials.secret import Secret
from ledger import read_records
from proxy.deciding import Decided
from proxy.engine.authority import Authority
from proxy.gate import CutUnconfirmed
from proxy.live import CutReport, InFlight

ANA = Actor("uid", "1000", "ana")
ACCOUNT = Target(TargetKind.ACCOUNT, "acme", "agent")
POLICY = """
exeat: 1
tenant: acme
connections:
  api: {host: api.example, secret: api/key}
accounts:
  agent:
    owners: {accountable: ana@acme.example, system: sys@acme.example, risk: risk@acme.example}
    rules: [{id: read, allow: {connection: api, methods: [GET], path: /**}}]
"""
CALL = InFlight("c_1", "acme", "agent", "r_1", "api GET /x", "answer", 0.5, True, 0, None)


@dataclass
class Gate:
    """A gate that notes its orders, and what was in force when they came."""

    world: WorkerWorld
    deaf: bool = False
    cuts: list[tuple[Target | None, bool]] = field(default_factory=list)
    authorities: list[Authority] = field(default_factory=list)
    rendered: str = "exeat_calls 2\n"

    def cut(self, target: Target | None) -> CutReport:
        if self.deaf:
            raise CutUnconfirmed("busy")
        self.cuts.append((target, target is not None and self.world.revocations.find(target) is not None))
        return CutReport(1, (CALL,), 3)

    def in_flight(self) -> tuple[InFlight, ...]:
        return (CALL,)

    def sign_with(self, authority: Authority) -> None:
        self.authorities.append(authority)


@dataclass
class Worker:
    """A worker's line on a thread of its own."""

    path: Path
    key: bytes
    name: str
    thread: ControlThread = field(default_factory=lambda: ControlThread("test-channel"))
    inputs: ForwardedInputs = field(default_factory=ForwardedInputs)
    troubles: Troubles = field(default_factory=Troubles)

    def start(self) -> "Worker":
        known: Future[WorkerWorld] = Future()
        hello = {"worker": self.name, "slot": 0, "pid": 1}
        follower = Follower(Ed25519PublicKey.from_public_bytes(self.key))
        self.channel = Channel(
            self.path,
            hello,
            follower,
            self.inputs,
            self.troubles,
            LimitsLine(),
            lambda world, _: known.set_result(world),
        )
        self.thread.start()
        self.line = self.thread.submit(self.channel.run)
        self.world = known.result(20)
        self.gate = Gate(self.world)
        self.thread.loop.call_soon_threadsafe(self.channel.serving, self.gate, [("127.0.0.1", 8080)])
        return self

    def stop(self) -> None:
        self.line.cancel()
        self.thread.stop()


@dataclass
class Site:
    """A state, its fleet, and workers."""

    state: State
    fleet: Fleet
    thread: ControlThread
    local: Local
    workers: list[Worker] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.state.directory / "workers.sock"

    def worker(self) -> Worker:
        key = self.state.snapshot_key.public_key().public_bytes_raw()
        worker = Worker(self.path, key, f"w{len(self.workers)}").start()
        self.workers.append(worker)
        wait(lambda: self.fleet.serving == len(self.workers))
        return worker

    def listen(self) -> None:
        listener = peers.listen(self.path)
        self.thread.submit(lambda: self.fleet.start(listener)).result(10)


def wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "policy.yaml").write_text(POLICY)
    state = State.open(tmp_path / "state", create=True)
    state.apply_policy(tmp_path / "policy.yaml", ANA)
    thread = ControlThread()
    thread.start()
    authority = Authority.create()
    episodes = Episodes(state, {}, quiet_seconds=0.2)
    fleet = Fleet(state, thread, lambda: authority, 2, episodes)
    node = Node(fleet, (), None, episodes)  # type: ignore[arg-type]  # nobody asks for authorities here
    here = Site(state, fleet, thread, Local(state, ANA, node))
    here.listen()
    yield here
    for worker in here.workers:
        worker.stop()
    thread.submit(here.fleet.stop).result(10)
    thread.stop()
    state.close()


def test_a_worker_acts_on_what_control_has(site: Site) -> None:
    site.local.set_secret("acme", "api/key", Secret("sk_1"))
    world = site.worker().world
    assert world.policy is not None
    assert world.policy.digest == site.state.policy.digest  # type: ignore[union-attr]
    assert world.policy_epoch == site.state.policy_epoch
    assert world.secret("acme", "api/key") == site.state.secret("acme", "api/key")
    assert world.commitment_key("acme") == site.state.commitment_key("acme")
    token = site.state.issue_token("acme", "agent", "w", None, None, ANA).token.reveal().decode()
    assert world.identifier.identify(token, world.revocations, time.time()).account == "agent"


def test_a_revocation_is_in_force_in_every_worker_when_it_is_cut_there(site: Site) -> None:
    one, two = site.worker(), site.worker()
    done = site.local.revoke(ACCOUNT, "INC-1")
    assert (done.nodes, done.nodes_answered, done.cut) == (2, 2, 2)
    assert one.gate.cuts == two.gate.cuts == [(ACCOUNT, True)]
    site.local.restore(ACCOUNT, "closed")
    assert one.world.revocations == two.world.revocations == site.state.revocations


def test_a_worker_that_does_not_answer_is_counted_as_that(site: Site) -> None:
    site.worker()
    site.worker().gate.deaf = True
    done = site.local.revoke(ACCOUNT, "INC-1")
    assert (done.nodes, done.nodes_answered, done.cut) == (2, 1, 1)


def test_a_policy_and_a_secret_decide_everywhere_when_they_are_said_to(site: Site, tmp_path: Path) -> None:
    workers = [site.worker(), site.worker()]
    (tmp_path / "policy.yaml").write_text(POLICY.replace("GET", "PUT"))
    site.state.apply_policy(tmp_path / "policy.yaml", ANA)
    assert site.fleet.publish() == (2, 2)
    site.local.set_secret("acme", "api/key", Secret("sk_2"))
    for worker in workers:
        assert worker.world.policy.digest == site.state.policy.digest  # type: ignore[union-attr]
        assert worker.world.secret("acme", "api/key") == (Secret("sk_2"), 1)
    site.local.remove_secret("acme", "api/key")
    assert [worker.world.secret("acme", "api/key") for worker in workers] == [None, None]


def test_what_changes_without_a_word_reaches_workers_all_the_same(site: Site) -> None:
    world = site.worker().world
    site.state.revoke(ACCOUNT, "INC-1", ANA)
    wait(lambda: world.revocations.epoch == 1)


def test_who_hears_serves_and_who_does_not_hear_does_not(site: Site) -> None:
    worker = site.worker()
    wait(lambda: worker.world.hears)
    site.thread.submit(site.fleet.stop).result(10)
    wait(lambda: not worker.world.hears)
    wait(lambda: not site.fleet.serving)
    site.fleet = Fleet(site.state, site.thread, site.fleet.authority, 2, site.fleet.episodes)  # the next control
    site.listen()
    wait(lambda: worker.world.hears)
    wait(lambda: site.fleet.serving == 1)


def test_a_beat_that_waited_is_an_old_one(site: Site) -> None:
    world = site.worker().world
    site.thread.submit(site.fleet.stop).result(10)
    world.heard(time.monotonic() - LEASE_SECONDS - 1)
    assert not world.hears


def test_what_calls_were_decided_on_is_kept_by_control(site: Site) -> None:
    site.state.inputs.start()
    worker = site.worker()
    for number in range(1200):
        worker.inputs.keep(
            Decided(f"c_{number}", "acme", "agent", datetime.now(UTC), None, None, "read", b'{"v":1}' + b" " * number)
        )
    wait(lambda: site.state.inputs.stored == 1200)
    assert site.fleet.inputs_lost == 0


def test_questions_are_answered_by_all(site: Site) -> None:
    site.worker()
    site.worker()
    assert [call.call for call in site.fleet.in_flight()] == ["c_1", "c_1"]
    assert site.fleet.metrics() == "exeat_calls 4\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        struct.pack(">II", 4 + 2, 2) + b"{}",
        struct.pack(">II", 100, 2),
        b"",
    ],
)
def test_whoever_speaks_otherwise_is_cut_off_alone(site: Site, sent: bytes) -> None:
    worker = site.worker()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(site.path))
        stranger.sendall(sent)
        stranger.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b"", "nothing is told to it"
    assert site.fleet.publish() == (1, 1)
    wait(lambda: worker.world.hears)


@pytest.mark.parametrize(
    "body", [{"version": 99, "worker": "w", "slot": 0, "pid": 1}, {"version": 1}, {"version": 1, "worker": "w"}]
)
def test_a_hello_that_is_none_is_told_nothing(site: Site, body: dict[str, object]) -> None:
    head = json.dumps({"kind": "hello", "body": body, "blobs": []}).encode()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(site.path))
        stranger.sendall(struct.pack(">II", 4 + len(head), len(head)) + head)
        assert stranger.recv(100) == b""


def test_another_user_is_told_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.fleet.fleet.peer_uid", lambda _: 12345)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(str(site.path))
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b""


def test_what_a_worker_could_not_do_is_one_episode_for_all_of_them(site: Site) -> None:
    one, two = site.worker(), site.worker()
    episodes = site.fleet.episodes
    one.troubles.begins("limits", "127.0.0.1:6379: gone")
    two.troubles.begins("limits", "127.0.0.1:6379: gone")
    wait(lambda: [shown.nodes for shown in episodes.now()] == [("w0", "w1")])
    one.troubles.ends("limits")
    wait(lambda: [shown.nodes for shown in episodes.now()] == [("w1",)])
    two.stop()
    site.workers.remove(two)
    wait(lambda: episodes.now() == ())
    episodes.record()
    time.sleep(0.3)
    episodes.record()
    assert [(act, detail["control"], detail["nodes"]) for act, detail in acts(site)] == [
        ("degraded.begin", "limits", "w0, w1"),
        ("degraded.end", "limits", "w0, w1"),
    ]


def test_that_control_was_not_heard_is_known_when_it_is_heard_again(site: Site) -> None:
    workers = [site.worker(), site.worker()]
    wait(lambda: all(worker.world.hears for worker in workers))
    site.thread.submit(site.fleet.stop).result(10)
    wait(lambda: not any(worker.world.hears for worker in workers))
    workers[0].troubles.begins("limits", "gone")  # of which nobody hears yet
    episodes = Episodes(site.state, {}, quiet_seconds=0.5)
    site.fleet = Fleet(site.state, site.thread, site.fleet.authority, 2, episodes)  # the next control
    site.listen()
    wait(lambda: all(worker.world.hears for worker in workers))
    wait(lambda: [shown.control for shown in episodes.now()] == ["limits"])
    episodes.record()
    time.sleep(0.6)
    episodes.record()
    told = [(act, detail["nodes"]) for act, detail in acts(site) if detail["control"] == "revocations"]
    assert told[-1] == ("degraded.end", "w0, w1")
    assert [act for act, _ in told] == ["degraded.begin", "degraded.end"]
    end = next(detail for _, detail in reversed(acts(site)) if detail["control"] == "revocations")
    assert end["since"] < end["until"]
    assert end["times"] == "1"


def acts(site: Site) -> list[tuple[str, dict[str, str]]]:
    """What is on record about degraded controls."""
    found = read_records(site.state.ledger.directory, types=frozenset({"operator.act"}))
    bodies = [record.body for record in found]
    return [(body["act"], body["detail"]) for body in bodies if body["act"].startswith("degraded.")]
