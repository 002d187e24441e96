"""examples/netns: the agent gets an allowed call through Exeat; the probe finds nothing else, and without it does."""

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.test_product_round_trip import SECRET, Service
from tests.worlds.anybody import Ours, for_anybody, may_mount
from tests.worlds.network import command, in_a_network_of_its_own, may_have_one
from tests.worlds.product import Product, running

AGENT_NET = str(Path(__file__).resolve().parents[2] / "examples/netns/agent-net")
GATE = "10.77.0.1"

pytestmark = [
    pytest.mark.wants("root, network namespaces and iproute2"),
    pytest.mark.skipif(not (may_have_one() and may_mount()), reason="root may not make networks here, or has no ip"),
]


@contextlib.contextmanager
def another_service(address: str) -> Iterator[int]:
    """Something on the machine that answers whoever reaches it, and is not Exeat."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextlib.contextmanager
def an_engine(path: Path) -> Iterator[None]:
    """A socket that anybody may connect to, where a container engine has its own. /run is the test's here."""
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(path))
        path.chmod(0o666)
        engine.listen()
        yield


def started(product: Product, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, env=product.env(), cwd=product.folder, timeout=90, check=False)


def probe(product: Product, ours: Ours, contained: bool, *options: str) -> dict[str, object]:
    inside = (AGENT_NET, "run") if contained else ()
    run = (*ours.exeat, "run", "--user", "nobody", "--", *ours.exeat, "doctor", "egress", "--json", *options)
    done = started(product, *ours.seen, *inside, *run)
    found = json.loads(done.stdout or b"{}")
    assert found, done.stderr.decode()
    return {**found, "exit": done.returncode}


def outcomes(found: dict[str, object], kind: str = "") -> dict[str, str]:
    ways = found["ways"]
    assert isinstance(ways, list)
    return {way["target"]: way["outcome"] for way in ways if way["kind"] == kind or not kind}


def test_a_namespace_with_one_way_out() -> None:
    in_a_network_of_its_own(one_way_out)


def one_way_out() -> None:
    command(AGENT_NET, "up")
    with (
        another_service(GATE) as port,
        an_engine(Path("/run/docker.sock")),
        Service() as service,
        for_anybody() as ours,
        running(
            policy=service.policy(),
            files={"lab-ca.pem": service.authority.pem},
            secrets={"lab": SECRET},
            listen="",
            options=("--listen-tls", f"{GATE}:8443", "--name", GATE),
        ) as product,
    ):
        elsewhere = f"{GATE}:{port}"
        named = ("--only-targets", "--target", elsewhere)
        free = probe(product, ours, False, *named)
        assert free["exit"] == 1
        assert outcomes(free, "tcp") == {elsewhere: "open"}, "or what follows shows nothing"

        assert outcomes(probe(product, ours, False, "--timeout", "1"), "socket")["/run/docker.sock (docker)"] == "open"

        # Every default as well: this network leads nowhere, so nothing of it leaves the machine.
        held = probe(product, ours, True, "--timeout", "1", "--target", elsewhere, "--target", f"icmp/{GATE}")
        assert held["door"]["reached"], held["door"]  # type: ignore[index]
        assert [way for way, outcome in outcomes(held).items() if outcome == "open"] == []
        assert held["exit"] == 0
        assert set(outcomes(held, "tcp").values()) == {"closed"}
        assert outcomes(held, "icmp")[GATE] == "closed"

        curl = ("curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://saas.test/v1/items/1")
        call = started(product, *ours.seen, AGENT_NET, "run", *ours.exeat, "run", "--user", "nobody", "--", *curl)
        assert call.stdout == b"200", call.stderr.decode()
        (intent,) = product.records("call.intent")
        assert intent["op"]["host"] == "saas.test"
    command(AGENT_NET, "down")
