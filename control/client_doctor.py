"""What a given client needs: it is run at a rehearsal, and how far it got says what is wrong and how to mend it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from control.doctor import PROBE_HOST, Finding, Verdict
from control.environment import agent_environment, proxy_url, variables, write_trust_files
from control.rehearsal import ACCOUNT, Rehearsal, Seen, Visit

URL = f"https://{PROBE_HOST}/"
SECONDS = 60.0
"""How long a client may take; SDKs try again before they give up."""
BASE_URL = "Use the base URL: $EXEAT_BASE_URL/CONNECTION with $EXEAT_API_KEY as its key."
NODE = "NODE_USE_ENV_PROXY=1, which is set here, needs Node 24 (or 22.21)."


@dataclass(frozen=True, slots=True)
class Client:
    """A client that can be looked for by name."""

    name: str
    program: str
    arguments: tuple[str, ...]
    module: str | None = None
    """Of Python; the client is there where this can be imported."""


def _python(name: str, script: str, module: str | None = None) -> Client:
    return Client(name, "python3", ("-c", script), module or name)


CLIENTS: tuple[Client, ...] = (
    Client("curl", "curl", ("-sS", "-m", "20", URL)),
    Client("wget", "wget", ("-q", "-T", "20", "-t", "1", "-O", "-", URL)),
    Client("git", "git", ("ls-remote", f"{URL}x.git")),
    Client("node", "node", ("-e", f"fetch('{URL}').then(r => console.log(r.status))")),
    Client("npm", "npm", ("ping", "--registry", URL, "--fetch-retries", "0")),
    _python("urllib", f"import urllib.request as u; u.urlopen('{URL}', timeout=20)"),
    _python("requests", f"import requests; requests.get('{URL}', timeout=20)"),
    _python("httpx", f"import httpx; httpx.get('{URL}', timeout=20)"),
    _python(
        "aiohttp",
        "import aiohttp, asyncio\nasync def go():\n async with aiohttp.ClientSession() as s:\n"
        f"  async with s.get('{URL}') as r: print(r.status)\nasyncio.run(go())",
    ),
    _python(
        "openai",
        f"import openai; openai.OpenAI(api_key='x', base_url='{URL}', max_retries=0, timeout=20).models.list()",
    ),
    _python(
        "stripe",
        "import stripe; stripe.StripeClient('sk_test_x', max_network_retries=0, "
        f"base_addresses={{'api': '{URL[:-1]}'}}).v1.balance.retrieve()",
    ),
    _python(
        "boto3",
        f"import boto3; boto3.client('sts', region_name='eu-west-1', endpoint_url='{URL}', aws_access_key_id='x', "
        "aws_secret_access_key='x').get_caller_identity()",
    ),
)
"""Each makes one call to a name that nobody can have (RFC 2606): what ignores the proxy reaches nobody either."""

CURES: Mapping[str, tuple[str, str]] = {
    "node": (NODE, "It reads NODE_EXTRA_CA_CERTS, unless its code sets `ca`."),
    "python3": (
        f"Its code has to ask for it: aiohttp `trust_env=True`, stripe `stripe.proxy`. Or: {BASE_URL}",
        "It reads SSL_CERT_FILE, requests REQUESTS_CA_BUNDLE; code that names its own store (certifi) has to be given "
        f"$SSL_CERT_FILE: stripe `stripe.ca_bundle_path`. Or: {BASE_URL}",
    ),
    "wget": (BASE_URL, f"Built with GnuTLS it reads no variable: --ca-certificate=$SSL_CERT_FILE. Or: {BASE_URL}"),
    "java": (BASE_URL, BASE_URL),
    "git": ("git config --unset http.proxy, which comes before the variables.", "It reads GIT_SSL_CAINFO."),
    "curl": ("Without -x, --noproxy and ~/.curlrc it reads https_proxy.", "It reads CURL_CA_BUNDLE; drop --cacert."),
}
"""Program: the cure where it ignores the proxy, and where it does not trust the authority."""

JUDGES_LATE = frozenset({"wget"})
"""Programs on GnuTLS judge an authority after the handshake and say nothing: that looks like a pin and is none."""


class CannotRun(Exception):
    """The client is not here, or its program cannot be started."""


def find(client: Client) -> str | None:
    """Path of its program; None where it is not on this machine."""
    program = shutil.which(client.program)
    if program is None or client.module is None:
        return program
    code = f"import importlib.util as u; raise SystemExit(u.find_spec({client.module.partition('.')[0]!r}) is None)"
    return program if subprocess.run([program, "-c", code], check=False, capture_output=True).returncode == 0 else None


def examine_clients(clients: Sequence[Client]) -> tuple[Finding, ...]:
    """Each of them, tried. Raises `CannotRun` for one that is not here."""
    commands: list[tuple[str, tuple[str, ...]]] = []
    for client in clients:
        program = find(client)
        if program is None:
            raise CannotRun(f"{client.name} is not on this machine")
        commands.append((client.name, (program, *client.arguments)))
    return tuple(examine_command(name, command) for name, command in commands)


def examine_command(name: str, command: tuple[str, ...]) -> Finding:
    """The command has been run at a rehearsal. Raises `CannotRun`."""
    late = False
    with tempfile.TemporaryDirectory(prefix="exeat-doctor-") as folder, Rehearsal(Path(folder)) as door:
        trust = write_trust_files(Path(folder), door.authority_pem)
        settings = variables(proxy_url("127.0.0.1", door.port, ACCOUNT, door.password), trust)
        environment = agent_environment(os.environ, settings | {"EXEAT_RUN": "rehearsal"})
        try:
            subprocess.run(
                command, env=environment, check=False, timeout=SECONDS, capture_output=True, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            late = True
        except OSError as error:
            raise CannotRun(f"{command[0]}: {error.strerror}") from error
    return diagnose(name, command[0], door.take(), late=late)


def diagnose(name: str, program: str, visits: Sequence[Visit], *, late: bool = False) -> Finding:
    """What the visits of one client say. The first thing that went wrong is told, with its cure."""
    family = re.sub(r"^(python)[\d.]*$", "python3", Path(program).name)
    ignores, distrusts = CURES.get(family, (BASE_URL, f"Point it at $SSL_CERT_FILE. Or: {BASE_URL}"))

    def bad(text: str, cure: str) -> Finding:
        return Finding(name, Verdict.BAD, text, cure)

    by = {seen: [visit for visit in visits if visit.seen is seen] for seen in Seen}
    if by[Seen.HTTP2]:
        return bad("speaks HTTP/2 without having agreed on it", f"Set it to HTTP/1.1. Or: {BASE_URL}")
    if by[Seen.UNTRUSTED]:
        one = by[Seen.UNTRUSTED][0]
        return bad(f"does not trust the certificate of {one.host} ({one.detail.lower()})", distrusts)
    if by[Seen.SILENT]:
        host = by[Seen.SILENT][0].host
        if family in JUDGES_LATE:
            return bad(f"does not trust the certificate of {host} (it left after the handshake)", distrusts)
        return bad(f"finished the handshake with {host} and left: it pins a certificate", f"Unpin it. Or: {BASE_URL}")
    if by[Seen.MALFORMED]:
        return bad(f"sent what cannot be read in one way: {by[Seen.MALFORMED][0].detail}", BASE_URL)
    if by[Seen.ASKED]:
        return Finding(name, Verdict.GOOD, "obeys the proxy, or the base URL, and trusts the certificates")
    if by[Seen.CHALLENGED]:
        return bad("reached the proxy without the password of its URL", BASE_URL)
    if family == "node" and (version := _old_node(program)) is not None:
        return bad(f"ignores the proxy: Node {version} is too old", f"{NODE} Or: {BASE_URL}")
    return bad("ignores the proxy" + (f", or called nobody within {SECONDS:.0f} s" if late else ""), ignores)


def _old_node(program: str) -> str | None:
    """Its version where it cannot read HTTPS_PROXY."""
    done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    match = re.fullmatch(r"v(\d+)\.(\d+)\.\d+\S*", done.stdout.strip())
    if match is None:
        return None
    major, minor = int(match[1]), int(match[2])
    return None if major >= 24 or (major == 22 and minor >= 21) else match[0].removeprefix("v")
