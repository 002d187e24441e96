"""`exeat doctor client` with real clients, well-behaved and not: each is told apart, with its cure."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from control.cli import run_command
from control.client_doctor import BASE_URL, NODE, diagnose, examine_command
from control.doctor import Verdict
from control.rehearsal import Seen, Visit

URL = "https://anything.test/x"
GOOD = f"import requests; print(requests.get('{URL}', timeout=20).status_code)"
OWN_STORE = f"import certifi, requests; requests.get('{URL}', timeout=20, verify=certifi.where())"
DIRECT = f"import requests\ns = requests.Session()\ns.trust_env = False\ns.get('{URL}', timeout=20)"
EXCEPTION = f"import os; os.environ['NO_PROXY'] = os.environ['no_proxy'] = '*'\n{GOOD}"
PINNING = f"""
import hashlib, urllib3, os
pool = urllib3.ProxyManager(os.environ['HTTPS_PROXY'].split('@')[0].split('//')[0] + '//' + os.environ['HTTPS_PROXY']
    .split('@')[1], proxy_headers=urllib3.make_headers(proxy_basic_auth='rehearsal:' + os.environ['EXEAT_API_KEY']),
    ca_certs=os.environ['SSL_CERT_FILE'], assert_fingerprint='00' * 32, retries=False)
pool.request('GET', '{URL}')
"""
NO_PASSWORD = f"""
import os, requests
bare = 'http://' + os.environ['HTTPS_PROXY'].split('@')[1]
requests.get('{URL}', proxies={{'https': bare}}, timeout=20)
"""
HTTP2 = """
import base64, os, socket, ssl
where = os.environ['EXEAT_BASE_URL'].split('/')[2]
raw = socket.create_connection(tuple(where.rsplit(':', 1)))
login = base64.b64encode(b'rehearsal:' + os.environ['EXEAT_API_KEY'].encode())
raw.sendall(b'CONNECT h2.test:443 HTTP/1.1\\r\\nProxy-Authorization: Basic ' + login + b'\\r\\n\\r\\n')
raw.recv(1000)
secured = ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE']).wrap_socket(raw, server_hostname='h2.test')
secured.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n')
secured.recv(10)
"""
AT_BASE = """
import os, requests
requests.get(os.environ['EXEAT_BASE_URL'] + '/saas/x', headers={'X-Api-Key': os.environ['EXEAT_API_KEY']}, timeout=20)
"""


@pytest.mark.parametrize(
    ("script", "verdict", "text", "cure"),
    [
        pytest.param(GOOD, Verdict.GOOD, "obeys the proxy", "", id="good"),
        pytest.param(AT_BASE, Verdict.GOOD, "the base URL", "", id="base-url"),
        pytest.param(
            OWN_STORE, Verdict.BAD, "does not trust the certificate of anything.test", "SSL_CERT_FILE", id="own-store"
        ),
        pytest.param(DIRECT, Verdict.BAD, "ignores the proxy", "trust_env=True", id="trust_env"),
        pytest.param(EXCEPTION, Verdict.BAD, "ignores the proxy", "base URL", id="no_proxy-in-code"),
        pytest.param(PINNING, Verdict.BAD, "pins a certificate", "Unpin it", id="pinning"),
        pytest.param(NO_PASSWORD, Verdict.BAD, "without the password", BASE_URL, id="no-password"),
        pytest.param(HTTP2, Verdict.BAD, "HTTP/2", "HTTP/1.1", id="http2"),
    ],
)
def test_a_python_client_is_told_apart(script: str, verdict: Verdict, text: str, cure: str) -> None:
    finding = examine_command("it", (sys.executable, "-c", script))
    assert (finding.verdict, text in finding.text, cure in finding.cure) == (verdict, True, True), finding


@pytest.mark.skipif(shutil.which("curl") is None, reason="wants curl")
def test_a_known_client_is_found_and_tried_and_what_is_not_here_could_not_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["doctor", "client", "--json", "curl"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["subject"], finding["verdict"]) == ("curl", "good")
    assert run_command(["doctor", "client", "/nowhere/such-a-program", "x"]) == 3
    assert run_command(["doctor", "client"]) == 2
    assert (
        run_command(["doctor", "client", "--", "curl", "-sk", "--noproxy", "*", "https://doctor.exeat.invalid/"]) == 1
    )
    shown = capsys.readouterr()
    assert "ignores the proxy" in shown.out
    assert "cure: " in shown.out
    assert run_command(["doctor", "client", "--list"]) == 0


def test_a_node_that_is_too_old_is_named_with_what_it_needs() -> None:
    """The node of this machine where it is old; a program that says so where it is not."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("wants node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    finding = examine_command("node", (node, "-e", "fetch('https://doctor.exeat.invalid/').catch(() => {})"))
    if int(version.removeprefix("v").partition(".")[0]) < 22:
        assert (finding.verdict, version.removeprefix("v") in finding.text) == (Verdict.BAD, True), finding
        assert NODE in finding.cure
    else:
        assert finding.verdict is Verdict.GOOD or "too old" in finding.text


@pytest.mark.parametrize(
    ("version", "old"),
    [("v20.20.2", True), ("v22.20.0", True), ("v22.21.0", False), ("v23.5.0", True), ("v24.0.0", False)],
)
def test_which_node_reads_a_proxy(tmp_path: Path, version: str, old: bool) -> None:
    program = tmp_path / "node"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    assert ("too old" in diagnose("node", str(program), ()).text) == old


def test_one_bad_host_among_good_ones_is_told() -> None:
    visits = (Visit("a.test", Seen.ASKED), Visit("b.test", Seen.UNTRUSTED, "TLSV1_ALERT_UNKNOWN_CA"))
    assert "b.test" in diagnose("it", "x", visits).text


def test_what_is_tried_reaches_nobody() -> None:
    """A rehearsal answers for a host whose address it would have to dial: nothing listens there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        script = f"import requests; print(requests.get('https://localhost.test:{port}/', timeout=20).text)"
        assert examine_command("it", (sys.executable, "-c", script)).verdict is Verdict.GOOD
