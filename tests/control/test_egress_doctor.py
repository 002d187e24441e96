"""`exeat doctor egress`: each kind of way shown open by a peer that answers, and its twin that does not.

Everything is on loopback or in a namespace without a route: no packet leaves the machine.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control.cli import run_command
from control.doctor import PROBE_HOST
from control.egress_doctor import Door, Result, for_the_ledger, parse_result, probe
from control.egress_local import found_sockets, gateways, listeners, powers, privileges, resolvers, variables
from control.egress_ways import KINDS, PUBLIC, Outcome, Way, parse_target, try_way
from control.environment import MATRIX, Value
from control.operations import WrongUse
from tests.control.isolation.test_isolated_runs import _namespaces_are_to_be_had
from tests.control.test_product_round_trip import SECRET, Service
from tests.worlds.anybody import for_anybody, may_mount
from tests.worlds.authority import Authority
from tests.worlds.origin import Origin, Peer, Request
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import EXEAT, Product, running

PROBE = (sys.executable, "-m", "control.cli", "doctor", "egress")
NOW = datetime.now(UTC)


@contextlib.contextmanager
def answering(kind: socket.SocketKind, *, silent: bool = False) -> Iterator[int]:
    """A port of loopback where every datagram, or the first bytes of every connection, are sent back."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    if kind == socket.SOCK_STREAM:
                        with contextlib.closing(server.accept()[0]) as peer:
                            peer.sendall(peer.recv(2000))
                    else:
                        data, sender = server.recvfrom(2000)
                        if data == b"stop":
                            return
                        server.sendto(data, sender)

        thread = threading.Thread(target=serve, daemon=True)
        if not silent:
            thread.start()
        yield server.getsockname()[1]
        if not silent:
            if kind == socket.SOCK_STREAM:
                server.shutdown(socket.SHUT_RDWR)
            else:
                server.sendto(b"stop", server.getsockname())
            thread.join(10)


def tried(text: str, seconds: float = 5.0) -> Way:
    return asyncio.run(try_way(parse_target(text), seconds))


@pytest.mark.parametrize("kind", ["tcp", "dns-tcp", "doh"])
def test_a_connection_that_stands_is_open(kind: str) -> None:
    with answering(socket.SOCK_STREAM) as port:
        assert tried(f"{kind}/127.0.0.1:{port}").outcome is Outcome.OPEN
    assert tried(f"{kind}/127.0.0.1:{port}").outcome is Outcome.UNCLEAR, "refused: a filter, or the host itself"


@pytest.mark.parametrize("kind", ["udp", "dns", "quic"])
def test_a_datagram_is_open_only_upon_an_answer(kind: str) -> None:
    with answering(socket.SOCK_DGRAM) as port:
        assert tried(f"{kind}/127.0.0.1:{port}").outcome is Outcome.OPEN
    with answering(socket.SOCK_DGRAM, silent=True) as port:
        silent = tried(f"{kind}/127.0.0.1:{port}", seconds=0.2)
    assert silent.outcome is Outcome.UNCLEAR
    assert silent.text.startswith("no answer in 0.2 s: a filter, or silence")


def test_http_over_tls_by_address() -> None:
    with OriginThread(("saas.test",)) as origin:
        way = tried(f"doh/127.0.0.1:{origin.port}")
    assert (way.outcome, way.text) == (Outcome.OPEN, "answers in HTTP over TLS")


def test_names_and_echoes() -> None:
    assert tried("name/localhost").outcome is Outcome.OPEN
    echo = tried("icmp/127.0.0.1")
    assert echo.outcome is Outcome.OPEN or "may not open such a socket" in echo.text


def test_the_defaults_are_targets_of_every_kind_but_plain_udp() -> None:
    targets = [parse_target(text) for text in PUBLIC]
    assert [str(target) for target in targets] == list(PUBLIC)
    assert {target.kind for target in targets} == set(KINDS) - {"udp"}
    assert {target.port for target in targets if target.kind == "tcp"} == {22, 80, 443, 853}


@pytest.mark.parametrize(
    "text", ["saas.test:443", "tcp/1.1.1.1", "1.1.1.1:0", "1.1.1.1:65536", "smoke/1.1.1.1:1", "name/"]
)
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("[", r"\[")):
        parse_target(text)


def test_resolvers_and_gateways_are_read_from_the_machine(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("# x\nsearch a.test\nnameserver 10.0.0.2\nnameserver nonsense\n")
    assert [str(target) for target in resolvers(tmp_path / "resolv.conf")] == ["dns/10.0.0.2:53", "dns-tcp/10.0.0.2:53"]
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    (tmp_path / "route").write_text(
        head + "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\neth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    )
    found = [str(target) for target in gateways(tmp_path)]
    assert found[0] == "dns/10.0.0.1:53"
    assert "tcp/10.0.0.1:443" in found


def test_abstract_sockets_are_found_by_the_kernels_table(tmp_path: Path) -> None:
    name = f"exeat-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        (line,) = [line for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f"@{name}")]
        (tmp_path / "unix").write_text(f"Num RefCount Protocol Flags Type St Inode Path\n{line}\n")
        (way,) = asyncio.run(found_sockets(set(), 2.0, tmp_path))
    assert (way.target, way.outcome) == (f"@{name}", Outcome.UNCLEAR)
    (way,) = asyncio.run(found_sockets(set(), 2.0, tmp_path))
    assert way.outcome is Outcome.CLOSED


def test_listeners_besides_the_door_are_named() -> None:
    """By the kernel's own tables; only what this test listens on is connected to."""
    with answering(socket.SOCK_STREAM) as port, tempfile.TemporaryDirectory() as folder:
        head = "  sl  local_address rem_address   st\n"
        row = "   0: {}:{:04X} 00000000:0000 {} 0\n"
        loopback, any_, none = "0100007F", "00000000", "0" * 24 + "01000000"
        (Path(folder) / "tcp").write_text(head + row.format(loopback, port, "0A") + row.format(loopback, 9, "01"))
        (Path(folder) / "tcp6").write_text(head + row.format(none, 0xFFFF, "0A"))
        found = asyncio.run(listeners(("::1", 0xFFFF), 2.0, Path(folder)))
        assert [(way.target, way.outcome) for way in found] == [(f"127.0.0.1:{port}", Outcome.UNCLEAR)]
        (Path(folder) / "tcp").write_text(head + row.format(any_, port, "0A"))
        found = asyncio.run(listeners(("127.0.0.1", port), 2.0, Path(folder)))
        assert [way.target for way in found] == ["[::1]:65535"]


def test_a_socket_that_gives_power_is_open_where_it_can_be_connected(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen()
        # Without the table: what else this machine has is nobody's business here.
        (way,) = asyncio.run(powers({"SSH_AUTH_SOCK": str(path)}, 1.0, table=()))
    assert way.outcome is Outcome.OPEN
    (way,) = asyncio.run(powers({"SSH_AUTH_SOCK": str(path)}, 1.0, table=()))
    assert way.outcome is Outcome.CLOSED


def test_variables_that_lead_past_the_proxy_are_unclear() -> None:
    """They open nothing themselves; where the network lets them, clients go out by them."""
    proper = {row.name: "http://x" for row in MATRIX if row.value is Value.PROXY}
    assert [way.outcome for way in variables(proper)] == [Outcome.CLOSED]
    loose = {way.target: way.outcome for way in variables({"no_proxy": "*"})}
    assert loose == {"proxies": Outcome.UNCLEAR, "no_proxy": Outcome.UNCLEAR}


@pytest.mark.parametrize(("held", "outcome"), [("0000000000001000", Outcome.OPEN), ("0" * 16, Outcome.CLOSED)])
def test_a_program_that_can_change_its_network_is_not_contained(held: str, outcome: Outcome, tmp_path: Path) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{held}\n")
    assert privileges(tmp_path / "status").outcome is outcome


# The door


async def through_another_proxy(trusted: bool, code: bytes) -> Door:
    """What the probe says of a proxy that opens every tunnel to a server of its own."""
    authority = Authority()

    async def script(_: Request, peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 403 Forbidden\r\n" + code + b"Content-Length: 0\r\n\r\n")

    async with Origin(authority.issue(PROBE_HOST), script) as origin:

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            inner, outer = await asyncio.open_connection("127.0.0.1", origin.port)
            with contextlib.suppress(OSError):
                await asyncio.gather(piped(reader, outer), piped(inner, writer))
            outer.close()
            writer.close()

        server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "ca.pem"
            bundle.write_text((authority if trusted else Authority()).pem)
            environment = {"HTTPS_PROXY": f"http://a:b@127.0.0.1:{port}", "SSL_CERT_FILE": str(bundle)}
            nowhere = (parse_target("name/localhost"),)
            found = await probe(environment, Path(folder), nowhere, defaults=False, seconds=2.0)
        server.close()
        await server.wait_closed()
        return found.door


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("trusted", "code", "reached", "text"),
    [
        pytest.param(True, b"Exeat-Code: x\r\n", True, "reached and trusted", id="ours"),
        pytest.param(True, b"", False, "without a code of Exeat's", id="no-code"),
        pytest.param(False, b"Exeat-Code: x\r\n", False, "not trusted", id="not-trusted"),
    ],
)
def test_another_proxy_does_not_pass_for_the_door(trusted: bool, code: bytes, reached: bool, text: str) -> None:
    door = asyncio.run(through_another_proxy(trusted, code))
    assert door.reached is reached, door
    assert text in door.text


# What is brought to be recorded


def result(outcome: Outcome = Outcome.CLOSED, *, reached: bool = True, at: datetime = NOW) -> Result:
    way = Way("tcp", "127.0.0.1:1", outcome, "x")
    return Result(at, "box", 1, "r_1", True, Door(reached, "x"), (way,))


def test_a_result_comes_back_as_it_was_printed() -> None:
    data = json.dumps(result().to_json()).encode()
    assert parse_result(data, NOW) == result()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        json.dumps(result(at=NOW - timedelta(days=2)).to_json()).encode(),
        json.dumps(result(at=NOW + timedelta(hours=1)).to_json()).encode(),
        json.dumps(result(Outcome.OPEN).to_json() | {"verdict": "nothing open"}).encode(),
        json.dumps(result().to_json() | {"ways": []}).encode(),
        json.dumps(result().to_json() | {"more": 1}).encode(),
        b" " * (1024 * 1024 + 1),
    ],
    ids=["nothing", "list", "old", "future", "verdict", "no-ways", "more", "huge"],
)
def test_what_is_no_result_is_refused(data: bytes) -> None:
    with pytest.raises(WrongUse):
        parse_result(data, NOW)


def test_what_goes_on_record_is_one_line_each() -> None:
    way = Way("tcp", "a\x1b[1m", Outcome.OPEN, "")
    hostile = Result(NOW, "b\nox", 1, "r\u202e", True, Door(True, "x"), (way,) * 200)
    detail = for_the_ledger(hostile, b"x")
    assert all(value.isprintable() and len(value) <= 1024 for value in detail.values())
    assert detail["open"] == "200"


# The command


def test_wrong_use(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor", "egress", "--only-targets"]) == 2
    assert run_command(["doctor", "egress", "--target", "saas.test:443"]) == 2
    assert run_command(["doctor", "egress", "--tenant", "acme", "--only-targets", "--target", "127.0.0.1:1"]) == 2
    assert "a name's lookup is a way of its own" in capfd.readouterr().err


def test_without_exeat_the_result_is_meaningless(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    state = ("--state", str(tmp_path))
    code = run_command(["doctor", "egress", *state, "--json", "--only-targets", "--target", "127.0.0.1:1"])
    printed = capfd.readouterr().out
    assert (code, json.loads(printed)["verdict"]) == (3, "meaningless")
    (tmp_path / "result").write_text(printed)
    assert run_command(["doctor", "egress", *state, "--record", str(tmp_path / "result")]) == 3
    assert "nothing is recorded" in capfd.readouterr().err


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


def only(service: Service) -> tuple[str, ...]:
    return ("--only-targets", "--target", f"127.0.0.1:{service.origin.port}")


def test_an_open_way_is_found_and_an_operator_puts_it_on_record(product: Product, service: Service) -> None:
    done = product.run(*PROBE, "--json", "--state", str(product.state), *only(service))
    assert done.code == 1, done.err
    found = done.json
    assert found["door"]["reached"], found["door"]
    outcomes = {way["target"]: way["outcome"] for way in found["ways"]}
    assert outcomes[f"127.0.0.1:{service.origin.port}"] == "open"
    assert outcomes["proxies"] == "closed"
    same_user = {way["target"]: way["outcome"] for way in found["ways"] if way["kind"] == "gate"}
    assert same_user == {
        f"keys in {product.state}": "open",
        f"{product.state}/operators.sock (operators)": "open",
    }
    recorded = product.cli("doctor", "egress", "--record", "-", stdin=done.out.encode())
    assert recorded.code == 1, recorded.err
    act = [r for r in product.records("operator.act") if r["act"] == "egress.probed"][-1]
    assert act["tenant"] == "acme"
    assert act["actor"]["kind"] == "uid"
    assert act["detail"]["result"] == "open"
    assert f"tcp 127.0.0.1:{service.origin.port}" in act["detail"]["opened"]
    assert act["detail"]["targets"] == "named"
    assert act["detail"]["run"] == found["run"]


@pytest.mark.wants("root and network namespaces")
@pytest.mark.skipif(
    not (_namespaces_are_to_be_had() and may_mount()), reason="root may not make network namespaces here"
)
def test_an_isolated_run_has_no_way_out_and_no_way_to_say_so_itself(product: Product, service: Service) -> None:
    """All defaults are tried: in a network without a route nothing of it leaves."""
    target = f"127.0.0.1:{service.origin.port}"

    def isolated(*options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        with for_anybody() as ours:
            return subprocess.run(
                [*ours.seen, *EXEAT, "run", "--isolate", "--", *ours.exeat, "doctor", "egress", *options],
                input=stdin, capture_output=True, env=product.env(), cwd=product.folder, timeout=60, check=False,
            )  # fmt: skip

    done = isolated("--json", "--timeout", "1", "--target", target, "--state", str(product.state))
    found = json.loads(done.stdout)
    assert found["door"]["reached"], found["door"]
    assert [way for way in found["ways"] if way["outcome"] == "open"] == []
    assert done.returncode == 0, done.stderr
    public = [way for way in found["ways"] if way["kind"] in KINDS and way["target"] != target]
    assert len(public) >= len(PUBLIC)
    assert {way["outcome"] for way in public} <= {"closed", "unclear"}
    assert {way["outcome"] for way in found["ways"] if way["kind"] == "gate"} == {"closed"}
    (tcp,) = {way["outcome"] for way in public if way["kind"] == "tcp"}
    assert tcp == "closed"
    assert {way["target"]: way["outcome"] for way in found["ways"]}["others"] == "closed"
    before = len(product.records("operator.act"))
    forging = isolated("--record", "-", "--state", str(product.state), stdin=done.stdout)
    assert forging.returncode == 3, forging.stderr
    assert [r["act"] for r in product.records("operator.act")[before:]] == ["run.isolated"], "the run, and nothing else"
    product.cli("doctor", "egress", "--record", "-", stdin=done.stdout).ok()
    act = product.records("operator.act")[-1]
    assert (act["act"], act["detail"]["result"], act["detail"]["open"]) == ("egress.probed", "nothing open", "0")
