"""`exeat run --isolate` with real namespaces: what the program sees, reaches, and cannot."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.isolation.system_calls import NUMBERS
from tests.control.test_product_round_trip import SECRET, Service
from tests.worlds.product import EXEAT, Product, running

ISOLATED = ("--isolate",)


def _namespaces_are_to_be_had() -> bool:
    if os.geteuid() != 0 or not hasattr(os, "unshare"):
        return False
    script = "import os; os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS | os.CLONE_NEWPID | os.CLONE_NEWIPC)"
    return subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.wants("root and network namespaces"),
    pytest.mark.skipif(not _namespaces_are_to_be_had(), reason="root may not make network namespaces here"),
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def product(service: Service) -> Iterator[Product]:
    files = {"lab-ca.pem": service.authority.pem}
    with running(policy=service.policy(), files=files, secrets={"lab": SECRET}) as product:
        product.folder.chmod(0o755)
        yield product


def test_nothing_but_the_gate_can_be_reached(product: Product, service: Service) -> None:
    direct = (
        f"curl -sS --noproxy '*' -k -m 5 -o /dev/null -w '%{{http_code}}\\n' https://127.0.0.1:{service.origin.port}/"
    )
    through = "curl -sS -m 20 -o /dev/null -w '%{http_code}\\n' https://saas.test/v1/items/1"
    script = f"{direct}; {through}; grep -c . /proc/net/route; grep -o '^ *[a-z0-9]*:' /proc/net/dev"
    open_ = product.run("sh", "-c", direct).ok()
    assert open_.out == "200\n", "without isolation the origin is in reach, or this test shows nothing"
    done = product.run("sh", "-c", script, options=ISOLATED).ok()
    refused, passed, routes, *interfaces = done.out.split()
    assert (refused, passed) == ("000", "200"), done.err
    assert routes == "1", "a route besides the table's head"
    assert interfaces == ["lo:"]
    (call,) = [r for r in product.records("call.intent") if r["agent"]["run"] in done.err]
    assert call["op"]["host"] == "saas.test"
    (act,) = [r for r in product.records("operator.act") if r["act"] == "run.isolated"]
    assert act["detail"]["run"] == call["agent"]["run"]
    assert act["tenant"] == "acme"
    assert "uid nobody" in act["detail"]["isolation"]
    assert "isolated: own network" in done.err


def test_it_is_nobody_with_no_capability_and_sees_neither_the_state_nor_the_gate(product: Product) -> None:
    assert product.process is not None
    script = (
        "id -u; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; "
        f"echo state $(ls -A {product.state} | wc -l); cat {product.state}/keys/ca.pem; "
        f"echo gate $(cat /proc/{product.process.pid}/environ | wc -c); echo processes $(ls /proc | grep -c '^[0-9]'); "
        "echo fds $(ls /proc/self/fd | wc -l)"
    )
    done = product.run("sh", "-c", script, options=ISOLATED)
    facts = dict(line.replace(":", "").split() for line in done.out.splitlines()[1:])
    assert done.out.split()[0] == "65534"
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert (facts["state"], facts["gate"]) == ("0", "0")
    assert int(facts["processes"]) < 8
    assert facts["fds"] == "4", "standard streams, and the folder that ls reads"


def test_sockets_of_the_machine_are_out_of_reach(product: Product) -> None:
    """Sockets in the file system lead out of any network namespace: a container engine's, a terminal multiplexer's."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as daemon:
        Path(folder).chmod(0o755)
        path = Path(folder) / "engine.sock"
        daemon.bind(str(path))
        path.chmod(0o666)
        daemon.listen()
        ask = ("curl", "-sS", "--noproxy", "*", "-m", "1", "--unix-socket", str(path), "http://engine/")
        assert product.run(*ask, options=("--user", "nobody")).code == 28, "it connects and waits for an answer"
        assert product.run(*ask, options=ISOLATED).code == 7, "it cannot connect"


@pytest.mark.parametrize("how", ["relative", "renamed"])
def test_a_socket_is_covered_by_whatever_name_it_is_known(product: Product, how: str) -> None:
    """The kernel lists the name that was given to bind: here one without its folder, or one that is no more."""
    with tempfile.TemporaryDirectory(dir=product.folder) as folder:
        Path(folder).chmod(0o755)
        names = {"relative": "engine.sock", "renamed": f"{folder}/engine.new"}
        script = (
            "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
            "os.rename(sys.argv[1], 'engine.sock'); os.chmod('engine.sock', 0o666); s.listen(); print(); "
            "sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, names[how]], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as daemon:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            ask = ("curl", "-sS", "--noproxy", "*", "-m", "1", "--unix-socket", f"{folder}/engine.sock", "http://e/")
            assert product.run(*ask, options=("--user", "nobody")).code == 28, "it connects and waits for an answer"
            assert product.run(*ask, options=ISOLATED).code == 7, "it cannot connect"
            daemon.communicate()


def test_keys_of_the_session_are_out_of_reach(product: Product) -> None:
    """The kernel hands a session's keyring down, whoever the program becomes (keyrings(7))."""
    number = NUMBERS[os.uname().machine].keyctl
    script = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); number = int(sys.argv[1]); "
        "ok = libc.syscall(number, 1, None) >= 0 and "
        "libc.syscall(number - 2, b'user', b'exeat-canary', b'x', ctypes.c_size_t(1), -3) >= 0; "
        "ok or sys.exit(77); os.execv(sys.argv[2], sys.argv[2:])"
    )

    def seen(*options: str) -> int:
        command = [sys.executable, "-c", script, str(number), *EXEAT, "run", *options, "--"]
        command += ["grep", "-c", "exeat-canary", "/proc/keys"]
        done = subprocess.run(
            command, capture_output=True, env=product.env(), cwd=product.folder, timeout=60, check=False
        )
        if done.returncode == 77:
            pytest.skip("this kernel or container has no keyrings")
        return int(done.stdout)

    assert seen("--user", "nobody") == 1, "without isolation it is seen, or this test shows nothing"
    assert seen(*ISOLATED) == 0


def test_it_is_not_started_inside_a_hidden_folder(product: Product) -> None:
    """Whoever is in a folder already gets around what covers it: by `keys/ca.pem` to the authority's key."""
    for folder, code in ((product.state / "keys", 3), (product.state, 0), (product.folder, 0)):
        command = [*EXEAT, "run", *ISOLATED, "--", "sh", "-c", "echo started; ls -A keys operators.sock"]
        done = subprocess.run(command, capture_output=True, env=product.env(), cwd=folder, timeout=60, check=False)
        started = code == 0
        assert (b"started" in done.stdout) == started, done.stderr
        assert b"operators.sock" not in done.stdout, done.stdout
        assert started or (done.returncode == 3 and b"Start it from a folder" in done.stderr), done.stderr


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_codes_pass(product: Product, script: str, code: int) -> None:
    assert product.run("sh", "-c", script, options=ISOLATED).code == code


def test_a_program_that_does_not_exist(product: Product) -> None:
    assert product.run("no-such-program-here", options=ISOLATED, env={"PATH": "/usr/bin:/bin"}).code == 127


def test_standard_input_and_signals_reach_it(product: Product) -> None:
    assert product.run("cat", options=ISOLATED, stdin=b"hello").ok().out == "hello"
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    run = product.spawn("sh", "-c", script, options=ISOLATED)
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=20)
    assert (out, run.returncode) == (b"got it\n", 3), err.decode()


def _network_namespaces() -> set[str]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(process / "ns/net"))
    return found


def test_what_it_started_ends_with_it(product: Product) -> None:
    done = product.run("sh", "-c", "setsid sleep 31415 & readlink /proc/self/ns/net", options=ISOLATED).ok()
    _is_gone(done.out.strip())


def test_nothing_is_left_when_the_command_is_killed(product: Product) -> None:
    run = product.spawn("sh", "-c", "setsid sleep 31415 & readlink /proc/self/ns/net; sleep 31415", options=ISOLATED)
    assert run.stdout is not None
    namespace = run.stdout.readline().decode().strip()
    assert namespace in _network_namespaces()
    run.kill()
    run.communicate(timeout=10)
    _is_gone(namespace)


def _is_gone(namespace: str) -> None:
    """Every process of the network namespace has ended, and with the last one the namespace."""
    deadline = time.monotonic() + 10
    while namespace in _network_namespaces():
        assert time.monotonic() < deadline, "processes are left in the namespace"
        time.sleep(0.02)


def test_a_system_without_namespaces_refuses_and_starts_nothing(product: Product) -> None:
    """In a user namespace of the test's own, where the number of network namespaces is limited to none."""
    command = [*EXEAT, "run", *ISOLATED, "--", "echo", "started"]
    wrapped = [
        "unshare",
        "-U",
        "-r",
        "sh",
        "-c",
        'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"',
        "sh",
        *command,
    ]
    done = subprocess.run(wrapped, capture_output=True, env=product.env(), cwd=product.folder, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == b""
    assert b"not isolated, so not started" in done.stderr
    assert b"user.max_net_namespaces" in done.stderr, "the cure names what to change"


def test_root_is_no_identity_to_isolate_as(product: Product) -> None:
    done = product.run("true", options=(*ISOLATED, "--user", "root"))
    assert done.code == 2
    assert "Name a user without privileges" in done.err


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv of util-linux is not installed")
def test_without_root_it_keeps_its_uid_and_the_state_is_hidden(service: Service) -> None:
    """As a user without a privilege but to read where this Python is installed."""
    rights = "+dac_read_search"
    nobody = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        f"--inh-caps={rights}",
        f"--ambient-caps={rights}",
    )
    folder = Path(tempfile.mkdtemp(prefix="exeat-u-"))
    os.chown(folder, 65534, 65534)
    environment = Product(folder).env({"HOME": str(folder)})

    def command(*words: str, stdin: bytes = b"", cwd: Path = folder) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*nobody, *EXEAT, *words],
            input=stdin,
            capture_output=True,
            env=environment,
            cwd=cwd,
            timeout=60,
            check=False,
        )

    with (folder / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*nobody, *EXEAT, "up", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"],
            stdout=log, stderr=log, env=environment, cwd=folder,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while command("status").returncode != 0 or not (folder / "state/operators.sock").exists():
            assert time.monotonic() < deadline
            assert up.poll() is None, (folder / "up.log").read_text()
        policy = folder / "policy"
        policy.mkdir()
        (policy / "policy.yaml").write_text(service.policy())
        (policy / "lab-ca.pem").write_text(service.authority.pem)
        assert command("policy", "apply", str(policy)).returncode == 0
        assert command("secret", "set", "lab", "--tenant", "acme", stdin=SECRET).returncode == 0
        script = (
            f"id -u; ls -A {folder}/state | wc -l; grep -c : /proc/net/dev; grep CapEff /proc/self/status; "
            "curl -sS -m 20 -o /dev/null -w '%{http_code}\\n' https://saas.test/v1/items/1; umount "
            f"{folder}/state 2>/dev/null; ls -A {folder}/state | wc -l"
        )
        done = command("run", *ISOLATED, "--", "sh", "-c", script)
        assert done.stdout.decode().split() == ["65534", "0", "1", "CapEff:", "0" * 16, "200", "0"], (
            done.stderr.decode()
        )
        assert b"own uid 65534" in done.stderr
        inside = command("run", *ISOLATED, "--", "sh", "-c", "cat keys/ca.pem", cwd=folder / "state")
        assert (inside.returncode, inside.stdout) == (1, b""), "a key that its own uid may read"
    finally:
        up.terminate()
        assert up.wait(30) == 0, (folder / "up.log").read_text()
        shutil.rmtree(folder, ignore_errors=True)
