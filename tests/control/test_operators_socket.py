"""The operators' socket: real socket, real uvicorn on its own thread, the command line's own client."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from control import peers
from control.input_views import InputsWanted
from control.listeners import ControlListeners
from control.operations import (
    PolicyFault,
    PolicyRefused,
    PolicyText,
    Provenance,
    Refused,
    TokenRequest,
    Unavailable,
    WrongUse,
)
from control.operators import operators_app
from control.peers import SocketRefused
from control.remote import SOCKET_NAME, NobodyListens, Remote
from control.threads import ControlThread
from credentials.revocation import Target, TargetKind
from credentials.secret import Secret
from tests.worlds.operations import ACTIVATION, STATUS, RecordingOperations

NOBODY = 65534
ACCOUNT = Target(TargetKind.ACCOUNT, "acme", "agent")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Reachable by other users, unlike pytest's own: the socket's check is what must keep them out."""
    path = Path(tempfile.mkdtemp(prefix="exeat-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def served(folder: Path) -> Iterator[tuple[RecordingOperations, Remote]]:
    operations = RecordingOperations()
    thread = ControlThread()
    thread.start()
    listeners = ControlListeners(thread)
    listeners.serve_operators(operators_app(operations.as_actor), peers.listen(folder / SOCKET_NAME))
    yield operations, Remote(folder)
    listeners.stop()
    assert thread.stop()


def test_every_operation_arrives_as_it_was_asked_and_its_answer_comes_back(
    served: tuple[RecordingOperations, Remote],
) -> None:
    world, remote = served
    text = PolicyText((("policy.yaml", b"exeat: 1\n"), ("ca/lab.pem", b"\xff\0")), single=True)
    request = TokenRequest("acme", "agent", "refunds", None, 60)
    assert remote.status() == STATUS
    assert remote.access().port == 8080
    assert remote.apply_policy(text, Provenance(author="ana")).seq == 5
    assert remote.policy_history(5) == (ACTIVATION,)
    assert remote.roll_back_policy("#1", Provenance(reason="INC-1")).seq == 6
    assert remote.set_secret("acme", "k", Secret(b"\x00\xffcanary")).version == 1
    assert remote.list_secrets()[0].thumbprint == "thumb"
    assert remote.remove_secret("acme", "k").name == "k"
    assert remote.issue_token(request).token == Secret("token-canary")
    assert remote.renew_token(Secret("old")).run == "r_1"
    assert remote.inspect_token(Secret("held")).code == "credential_expired"
    assert (remote.tenant_of_credential("k_1"), remote.tenant_of_credential("k_2")) == ("acme", None)
    assert remote.would_revoke(ACCOUNT).credentials == 2
    assert remote.revoke(ACCOUNT, "INC-204").epoch == 4
    assert remote.restore(Target(TargetKind.ALL), "over").epoch == 5
    assert world.asked == [
        ("status",), ("access",), ("apply", text, Provenance(author="ana")),
        ("history", 5), ("rollback", "#1", Provenance(reason="INC-1")),
        ("set", "acme", "k", Secret(b"\x00\xffcanary")), ("list",), ("remove", "acme", "k"),
        ("issue", request), ("renew", Secret("old")), ("inspect", Secret("held")),
        ("tenant", "k_1"), ("tenant", "k_2"), ("would", ACCOUNT),
        ("revoke", ACCOUNT, "INC-204"), ("restore", Target(TargetKind.ALL), "over"),
    ]  # fmt: skip


def test_kept_inputs_are_asked_for_as_they_were_asked(served: tuple[RecordingOperations, Remote]) -> None:
    world, remote = served
    wanted = InputsWanted(tenant="acme", account="agent", before=7)
    page = remote.inputs.page(wanted, "5:1")
    assert ([read.call for read in page.calls], page.next) == (["c_1"], "5:1")
    assert remote.inputs.show("c_-_").fits is True
    assert remote.inputs.erase(wanted, "request 17").erased == 3
    assert world.asked == [("page", wanted, "5:1"), ("show", "c_-_"), ("erase", wanted, "request 17")]
    with pytest.raises(WrongUse, match="reason"):
        remote.inputs.erase(wanted, "two\nlines")
    with pytest.raises(WrongUse, match="before"):
        remote.inputs.page(InputsWanted(before=-1), "")


def test_the_actor_is_the_peer_that_the_kernel_names(served: tuple[RecordingOperations, Remote]) -> None:
    world, remote = served
    remote.status()
    (actor,) = world.actors
    assert (actor.kind, actor.id) == ("uid", str(os.geteuid()))
    assert actor.name


@pytest.mark.parametrize("error", [Refused("no", "a cure"), WrongUse("no", "a cure"), Unavailable("no", "a cure")])
def test_an_operations_error_is_the_same_error_on_the_other_side(
    served: tuple[RecordingOperations, Remote], error: Exception
) -> None:
    world, remote = served
    world.fails = error
    with pytest.raises(type(error), match="no") as caught:
        remote.status()
    assert caught.value.cure == "a cure"


def test_a_refused_policy_keeps_its_faults(served: tuple[RecordingOperations, Remote]) -> None:
    world, remote = served
    faults = (PolicyFault("policy.yaml", 3, 5, "unknown key", "did you mean `rules`?"),)
    world.fails = PolicyRefused(faults)
    with pytest.raises(PolicyRefused) as caught:
        remote.apply_policy(PolicyText((("policy.yaml", b""),), single=True), Provenance())
    assert caught.value.faults == faults


def test_a_defect_is_an_answer_without_its_text(served: tuple[RecordingOperations, Remote]) -> None:
    world, remote = served
    world.fails = ZeroDivisionError("canary-in-an-exception")
    with pytest.raises(Unavailable) as caught:
        remote.revoke(ACCOUNT, "INC-1")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/revocations", {"kind": "account", "tenant": "acme", "name": None, "reason": "x"}),
        ("/revocations", {"kind": "everything", "tenant": None, "name": None, "reason": "x"}),
        ("/revocations", {"kind": "all", "tenant": None, "name": None, "reason": "x", "force": True}),
        ("/revocations", {"kind": "all", "tenant": None, "name": None}),
        ("/tokens", {"tenant": "acme", "account": "a", "workflow": "w", "run": None, "ttl_seconds": "60"}),
        ("/tokens", {"tenant": "acme", "account": "a\r\nb", "workflow": "w", "run": None, "ttl_seconds": 60}),
        ("/secrets", {"tenant": "acme", "name": "k", "value": "secret-canary!"}),
        ("/policy", {"files": [{"name": "../x", "content": ""}], "single": False, "provenance": {}}),
        ("/policy", {"files": [{"name": "/etc/x", "content": ""}], "single": False, "provenance": {}}),
        ("/policy", {"files": [], "single": False, "provenance": {}}),
        ("/policy/history", {"limit": 0}),
        ("/policy/rollback", {"to": "x' OR 1=1", "provenance": {}}),
        ("/policy/rollback", {"provenance": {}}),
    ],
)
def test_a_request_of_another_shape_is_refused_before_any_operation(
    served: tuple[RecordingOperations, Remote], path: str, body: object
) -> None:
    world, remote = served
    with pytest.raises(WrongUse) as caught:
        remote._ask("POST", path, body)
    assert world.asked == []
    assert "canary" not in str(caught.value)


def test_the_socket_is_for_its_owner_alone(served: tuple[RecordingOperations, Remote], folder: Path) -> None:
    assert stat.S_IMODE((folder / SOCKET_NAME).stat().st_mode) == 0o600


PROBE = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(10)
try:
    s.connect(sys.argv[1]); s.sendall(b"GET /status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); print(repr(s.recv(100)))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o600, {"PermissionError"}), (0o666, {"b''", "ConnectionResetError", "BrokenPipeError"})],
)
def test_another_user_is_refused_by_the_files_mode_and_also_without_it(
    served: tuple[RecordingOperations, Remote], folder: Path, mode: int, expected: set[str]
) -> None:
    world, _ = served
    (folder / SOCKET_NAME).chmod(mode)
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    try:
        probe = subprocess.run(
            [python, "-I", "-c", PROBE, str(folder / SOCKET_NAME)],
            user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=True, cwd="/",
        )  # fmt: skip
    except PermissionError:
        pytest.skip("no Python here that another user may run")
    assert probe.stdout.strip() in expected
    assert world.asked == []


def test_operations_run_off_the_callers_thread_and_off_the_main_one(
    served: tuple[RecordingOperations, Remote], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, remote = served
    seen: list[str] = []
    monkeypatch.setattr(world, "status", lambda: (seen.append(threading.current_thread().name), STATUS)[1])
    remote.status()
    assert seen
    assert seen[0] not in {threading.main_thread().name, "exeat-control"}


def test_without_a_process_the_client_says_so(folder: Path) -> None:
    assert Remote(folder).answers() is False
    with pytest.raises(NobodyListens):
        Remote(folder).status()


def test_a_dead_processs_socket_is_replaced_and_anything_else_is_left_alone(folder: Path) -> None:
    path = folder / SOCKET_NAME
    peers.listen(path).close()
    assert Remote(folder).answers() is False
    peers.listen(path).close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(SocketRefused):
        peers.listen(path)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_said_before_the_kernel_does(folder: Path) -> None:
    with pytest.raises(SocketRefused, match="107"):
        peers.listen(folder / ("x" * 120))


def test_no_answer_is_cached(served: tuple[RecordingOperations, Remote], folder: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(folder / SOCKET_NAME))
        raw.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := raw.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"no-store" in head
    assert json.loads(body)["epoch"] == 3
