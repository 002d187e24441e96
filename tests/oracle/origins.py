# ruff: noqa: E501 - tables, a row a line
"""Eight HTTP servers as origins, each a process of its own on a port of its own, and what each parsed.

Every origin answers 200 and notes method, target, fields in their order and body of each request that its own parser
made out of the bytes. `Arrival` is that note in one form. Nothing here knows what was sent.
"""

import base64
import binascii
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tests.worlds.authority import Authority, Leaf

SERVERS = Path(__file__).parent / "servers"
START_SECONDS = 20.0
type Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Arrival:
    """One request as an origin parsed it."""

    method: bytes
    target: bytes
    fields: Fields
    """Names in lower case."""
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.fields if field == name]


@dataclass(frozen=True)
class Origin:
    """A kind of server."""

    name: str
    program: str
    """What has to be on this machine."""
    version: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    read: Callable[[Path], list[Arrival]]
    joins: bool = False
    """True for a server that joins the fields of one name into one, as RFC 9110 section 5.3 allows."""
    omits_empty: bool = False
    """True for a server that drops fields without a value."""

    @property
    def host(self) -> str:
        return f"{self.name}.test"

    @property
    def here(self) -> bool:
        return shutil.which(self.program, path=_PATH) is not None

    def version_text(self) -> str:
        done = subprocess.run(self.version, capture_output=True, text=True, check=False, env={"PATH": _PATH})
        return (done.stdout or done.stderr).splitlines()[0].strip()[:44]


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"


def _arrival(seen: dict[str, object]) -> Arrival:
    headers = seen["headers"]
    assert isinstance(headers, list)
    return Arrival(
        str(seen["method"]).encode(),
        str(seen["target"]).encode("latin-1"),
        tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers),
        base64.b64decode(str(seen["body"])),
    )


def _json_lines(folder: Path) -> list[Arrival]:
    lines = [json.loads(line) for line in (folder / "stdout").read_bytes().splitlines() if line.startswith(b"{")]
    return [_arrival(line) for line in lines if "fault" not in line]


def _nginx_log(folder: Path) -> list[Arrival]:
    lines = [line.rpartition(b"|") for line in (folder / "seen.log").read_bytes().split(b"\n") if line]
    # njs writes a field's bytes as they came, UTF-8 or not: read as Latin-1 they come out as they went in.
    # A request that nginx itself refused has no note: its status alone tells of it, and the ledger has that too.
    return [_arrival(json.loads(seen.decode("latin-1"))) for seen, _, _ in lines if seen not in (b"", b"-")]


def _apache_log(folder: Path) -> list[Arrival]:
    bodies = {path.name.encode(): base64.b64decode(path.read_bytes()) for path in (folder / "bodies").iterdir()}
    arrivals = []
    for line in (folder / "seen.log").read_bytes().split(b"\n"):
        if not line.startswith(b"+"):
            continue
        _, first, *fields = line.split(b"|")
        method, target, _ = unquote_to_bytes(first).split(b" ")
        pairs = [field.partition(b":") for field in fields]
        named = tuple((unquote_to_bytes(name).lower(), unquote_to_bytes(value)) for name, _, value in pairs)
        number = dict(named).get(b"x-oracle-id", b"-")
        arrivals.append(Arrival(method, target, named, bodies.get(number, b"")))
    return arrivals


def _words(path: Path) -> Iterator[list[bytes]]:
    for line in path.read_bytes().split(b"\n"):
        if line.endswith(b"."):
            yield line[:-1].split(b" ")


def _head_lines(raw: bytes, end: bytes) -> Fields:
    pairs = [line.partition(b":") for line in raw.split(end) if line]
    return tuple((name.lower(), value.strip(b" ")) for name, _, value in pairs)


def _haproxy_log(folder: Path) -> list[Arrival]:
    arrivals = []
    for words in _words(folder / "stdout"):
        with contextlib.suppress(binascii.Error):
            _, method, target, head, body = words
            if head != b"-":
                raw = base64.b64decode(head)
                fields = _head_lines(raw, b"\r\n")
                arrivals.append(
                    Arrival(method, base64.b64decode(target), fields, b"" if body == b"-" else base64.b64decode(body))
                )
    return arrivals


def _lighttpd_log(folder: Path) -> list[Arrival]:
    if not (folder / "seen.log").exists():
        return []
    arrivals = []
    for words in _words(folder / "seen.log"):
        method, target, head, body = (base64.b64decode(word + b"=" * (-len(word) % 4)) for word in words)
        arrivals.append(Arrival(method, target, _head_lines(head, b"\n"), body))
    return arrivals


def _own(script: str, *more: str) -> Callable[[Path, int], list[str]]:
    program = "node" if script.endswith(".js") else sys.executable
    return lambda folder, port: [
        program, str(SERVERS / script), str(port), str(folder / "chain"), str(folder / "key"), *more
    ]  # fmt: skip


def _configured(name: str, *command: str) -> Callable[[Path, int], list[str]]:
    def prepare(folder: Path, port: int) -> list[str]:
        names = {
            "folder": folder, "servers": SERVERS, "port": port, "chain": folder / "chain", "key": folder / "key"
        }  # fmt: skip
        (folder / "conf").write_text((SERVERS / f"{name}.conf").read_text().format(**names))
        for script in SERVERS.glob(f"{name}.[lc][ug][ai]"):
            own = folder / f"oracle{script.suffix}"
            own.write_text(script.read_text().format(**names))
            own.chmod(0o755)
        return [*command, str(folder / "conf")]

    return prepare


_UVICORN = (sys.executable, "-c", "import uvicorn, {0}; print('uvicorn', uvicorn.__version__, '{0}', {0}.__version__)")
ORIGINS = (
    Origin("stdlib", sys.executable, (sys.executable, "-c", "import http.server, sys; print('http.server', sys.version.split()[0])"), _own("stdlib_server.py"), _json_lines),
    Origin("h11", sys.executable, (*_UVICORN[:2], _UVICORN[2].format("h11")), _own("asgi_server.py", "h11"), _json_lines),
    Origin("httptools", sys.executable, (*_UVICORN[:2], _UVICORN[2].format("httptools")), _own("asgi_server.py", "httptools"), _json_lines),
    Origin("node", "node", ("node", "--version"), _own("node_server.js"), _json_lines),
    Origin("nginx", "nginx", ("nginx", "-v"), _configured("nginx", "nginx", "-c"), _nginx_log),
    Origin("apache", "apache2", ("apache2", "-v"), _configured("apache", "apache2", "-D", "FOREGROUND", "-f"), _apache_log, joins=True),
    Origin("haproxy", "haproxy", ("haproxy", "-v"), _configured("haproxy", "haproxy", "-db", "-f"), _haproxy_log),
    Origin("lighttpd", "lighttpd", ("lighttpd", "-v"), _configured("lighttpd", "lighttpd", "-D", "-f"), _lighttpd_log, joins=True, omits_empty=True),
)  # fmt: skip


@dataclass
class Running:
    """An origin that runs."""

    origin: Origin
    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def arrivals(self) -> list[Arrival]:
        return self.origin.read(self.folder)


@contextlib.contextmanager
def running(origin: Origin, folder: Path, authority: Authority) -> Iterator[Running]:
    """The server takes TLS connections; it has ended afterwards, with everything that it started."""
    folder.mkdir()
    leaf: Leaf = authority.issue(origin.host)
    for name, content in (
        ("chain", leaf.chain_pem),
        ("key", leaf.key_pem),
        ("pair.pem", leaf.chain_pem + leaf.key_pem),
    ):
        (folder / name).write_bytes(content)
    (folder / "bodies").mkdir()
    for path in (folder, folder / "bodies"):
        path.chmod(0o777)  # Apache gives up root
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = origin.command(folder, port)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=folder,
            env={"PATH": _PATH},
            start_new_session=True,  # Apache ends by a signal to its whole process group
        )  # fmt: skip
    try:
        _wait(process, port, origin, folder)
        yield Running(origin, folder, port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, origin: Origin, folder: Path) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 2) as sock,
            context.wrap_socket(sock),
        ):
            return
        time.sleep(0.05)
    said = "".join(path.read_text(errors="replace") for path in (folder / "stderr", folder / "stdout"))
    raise AssertionError(f"{origin.name} does not serve: {said[-800:]}")
