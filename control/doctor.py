"""Looks for what is wrong, on the operators' side and inside a run; every finding comes with its cure.

A check is a function that yields findings. It changes nothing and never raises for what it finds.
"""

import http.client
import os
import shutil
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography import x509

from control.environment import MATRIX, Value
from control.observed import ENDED, ENDS_SOON
from control.operations import OperationError
from control.relay_head import encode_basic
from control.remote import SOCKET_NAME, Remote
from control.separation import readable_keys
from control.startup import foreign_packages, key_log_variables
from control.status_views import Status

FREE_BYTES = 256 * 1024 * 1024
"""Four times the reserve below which the ledger refuses intents."""
CLOCK_SLACK_SECONDS = 5.0
AUTHORITY_WARNING = timedelta(days=30)
PROBE_HOST = "doctor.exeat.invalid"
"""A name that no policy can have (RFC 2606): the gate answers for it itself and dials nobody."""
PROBE_SECONDS = 10.0


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    """Works, and is probably not meant."""
    BAD = "bad"
    """Does not work, or is not safe."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str
    cure: str = ""


def examine(state: Path, environment: Mapping[str, str] = os.environ) -> tuple[Finding, ...]:
    """Everything that can be told from here: the agent's side inside a run, else the operators' side."""
    checks = AGENT_CHECKS if environment.get("EXEAT_RUN") else OPERATOR_CHECKS
    return tuple(finding for check in checks for finding in check(state, environment))


def packages(_: Path, __: Mapping[str, str]) -> Iterator[Finding]:
    """Our top-level names belong to us."""
    foreign = foreign_packages()
    for name, place in foreign:
        cure = "Install Exeat in an environment of its own (uv tool, pipx or the container)."
        yield Finding("packages", Verdict.BAD, f"{name} comes from {place} and is not ours", cure)
    if not foreign:
        yield Finding("packages", Verdict.GOOD, "our own")


def key_logs(_: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Nobody asked TLS libraries to write their keys to a file."""
    names = key_log_variables(environment)
    for name in names:
        text = f"{name} is set: TLS keys, and with them every secret, would be written to a file"
        yield Finding("TLS keys", Verdict.BAD, text, f"unset {name}")
    if not names:
        yield Finding("TLS keys", Verdict.GOOD, "not written down")


def folder(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """The state and its keys are readable by their owner alone."""
    if not state.is_dir():
        yield Finding(
            "state", Verdict.WARNING, f"there is none in {state}", "exeat up makes it; or name it: --state DIR"
        )
        return
    bad = False
    private = [state, state / "keys", *sorted(p for p in (state / "keys").glob("*") if p.name != "ca-cert.pem")]
    for path in private:
        try:
            status = path.lstat()
        except OSError as error:
            bad = True
            yield Finding("state", Verdict.BAD, f"{path}: {error.strerror}", "Run this as the user of `exeat up`.")
            continue
        if stat.S_ISLNK(status.st_mode):
            bad = True
            yield Finding("state", Verdict.BAD, f"{path} is a symbolic link", "Put the file itself there.")
        elif stat.S_IMODE(status.st_mode) & 0o077:
            bad = True
            mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
            yield Finding("state", Verdict.BAD, f"others can open {path}", f"chmod {mode} {path}")
    if not bad:
        yield Finding("state", Verdict.GOOD, f"{state}, private")


def disk(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """There is room for records."""
    if not state.is_dir():
        return
    free = shutil.disk_usage(state).free
    text = f"{free // 1_048_576:,} MiB free"
    if free < FREE_BYTES:
        yield Finding("disk", Verdict.BAD, f"{text}; without room for records calls are denied", "Free some space.")
    else:
        yield Finding("disk", Verdict.GOOD, text)


def clock(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """The clock has not been set back behind the newest record."""
    written = [path.stat().st_mtime for path in (state / "ledger" / "segments").glob("*.seg")]
    if not written:
        return
    ahead = max(written) - time.time()
    if ahead > CLOCK_SLACK_SECONDS:
        text = f"it is {ahead:.0f} s behind the newest record; credentials and windows would be judged wrongly"
        yield Finding("clock", Verdict.BAD, text, "Set it (chronyc makestep, timedatectl), then restart.")
    else:
        yield Finding("clock", Verdict.GOOD, "not behind the newest record")


def authority(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """The certificate that agents trust is valid for a while."""
    path = state / "keys" / "ca-cert.pem"
    if not path.exists():
        return
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        yield Finding("authority", Verdict.BAD, f"{path} cannot be read: {error}", "Restore keys/ from its backup.")
        return
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta(0):
        cure = "Start exeat up: it makes a new one; then restart agents and relays."
        yield Finding("authority", Verdict.BAD, f"expired {-left.days} days ago", cure)
    elif left < AUTHORITY_WARNING:
        cure = "exeat ca rotate; restart agents and relays; exeat ca rotate --switch"
        yield Finding("authority", Verdict.WARNING, f"expires in {left.days} days", cure)
    else:
        yield Finding("authority", Verdict.GOOD, f"valid for {left.days} days")


def process(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """A process runs, and what it says of itself is good."""
    remote = Remote(state)
    try:
        if not remote.answers():
            yield Finding("process", Verdict.WARNING, "none runs for this state; agents cannot connect", "exeat up")
            return
        status = remote.status()
    except OperationError as error:
        yield Finding("process", Verdict.BAD, str(error), error.cure)
        return
    yield Finding("process", Verdict.GOOD, f"{status.pid}, {', '.join(status.listening)}")
    if (state / SOCKET_NAME).stat().st_mode & 0o077:
        yield Finding(
            "operators", Verdict.BAD, "others can open the operators' socket", f"chmod 600 {state / SOCKET_NAME}"
        )
    yield from _of_status(status)
    yield from _of_health(status)


def _of_status(status: Status) -> Iterator[Finding]:
    if status.policy is None:
        yield Finding("policy", Verdict.WARNING, "none: every call is denied", "exeat policy apply PATH")
    else:
        yield Finding("policy", Verdict.GOOD, status.policy[:19])
    for fault in status.faults:
        yield Finding("fault", Verdict.BAD, fault, "Follow what it says; until then what needs it is denied.")
    for missing in status.secrets_missing:
        tenant, _, name = missing.partition("/")
        cure = f"exeat secret set {name} --tenant {tenant} < FILE"
        yield Finding("secret", Verdict.BAD, f"{missing} is wanted by a connection and not set", cure)
    if status.ledger.halted is not None:
        yield Finding("ledger", Verdict.BAD, f"halted: {status.ledger.halted}", "Mend the disk, then restart.")
    else:
        yield Finding("ledger", Verdict.GOOD, f"{status.ledger.records} records")
    for warning in status.warnings:
        if "decision inputs" in warning:
            cure = "Look at the disk and the log; calls go on, and a replay will miss them."
            yield Finding("inputs", Verdict.WARNING, warning, cure)
        if ENDS_SOON in warning or ENDED in warning:
            account = warning.partition(":")[0].rpartition("/")[2]
            cure = f"Write its rules (exeat suggest {account}), then say stage: autonomous, or a later until."
            yield Finding("observe", Verdict.WARNING, warning, cure)
    for switch in status.unsafe:
        yield Finding("unsafe", Verdict.WARNING, f"{switch} is on", "Start without it where you can.")
    if status.draining:
        yield Finding(
            "process", Verdict.WARNING, "it is draining and takes no new call", "Wait for it, then start anew."
        )


def _of_health(status: Status) -> Iterator[Finding]:
    if status.health is None:
        return
    host, _, port = status.health.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        text = answer.read(200).decode("ascii", "replace").strip()
        if answer.status == 200:
            yield Finding("health", Verdict.GOOD, f"http://{status.health}")
        else:
            yield Finding("health", Verdict.BAD, text, "Restart it; keep its log.")
    except OSError as error:
        yield Finding("health", Verdict.BAD, f"http://{status.health} does not answer: {error}", "Restart it.")
    finally:
        connection.close()


# Inside a run


def proxies(_: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Every proxy variable is as `exeat run` set it."""
    cure = "Start the program with `exeat run`, and do not change its environment afterwards."
    urls = {environment.get(row.name) for row in MATRIX if row.value is Value.PROXY}
    if len(urls) != 1 or None in urls:
        yield Finding("proxies", Verdict.BAD, "the proxy variables are not all set to the same relay", cure)
    else:
        yield Finding("proxies", Verdict.GOOD, "all set")
    for name in ("NO_PROXY", "no_proxy"):
        if environment.get(name):
            yield Finding(
                "proxies", Verdict.BAD, f"{name} makes exceptions: {environment[name]}", f"unset {name}; {cure}"
            )


def trust(_: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The bundles that variables point at are there."""
    missing = [
        row.name
        for row in MATRIX
        if row.value in (Value.COMBINED, Value.AUTHORITY) and not Path(environment.get(row.name, "/nowhere")).is_file()
    ]
    if missing:
        text = f"no file where {', '.join(missing[:3])} point{'s' if len(missing) == 1 else ''}"
        yield Finding(
            "trust", Verdict.BAD, text, "Start the program with `exeat run`; its files live as long as the run."
        )
    else:
        yield Finding("trust", Verdict.GOOD, "bundles are there")


def reach(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """The program in this run cannot command the gate that is there to hold it."""
    try:
        open_door = Remote(state).answers()
    except OperationError:
        open_door = False
    if open_door:
        text = f"a program here can speak to the operators' socket in {state}: it is the same user"
        yield Finding("separation", Verdict.WARNING, text, "Run agents as a user of their own: exeat run --user NAME")
    else:
        yield Finding("separation", Verdict.GOOD, "no operators' socket can be reached from here")


def keys(state: Path, _: Mapping[str, str]) -> Iterator[Finding]:
    """The program in this run cannot read the keys of the gate, and so neither impersonate a service nor forge."""
    if readable := readable_keys(state):
        text = f"a program here can read {readable[0]}: it is the same user"
        yield Finding("keys", Verdict.WARNING, text, "Run agents as a user of their own: exeat run --user NAME")
    else:
        yield Finding("keys", Verdict.GOOD, "no key file can be opened from here")


def probe(_: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    """A real TLS request through the relay and the gate: answered by the gate itself, which dials nobody for it."""
    url = urlsplit(environment.get("HTTPS_PROXY", ""))
    bundle = environment.get("SSL_CERT_FILE")
    if url.hostname is None or url.port is None or url.username is None or not bundle:
        yield Finding("gate", Verdict.BAD, "HTTPS_PROXY or SSL_CERT_FILE is not set", "Start with `exeat run`.")
        return
    try:
        context = ssl.create_default_context(cafile=bundle)
    except OSError as error:
        yield Finding("gate", Verdict.BAD, f"{bundle} cannot be read: {error}", "Start with `exeat run`.")
        return
    connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=PROBE_SECONDS, context=context)
    login = encode_basic(unquote(url.username), unquote(url.password or "").encode()).decode("ascii")
    connection.set_tunnel(PROBE_HOST, 443, {"Proxy-Authorization": login})
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read(65_536)
        code = answer.headers.get("Exeat-Code")
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            "gate", Verdict.BAD, f"its certificate is not trusted: {error.verify_message}", "Restart the run."
        )
    except (OSError, http.client.HTTPException) as error:
        yield Finding(
            "gate", Verdict.BAD, f"no answer through the relay: {error}", "Is `exeat up` running? exeat status"
        )
    else:
        if code in ("destination_unknown", "not_allowed", "rule_denied"):
            yield Finding(
                "gate", Verdict.GOOD, f"reached and trusted (it answered {answer.status}, {code}, as it should)"
            )
        else:
            text = f"it answered {answer.status}, {code or 'without a code'}"
            yield Finding("gate", Verdict.BAD, text, "See what that code means in docs/reference/denials.md.")
    finally:
        connection.close()


type Check = Callable[[Path, Mapping[str, str]], Iterator[Finding]]

OPERATOR_CHECKS: tuple[Check, ...] = (packages, key_logs, folder, disk, clock, authority, process)
AGENT_CHECKS: tuple[Check, ...] = (proxies, trust, key_logs, reach, keys, probe)
