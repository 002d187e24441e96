"""examples/nftables: with the rules an agent's user reaches the relay and nothing else; before, it reached more."""

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.control.test_product_round_trip import SECRET, Service
from tests.examples.test_netns_example import another_service, outcomes
from tests.worlds.anybody import for_anybody, may_mount
from tests.worlds.network import command, in_a_network_of_its_own, may_have_one
from tests.worlds.product import EXEAT, running

RULES = Path(__file__).resolve().parents[2] / "examples/nftables/agents.nft"
AGENT = 65534
RELAY = "127.0.0.1:9080"
NEIGHBOUR = "192.0.2.1"

pytestmark = [
    pytest.mark.wants("root, network namespaces, iproute2 and nftables"),
    pytest.mark.skipif(
        not (may_have_one("nft", "setpriv") and may_mount()), reason="root may not make networks here, or has no nft"
    ),
]


def test_a_packet_filter_by_user() -> None:
    in_a_network_of_its_own(held_by_user)


def a_way_to_everywhere() -> None:
    """A cable whose other end answers nobody, as default route: what is sent there stays in this namespace."""
    command("ip", "link", "add", "cable0", "type", "veth", "peer", "name", "cable1")
    for cable in ("cable0", "cable1"):
        command("ip", "link", "set", cable, "up")
    command("ip", "addr", "add", f"{NEIGHBOUR}/24", "dev", "cable0")
    command("ip", "route", "add", "default", "dev", "cable0")
    command("ip", "neigh", "add", "1.1.1.1", "lladdr", "02:00:00:00:00:01", "dev", "cable0")


def load(folder: Path) -> None:
    text, replaced = re.subn(r"define agents = \{ \d+ \}", f"define agents = {{ {AGENT} }}", RULES.read_text())
    assert replaced == 1
    rules = folder / "agents.nft"
    rules.write_text(text)
    command("nft", "-f", str(rules))
    command("nft", "-f", str(rules))
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert listed.count("goto agent") == 1, "loading it again replaces it"


def held_by_user() -> None:
    a_way_to_everywhere()
    with (
        another_service(NEIGHBOUR) as port,
        another_service("127.0.0.1") as near,
        another_service("::1") as near6,
        Service() as service,
        for_anybody() as ours,
        running(
            policy=service.policy(), files={"lab-ca.pem": service.authority.pem}, secrets={"lab": SECRET}
        ) as product,
    ):
        product.folder.chmod(0o755)
        variables = product.folder / "agent" / "env"
        variables.parent.mkdir(mode=0o755)
        relay = subprocess.Popen(
            [*EXEAT, "relay", "--listen", RELAY, "--env-file", str(variables)], env=product.env(), cwd=product.folder
        )
        try:
            deadline = time.monotonic() + 30
            while not variables.exists():
                assert relay.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)

            def as_agent(*words: str) -> subprocess.CompletedProcess[bytes]:
                become = ("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups", "--no-new-privs")
                script = f'. {variables} && exec "$@"'
                return subprocess.run(
                    [*ours.seen, "sh", "-c", script, "sh", *become, *words],
                    capture_output=True, env=product.env(), cwd=product.folder, timeout=60, check=False,
                )  # fmt: skip

            places = (
                f"tcp/{NEIGHBOUR}:{port}", f"tcp/127.0.0.1:{near}", "tcp/1.1.1.1:443", f"udp/{NEIGHBOUR}:{port}",
                "dns/1.1.1.1:53", "quic/1.1.1.1:443", "icmp/1.1.1.1", f"tcp/[::1]:{near6}",
            )  # fmt: skip
            targets = [word for place in places for word in ("--target", place)]
            probe = (*ours.exeat, "doctor", "egress", "--json", "--only-targets", "--timeout", "1", *targets)

            free = as_agent(*probe)
            assert free.returncode == 1, free.stderr.decode()
            before = outcomes(json.loads(free.stdout), "tcp")
            answering = {f"{NEIGHBOUR}:{port}", f"127.0.0.1:{near}", f"[::1]:{near6}"}
            assert {before[place] for place in answering} == {"open"}, "or the rest shows nothing"
            assert before["1.1.1.1:443"] == "unclear", "sent, and nobody answers"

            load(product.folder)
            held = as_agent(*probe)
            found = json.loads(held.stdout)
            assert found["door"]["reached"], found["door"]
            assert [way for way in found["ways"] if way["outcome"] == "open"] == []
            assert held.returncode == 0, held.stderr.decode()
            tried = [way for way in found["ways"] if way["kind"] in ("tcp", "udp", "dns", "quic", "icmp")]
            assert len(tried) == len(places)
            # Towards ::1 the refusal itself does not come back: there the filter looks like silence.
            unclear = [way["target"] for way in tried if way["outcome"] != "closed"]
            assert unclear in ([], [f"[::1]:{near6}"])

            curl = ("curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://saas.test/v1/items/1")
            call = as_agent(*curl)
            assert call.stdout == b"200", call.stderr.decode()
            with socket.create_connection((NEIGHBOUR, port), 5):
                pass  # other users are left alone
        finally:
            relay.terminate()
            assert relay.wait(30) == 0
