"""`exeat up --listen-tls` and `exeat ca` as users have them: real processes, real clients, a rotation under traffic."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.engine.authority import Authority
from tests.worlds.authority import DAY
from tests.worlds.authority import Authority as LabAuthority
from tests.worlds.origin_thread import OriginThread
from tests.worlds.product import Product, running

POLICY = """\
exeat: 1
tenant: acme
credentials: {{ttl: 1m, max_ttl: 5m}}
connections:
  saas: {{host: saas.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas}}
accounts:
  agent:
    owners: {{accountable: a@x.example, system: s@x.example, risk: r@x.example}}
    rules: [{{id: items, allow: {{connection: saas, methods: [GET, POST], path: "/items/**"}}}}]
"""
SECRET = b"real-saas-secret-93bd"
NAME = "exeat.test"
GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"


@dataclass
class Place:
    product: Product
    origin: OriginThread


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A product that listens on TLS alone."""
    with OriginThread(("saas.test",)) as origin, installed(origin) as product:
        yield Place(product, origin)


def installed(origin: OriginThread, *options: str, folder: Path | None = None):
    return running(
        folder,
        policy=POLICY.format(port=origin.port),
        files={"ca.pem": origin.authority.pem},
        secrets={"saas": SECRET},
        options=("--listen-tls", "127.0.0.1:0", "--name", NAME, *options),
        listen="",
    )


def test_run_reaches_a_tls_door_and_verifies_it(place: Place) -> None:
    """The program speaks to its relay as ever; between relay and door there is TLS."""
    done = place.product.run(sys.executable, "-c", GET, "https://saas.test/items/run").ok()
    assert done.out.strip() == '{"ok":true}'
    assert place.origin.seen("/items/run")[0].header("authorization") == f"Bearer {SECRET.decode()}"
    (door,) = place.product.status()["listening"]
    assert door.startswith("https://127.0.0.1:")
    assert f"door     {door}" in place.product.cli("status").ok().out


def test_a_relay_gives_its_credential_to_no_other_server(place: Place, tmp_path: Path) -> None:
    """Whoever takes the door's address without its key sees a handshake and nothing in it."""
    from control.kept_relay import door_context
    from control.relay import DoorAccess, Relay
    from control.status_views import Access
    from credentials.secret import Secret

    async def ask() -> tuple[bytes, list[bytes]]:
        seen: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read(65536))
            writer.close()

        impostor = LabAuthority().issue("127.0.0.1").server_context()
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=impostor)
        port = server.sockets[0].getsockname()[1]
        access = Access("127.0.0.1", port, "", "127.0.0.1", place.product.cli("ca", "export").ok().out)
        relay = Relay(DoorAccess("127.0.0.1", port, "agent", Secret("canary-token"), door_context(access), "127.0.0.1"))
        await relay.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        from tests.control.test_relay import basic

        writer.write(b"CONNECT saas.test:443 HTTP/1.1\r\nHost: saas.test:443\r\n" + basic(relay, account="agent"))
        writer.write(b"\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await relay.close()
        server.close()
        return answer, seen

    answer, seen = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"certificate" in answer
    assert not [data for data in seen if data]


@pytest.mark.wants("curl")
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_what_env_prints_works_for_curl_and_requests_and_git_style_variables(place: Place) -> None:
    settings = place.product.run_env()
    assert settings["HTTPS_PROXY"].startswith("https://agent:")
    environment = {"PATH": os.environ["PATH"], **settings}
    bundle = settings["SSL_CERT_FILE"]
    for command in (
        ["curl", "-sS", "--proxy-cacert", bundle, "https://saas.test/items/env"],
        [sys.executable, "-c", "import requests; print(requests.get('https://saas.test/items/env').text)"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout.strip()) == (0, '{"ok":true}'), done.stderr
    assert settings["EXEAT_BASE_URL"].startswith("https://127.0.0.1:")
    remote = place.product.cli("env", "--remote", "--json").ok().json["HTTPS_PROXY"]
    assert f"@{NAME}:" in remote


def test_the_base_url_door_is_behind_tls_too(place: Place) -> None:
    settings = place.product.run_env()
    request = urllib.request.Request(
        f"{settings['EXEAT_BASE_URL']}/saas/items/base",
        headers={"Authorization": f"Bearer {settings['EXEAT_API_KEY']}"},
    )
    context = ssl.create_default_context(cafile=settings["SSL_CERT_FILE"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    assert json.loads(opener.open(request, timeout=20).read()) == {"ok": True}


def test_doctor_and_metrics_know_the_authority(place: Place) -> None:
    metrics = urllib.request.urlopen(f"{place.product.health()}/metrics", timeout=10).read().decode()
    (line,) = [line for line in metrics.splitlines() if line.startswith("exeat_authority_expires_seconds ")]
    assert 360 * 86_400 < float(line.split()[1]) < 366 * 86_400
    findings = place.product.cli("doctor", "--json").json["findings"]
    assert {"subject": "authority", "verdict": "good"}.items() <= next(
        finding for finding in findings if finding["subject"] == "authority"
    ).items()


class Traffic:
    """One agent that calls as fast as it can, each time through a new tunnel, trusting one bundle."""

    def __init__(self, product: Product, bundle: str) -> None:
        settings = product.run_env(ttl="5m")
        self._url = settings["HTTPS_PROXY"]
        self._context = ssl.create_default_context(cadata=bundle)
        self._over = threading.Event()
        self.calls, self.failed = 0, []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def reaches(self, more: int) -> None:
        wanted, deadline = self.calls + more, time.monotonic() + 30
        while self.calls < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.calls >= wanted

    def _run(self) -> None:
        import urllib3

        address = urllib3.util.parse_url(self._url)
        headers = urllib3.util.make_headers(proxy_basic_auth=address.auth)
        while not self._over.is_set():
            with urllib3.ProxyManager(
                f"https://{address.host}:{address.port}", proxy_headers=headers, proxy_ssl_context=self._context,
                ssl_context=self._context,
            ) as pool:  # fmt: skip
                try:
                    answer = pool.request("GET", "https://saas.test/items/traffic", retries=False)
                    if answer.status != 200:
                        self.failed.append(str(answer.status))
                except Exception as error:
                    self.failed.append(repr(error))
                self.calls += 1


def test_a_rotation_under_traffic_fails_no_call_of_an_agent_that_has_both() -> None:
    """Through the overlap old and new bundles work; after the switch those that hold the new one go on."""
    with OriginThread(("saas.test",)) as origin, installed(origin) as product:
        old = product.cli("ca", "export").ok().out
        assert product.cli("ca", "rotate", "--switch").code == 1
        product.cli("ca", "rotate").ok()
        both = product.cli("ca", "export").ok().out
        assert both.startswith(old.strip())
        assert both.count("BEGIN CERTIFICATE") == 2
        with Traffic(product, both) as lasting:
            with Traffic(product, old) as leaving:
                lasting.reaches(10)
                leaving.reaches(10)
            refused = product.cli("ca", "rotate", "--switch")
            assert refused.code == 1
            assert "--now" in refused.err
            done = product.cli("ca", "rotate", "--switch", "--now", "--json").ok().json
            assert [shown["role"] for shown in done["authorities"]] == ["signing", "previous"]
            lasting.reaches(10)
            with Traffic(product, old) as late:
                late.reaches(2)
            product.cli("ca", "rotate", "--finish").ok()
            new = product.cli("ca", "export").ok().out
            with Traffic(product, new) as started_anew:
                started_anew.reaches(10)
            lasting.reaches(5)
        assert (lasting.failed, leaving.failed, started_anew.failed) == ([], [], [])
        assert len(late.failed) == late.calls, "only the new authority signs after the switch"
        acts = [record["act"] for record in product.records("operator.act") if record["act"].startswith("authority.")]
        assert acts == ["authority.begin", "authority.switch", "authority.finish"]
        actors = [r["actor"]["kind"] for r in product.records("operator.act") if r["act"].startswith("authority.")]
        assert actors == ["uid"] * 3
        assert product.run(sys.executable, "-c", GET, "https://saas.test/items/after").ok()
        assert product.stop() == 0
        product.start()
        assert product.cli("ca", "export").ok().out == new


def test_a_run_is_given_new_certificates_when_its_credential_is_renewed() -> None:
    """A program that reads its bundle again trusts the next authority without being started anew."""
    with OriginThread(("saas.test",)) as origin, installed(origin) as product:
        script = (
            "import os, time, pathlib\n"
            "path = pathlib.Path(os.environ['NODE_EXTRA_CA_CERTS'])\n"
            "print('ready', flush=True)\n"
            "while path.read_text().count('BEGIN') < 2: time.sleep(0.1)\n"
        )
        program = product.spawn(sys.executable, "-c", script, options=("--ttl", "4s"))
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        product.cli("ca", "rotate").ok()
        program.communicate(timeout=40)
        assert program.returncode == 0


def test_a_constrained_authority_refuses_other_hosts_readably_and_warns_of_a_policy_beyond_it() -> None:
    with OriginThread(("saas.test", "other.test")) as origin, installed(origin) as product:
        product.cli("ca", "rotate", "--constrain").ok()
        shown = product.cli("ca", "rotate", "--switch", "--now", "--json").ok().json["authorities"][0]
        assert shown["permitted"][:2] == ["exeat.invalid", NAME]
        assert "saas.test" in shown["permitted"]
        assert "127.0.0.1/32" in shown["permitted"]
        product.run(sys.executable, "-c", GET, "https://saas.test/items/1").ok()
        if shutil.which("curl"):
            done = product.run("curl", "-sSv", "https://other.test/items/1")
            assert done.code != 0
            assert "destination_unknown" in done.err
        wider = POLICY.format(port=origin.port).replace(
            "accounts:", "  other: {host: other.test, secret: saas}\naccounts:"
        )
        applied = product.apply(wider, {"ca.pem": origin.authority.pem}).ok().json
        assert any("other.test" in warning for warning in applied["warnings"])
        assert product.cli("ca", "show", "--json").ok().json["outside"] == ["other.test"]


def test_without_a_process_the_state_is_used_under_its_lock(tmp_path: Path) -> None:
    product = Product(Path(tempfile.mkdtemp(prefix="exeat-w-")))
    try:
        assert product.cli("ca", "create", "--permit", "saas.test").code == 0
        shown = product.cli("ca", "show", "--json").ok().json["authorities"]
        assert shown[0]["permitted"] == ["exeat.invalid", "saas.test"]
        assert product.cli("ca", "create").code == 1
        product.cli("ca", "rotate", "--permit", "example.com").ok()
        product.cli("ca", "rotate", "--cancel").ok()
        assert product.cli("ca", "rotate", "--switch", "--permit", "x.test").code == 2
        product.options = ("--listen-tls", "127.0.0.1:0")
        product.listen = ""
        with pytest.raises(AssertionError, match="constrained and may not vouch for this listener's own 127"):
            product.start()
    finally:
        shutil.rmtree(product.folder)


def test_an_authority_near_its_end_warns_and_is_followed_and_one_that_has_ended_is_no_dead_end() -> None:
    """Twenty days left: the next one is handed out by itself. Two: it signs. None: a new one is made at the start."""
    for days, signing_is_new, roles in ((20, False, ["signing", "next"]), (-0.001, True, ["signing"])):
        product = Product(Path(tempfile.mkdtemp(prefix="exeat-w-")), "", ("--listen-tls", "127.0.0.1:0"))
        keys = product.state / "keys"
        keys.mkdir(parents=True, mode=0o700)
        product.state.chmod(0o700)
        old = Authority.create(days=days)
        old.save_new(keys / "ca.pem")
        try:
            product.start()
            deadline = time.monotonic() + 20
            while True:
                shown = product.cli("ca", "show", "--json").ok().json["authorities"]
                if [authority["role"] for authority in shown] == roles or time.monotonic() > deadline:
                    break
            assert [authority["role"] for authority in shown] == roles
            assert (shown[0]["pem"] != old.pem.decode()) is signing_is_new
            assert bool(product.status()["warnings"]) is (not signing_is_new)
            (act,) = [r for r in product.records("operator.act") if r["act"].startswith("authority.")]
            assert act["actor"]["kind"] == "system"
            assert "authority" in product.log.read_text()
            assert product.stop() == 0
        finally:
            shutil.rmtree(product.folder)


# What is refused at the start, with its cure


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = LabAuthority()
    for name, leaf in {
        "good": authority.issue(NAME, "127.0.0.1"),
        "other": authority.issue("other.test"),
        "expired": authority.issue(NAME, not_before=-9 * DAY, not_after=-DAY),
    }.items():
        (folder / f"{name}.pem").write_bytes(leaf.chain_pem)
        (folder / f"{name}.key").write_bytes(leaf.key_pem)
        (folder / f"{name}.key").chmod(0o600)
    (folder / "open.key").write_bytes((folder / "good.key").read_bytes())
    (folder / "open.key").chmod(0o644)
    (folder / "nonsense.pem").write_text("nonsense\n")
    return folder


TLS = ("--listen-tls", "127.0.0.1:0", "--name", NAME)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--listen", "0.0.0.0:0"), "--listen-tls"),
        (("--listen-tls", "0.0.0.0:0"), "--name"),
        ((*TLS, "--tls-cert", "good.pem"), "--tls-key"),
        (("--listen", "127.0.0.1:0", "--tls-cert", "good.pem", "--tls-key", "good.key"), "--listen-tls"),
        ((*TLS, "--tls-cert", "good.pem", "--tls-key", "other.key"), "is not the key of the first certificate"),
        ((*TLS, "--tls-cert", "good.pem", "--tls-key", "open.key"), "chmod 600"),
        ((*TLS, "--tls-cert", "expired.pem", "--tls-key", "expired.key"), "expired on"),
        ((*TLS, "--tls-cert", "nonsense.pem", "--tls-key", "good.key"), "no certificate in PEM"),
        ((*TLS, "--tls-cert", "missing.pem", "--tls-key", "good.key"), "cannot be read"),
        ((*TLS, "--tls-cert", "other.pem", "--tls-key", "other.key"), f"is not for {NAME}"),
        (("--listen-tls", "127.0.0.1:0", "--name", "*.test"), "--name"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_listens(
    certificates: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    product = Product(tmp_path)
    options = tuple(str(certificates / o) if o.endswith((".pem", ".key")) else o for o in options)
    done = product.cli("up", "--health", "127.0.0.1:0", *options)
    assert done.code == 3
    assert says in done.err
    assert not product.state.exists()


def test_an_operators_certificate_is_shown_and_a_renewed_one_taken(certificates: Path, tmp_path: Path) -> None:
    from proxy.engine.operator_certificate import OperatorCertificate

    chain, key = tmp_path / "c.pem", tmp_path / "c.key"
    for path, source in ((chain, "good.pem"), (key, "good.key")):
        shutil.copy(certificates / source, path)
    with OriginThread(("saas.test",)) as origin:
        options = ("--tls-cert", str(chain), "--tls-key", str(key))
        with installed(origin, *options) as product:
            product.run(sys.executable, "-c", GET, "https://saas.test/items/own").ok()
            host, port = product.door()
            assert ssl.get_server_certificate((host, port)).strip() == chain.read_text().strip()
    held = OperatorCertificate(chain, key, (NAME,))
    first = held.loaded
    renewed = LabAuthority().issue(NAME, "127.0.0.1")
    chain.write_bytes(renewed.chain_pem)
    held.look()
    assert held.loaded is first, "half a pair is not taken"
    key.write_bytes(renewed.key_pem)
    held.look()
    assert held.loaded is not first


def test_no_other_process_of_this_user_reads_the_memory_of_up(place: Place) -> None:
    """Of the same user without privileges: neither its memory nor its environment. An ordinary process's it can."""
    script = (
        "import os, sys, time\n"
        "sys.path.insert(0, {root!r})\n"
        "import ctypes; from control.startup import hide_memory\n"
        "os.setgid({uid}); os.setuid({uid})\n"
        "hide_memory() if {hide} else ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    look = (
        "import os\n"
        "os.setgid({uid}); os.setuid({uid})\n"
        "for name in ('mem', 'environ'):\n"
        "    try: open(f'/proc/{pid}/{{name}}', 'rb').close()\n"
        "    except PermissionError: print('no')\n"
        "    else: print('yes')\n"
    )
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    root = str(Path(__file__).resolve().parents[2])
    for hide, expected in ((True, "no\nno\n"), (False, "yes\nyes\n")):
        held = subprocess.Popen(
            [sys.executable, "-c", script.format(root=root, uid=uid, hide=hide)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert held.stdout is not None
            assert held.stdout.readline() == "ready\n"
            seen = subprocess.run(
                [sys.executable, "-c", look.format(uid=uid, pid=held.pid)], capture_output=True, text=True, check=True
            )
            if not hide and seen.stdout != expected and Path("/proc/sys/kernel/yama/ptrace_scope").exists():
                continue  # Yama forbids it for everybody; then there is nothing to tell apart.
            assert seen.stdout == expected
        finally:
            held.kill()
            held.communicate()
    assert place.product.process is not None
    limits = Path(f"/proc/{place.product.process.pid}/limits").read_text()
    assert next(line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")) == ["0", "0"]
    assert Path(f"/proc/{place.product.process.pid}/mem").stat().st_uid == 0
