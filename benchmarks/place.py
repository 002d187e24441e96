"""What one run shares: a folder on a real disk, the origin's certificate, cores, ports, child processes."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME: Final = "saas.test"
"""The origin's name; peers that cannot be told an address for it use `localhost`."""
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Authority:
    """An issuer made for one run."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        return cls(
            _certificate(subject, subject, key, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256()),
            key,
        )

    def leaf(self, names: Sequence[str]) -> bytes:
        """Private key and certificate for these names, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        signed = (
            _certificate(subject, self.certificate.subject, key, self.key)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return _key_pem(key) + signed.public_bytes(serialization.Encoding.PEM)

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def bundle(self) -> bytes:
        """Private key and certificate, PEM: what an intercepting proxy signs with."""
        return _key_pem(self.key) + self.pem()


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Child:
    """A process pinned to one core, whose own and whose children's cost can be read."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        """User and system time of the process, its reaped children and its living descendants."""
        ticks = 0
        for pid in self._family():
            try:
                fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            ticks += sum(int(value) for value in fields[11:15])
        return ticks / _CLOCK_TICKS

    def resident_bytes(self) -> int:
        """Resident memory of the process and its living descendants."""
        pages = 0
        for pid in self._family():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
            except OSError:
                continue
        return pages * _PAGE_BYTES

    def _family(self) -> list[int]:
        family = [self.pid]
        for pid in family:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    family.extend(int(child) for child in tasks.read_text().split())
                except OSError:
                    continue
        return family

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """The process is gone; killed when it does not obey within five seconds."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Place:
    """The folder and the cores of one run; everything started here is stopped by `close`."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o755)
        self.folder = folder
        cores = sorted(os.sched_getaffinity(0))
        self.cores = len(cores)
        self.client_core = cores[0]
        self.proxy_core = cores[1] if len(cores) > 1 else cores[0]
        self.children: list[Child] = []
        authority = Authority.create("Benchmark origin")
        self.origin_ca = folder / "origin-ca.pem"
        self.origin_ca.write_bytes(authority.pem())
        certificate = folder / "origin.pem"
        certificate.write_bytes(authority.leaf([NAME, "localhost"]))
        os.sched_setaffinity(0, {self.client_core})
        self.origin = self.start(
            "origin", [sys.executable, "-m", "benchmarks.origin", str(certificate)], core=self.client_core, talk=True
        )
        self.origin_port = int(self._first_line(self.origin))

    @property
    def shares_one_core(self) -> bool:
        return self.client_core == self.proxy_core

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | None = None,
        talk: bool = False,
        env: dict[str, str] | None = None,
    ) -> Child:
        """A child on the proxies' core, or the given one; what it says goes to `NAME.log`, or to a pipe with `talk`."""
        log = self.folder / f"{name}.log"
        pinned = self.proxy_core if core is None else core
        os.sched_setaffinity(0, {pinned})  # inherited by the child
        try:
            with log.open("ab") as words:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if talk else words,
                    stderr=words,
                    env={**os.environ, **(env or {})},
                )
        finally:
            os.sched_setaffinity(0, {self.client_core})
        child = Child(process, log)
        self.children.append(child)
        return child

    def wait_for(self, child: Child, ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Returns once `ready`; raises `PeerFailed` with the child's last words when it dies or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if child.process.poll() is not None:
                raise PeerFailed(f"{what} stopped with {child.process.returncode}: {child.last_words()}")
            if time.monotonic() > deadline:
                raise PeerFailed(f"{what} was not ready after {seconds:.0f} s: {child.last_words()}")
            time.sleep(0.05)

    @staticmethod
    def _first_line(child: Child) -> bytes:
        stream: IO[bytes] | None = child.process.stdout
        line = stream.readline() if stream is not None else b""
        if not line:
            raise PeerFailed(f"the origin did not start: {child.last_words()}")
        return line

    def cpu_seconds(self) -> float:
        """What this process and everything it started has used; the rest of the machine's time is somebody else's."""
        return time.process_time() + sum(child.cpu_seconds() for child in self.children)

    def close(self) -> None:
        for child in reversed(self.children):
            child.stop()


class PeerFailed(Exception):
    """A peer that is installed did not start; the run cannot be compared."""


def free_port() -> int:
    """A loopback port nobody listens on now; should another process take it first, the peer's start says so."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
